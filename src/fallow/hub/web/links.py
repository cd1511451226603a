"""/link/client and /link/node: WebSocket handshakes, which the server passes on. The token is checked before the link opens."""

import asyncio
from functools import partial
from typing import Any, cast
from urllib.parse import unquote

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from fallow.hub.core.hub import Hub
from fallow.hub.web.auth import bearer_secret
from fallow.hub.web.errors import ErrorBody, ErrorDetail
from fallow.link.served import ServedLink
from fallow.link.websocket import Kind
from fallow.model.errors import Denied, FallowError, Forbidden, NotFound
from fallow.model.token import Role, Token

KINDS: dict[str, Kind] = {"/link/client": "client", "/link/node": "node"}
MAY_LINK: dict[Kind, set[Role]] = {"client": {"user", "admin"}, "node": {"node", "admin"}}


def link_protocol(hub: Hub) -> type[asyncio.Protocol]:
    """Return what uvicorn makes for each WebSocket handshake (`Config.ws`)."""
    return cast("type[asyncio.Protocol]", partial(HubLink, hub))


class HubLink(ServedLink):
    """A link as uvicorn holds it: among its connections, to be shut down with them."""

    def __init__(self, hub: Hub, config: Any, server_state: Any, app_state: Any) -> None:
        """config, server_state, app_state: given by uvicorn; of them only the set of its connections is of use."""
        super().__init__()
        self._hub = hub
        self._connections: set[Any] = server_state.connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close: the server is stopping."""
        self._end(1012, "the hub is stopping; it will be back")
        self._transport.close()

    def answer(self, request: Request) -> Response:
        try:
            kind, token = _identify(self._hub, request)
        except FallowError as error:
            return _refusal(error)
        response = self.accept(kind, request)
        if response.status_code == 101:
            self._hub.accept(self, token, kind)
        return response


def _identify(hub: Hub, request: Request) -> tuple[Kind, Token]:
    kind = KINDS.get(unquote(request.path.partition("?")[0]))
    if kind is None:
        raise NotFound("links are at /link/client and /link/node")
    secret = bearer_secret(next(iter(request.headers.get_all("Authorization")), None))
    token = hub.authenticate(secret) if secret else None
    if token is None:
        raise Denied("the token was refused: send a valid one as `Authorization: Bearer TOKEN`")
    if token.role not in MAY_LINK[kind]:
        raise Forbidden(f"a {token.role}'s token can't open a {kind}'s link")
    return kind, token


def _refusal(error: FallowError) -> Response:
    body = msgspec.json.encode(ErrorBody(ErrorDetail(error.code, str(error))))
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
    if error.status == Denied.status:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(error.status, "Refused", headers, body)
