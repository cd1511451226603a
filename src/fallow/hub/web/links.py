"""/link/client and /link/node: bare ASGI WebSocket routes. The token is checked before the connection opens."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

import msgspec

from fallow.hub.core.hub import Hub
from fallow.hub.web.auth import bearer_secret
from fallow.hub.web.errors import ErrorBody, ErrorDetail
from fallow.link.websocket import serve_websocket
from fallow.model.errors import Denied, FallowError, Forbidden, NotFound
from fallow.model.token import Role, Token

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Kind = Literal["client", "node"]

KINDS: dict[str, Kind] = {"/link/client": "client", "/link/node": "node"}
MAY_LINK: dict[Kind, set[Role]] = {"client": {"user", "admin"}, "node": {"node", "admin"}}


async def serve_link(hub: Hub, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a WebSocket handshake: hand the link to the hub, or refuse it with an HTTP status."""
    try:
        kind, token = _identify(hub, scope)
    except FallowError as error:
        await _refuse(error, scope, receive, send)
        return
    await serve_websocket(kind, scope, receive, send, lambda link: hub.accept(link, token, kind))


def _identify(hub: Hub, scope: Scope) -> tuple[Kind, Token]:
    kind = KINDS.get(scope["path"])
    if kind is None:
        raise NotFound("links are at /link/client and /link/node")
    header = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
    secret = bearer_secret(header)
    token = hub.authenticate(secret) if secret else None
    if token is None:
        raise Denied("the token was refused: send a valid one as `Authorization: Bearer TOKEN`")
    if token.role not in MAY_LINK[kind]:
        raise Forbidden(f"a {token.role}'s token can't open a {kind}'s link")
    return kind, token


async def _refuse(error: FallowError, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})  # before accept: the server answers 403
        return
    body = msgspec.json.encode(ErrorBody(ErrorDetail(error.code, str(error))))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == Denied.status:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
