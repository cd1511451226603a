"""The one shape of every refused request: `{"error": {"code": …, "message": …}}` and a fitting status.

Our own errors say what to do and are passed on. What went wrong inside the hub is logged under a
number, and only the number leaves it.
"""

import re
import secrets
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.routes import HTTPRoute

from fallow.log import Logger
from fallow.model.errors import BadRequest, FallowError

_log = Logger("fallow.web")

CODES = {  # of what the framework refuses
    401: "denied",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    503: "unavailable",
}


class ErrorDetail(msgspec.Struct, frozen=True):
    """What was refused, and why."""

    code: str
    """A word for programs, such as "job_not_found"."""
    message: str
    """One sentence for people, naming the thing and what to do."""


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every response with a status of 400 or more."""

    error: ErrorDetail


def error_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response[ErrorBody]:
    """Build a refusal."""
    if status == HTTPStatus.UNAUTHORIZED:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    return Response(
        ErrorBody(ErrorDetail(code, message)), status_code=status, media_type=MediaType.JSON, headers=headers
    )


def on_fallow_error(request: Request[Any, Any, Any], error: FallowError) -> Response[ErrorBody]:
    """Answer with the error's own status and words; those that are the hub's fault stay inside."""
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and type(error).code in {"error", "state"}:
        return on_bug(request, error)
    return error_response(error.status, error.code, str(error))


def on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[ErrorBody]:
    """Answer what the framework refuses: routes, methods, malformed bodies and parameters."""
    status = error.status_code
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.SERVICE_UNAVAILABLE:
        return on_bug(request, error)
    headers = {"Allow": ", ".join(_methods(request))} if status == HTTPStatus.METHOD_NOT_ALLOWED else None
    return error_response(status, CODES.get(status, BadRequest.code), _in_words(request, status, error), headers)


def on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorBody]:
    """Answer a fault of the hub: a number that finds it in the log, nothing of its inside."""
    if isinstance(error, RecursionError):
        return error_response(400, BadRequest.code, "the body is nested too deeply")
    number = secrets.token_hex(4)
    _log.error("request_failed", number=number, method=request.method, path=request.url.path, exc_info=error)
    return error_response(500, "internal", f"something went wrong in the hub; its log has more under {number}")


def _methods(request: Request[Any, Any, Any]) -> list[str]:
    """Return the methods that are possible at the request's path."""
    path = request.scope["path"].rstrip("/") or "/"
    found = {
        str(method)
        for route in request.app.routes
        if isinstance(route, HTTPRoute) and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", route.path_format), path)
        for method in route.methods
    }
    return sorted(found)


def _in_words(request: Request[Any, Any, Any], status: int, error: HTTPException) -> str:
    path = request.url.path
    if status == HTTPStatus.NOT_FOUND:
        return f"there is nothing at {path}; the routes are listed at /api"
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not possible at {path}; the routes are listed at /api"
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = request.route_handler.resolve_request_max_body_size()
        return f"the body is over the limit of {limit} bytes; the Python client streams jobs of any size"
    reasons = [_reason(extra) for extra in error.extra] if isinstance(error.extra, list) else []
    return "; ".join(reasons) or str(error.detail)


def _reason(extra: Any) -> str:
    if not isinstance(extra, dict):
        return str(extra)
    where = extra.get("key")
    return f"{where}: {extra.get('message')}" if where and where != "data" else str(extra.get("message"))
