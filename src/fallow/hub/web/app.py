"""The web application around a hub: REST, pages and static files. Links are beside it (`links.py`)."""

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from litestar import Litestar, MediaType, Response, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.static_files import create_static_files_router

from fallow.hub.core.hub import Hub
from fallow.hub.web.auth import provide_token, requires_token
from fallow.hub.web.errors import on_bug, on_fallow_error, on_http_error
from fallow.hub.web.headers import with_security
from fallow.hub.web.metrics import BlobSizes, metrics
from fallow.hub.web.openapi import api_router, openapi_document
from fallow.hub.web.overview import Meter
from fallow.hub.web.package_mirror import PackageMirror
from fallow.hub.web.pages import pages_router
from fallow.hub.web.sessions import Sessions
from fallow.hub.web.settings import WebSettings
from fallow.hub.web.streams import Streams
from fallow.model.errors import FallowError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STATIC = Path(__file__).parent / "static"


@get("/healthz", media_type=MediaType.TEXT, include_in_schema=False)
async def healthz() -> str:
    """Say that the hub runs: the one answer that needs no token."""
    return "ok"


@get("/api/v1/openapi.json", guards=[requires_token], include_in_schema=False)
async def openapi_json() -> Response[bytes]:
    """Serve the OpenAPI document."""
    return Response(openapi_document(), media_type=MediaType.JSON)


class WebApp:
    """An ASGI application. The one who serves it calls `close` before it waits for connections to end."""

    def __init__(self, hub: Hub, settings: WebSettings = WebSettings()) -> None:
        self._streams = Streams()
        self._packages = None if settings.packages is None else PackageMirror(settings.packages)
        self.litestar = _litestar(hub, settings, self._streams, self._packages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _hide_slashes_in_names(scope)
            send = with_security(scope["path"], send)
        await self.litestar(scope, receive, send)  # type: ignore[arg-type]

    def close(self) -> None:
        """End the event streams and the fetching of packages, which would keep the server from draining."""
        self._streams.close()
        if self._packages is not None:
            self._packages.close()


class _Litestar(Litestar):
    """Speaks msgspec alone: the plugins for pydantic and attrs would load these libraries, 5 MB, where they happen to be installed."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def _hide_slashes_in_names(scope: Scope) -> None:
    """Keep the %2F of a job's name from the router, which would take it for a separator; `jobs.named` reads it."""
    raw: bytes = (scope.get("raw_path") or b"").partition(b"?")[0]
    if b"%2f" in raw.lower():
        scope["path"] = raw.decode("ascii", "replace")


def _litestar(hub: Hub, settings: WebSettings, streams: Streams, packages: PackageMirror | None) -> Litestar:
    def provide_hub() -> Hub:
        return hub

    def provide_settings() -> WebSettings:
        return settings

    def provide_streams() -> Streams:
        return streams

    def provide_packages() -> PackageMirror | None:
        return packages

    return _Litestar(
        [
            healthz,
            openapi_json,
            metrics,
            api_router(),
            pages_router(),
            create_static_files_router("/static", directories=[STATIC], include_in_schema=False),
        ],
        dependencies={
            "hub": Provide(provide_hub, sync_to_thread=False),
            "web": Provide(provide_settings, sync_to_thread=False),
            "streams": Provide(provide_streams, sync_to_thread=False),
            "packages": Provide(provide_packages, sync_to_thread=False),
            "token": Provide(provide_token, sync_to_thread=False),
        },
        exception_handlers={FallowError: on_fallow_error, HTTPException: on_http_error, Exception: on_bug},
        state=State(
            {
                "hub": hub,
                "sessions": Sessions(settings.sessions, settings.signed_in_s),
                "meter": Meter(),
                "blob_sizes": BlobSizes(),
            }
        ),
        request_max_body_size=settings.body_bytes,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
