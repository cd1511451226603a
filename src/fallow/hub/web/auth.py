"""Who is asking: a bearer token, or a browser that is signed in.

A cookie travels with every request that any page makes the browser send. So a request that changes
something on the strength of a cookie must prove that one of our own pages sent it.
"""

import base64
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from fallow.hub.core.hub import Hub
from fallow.hub.web.sessions import COOKIE, Sessions
from fallow.model.errors import Denied, Forbidden
from fallow.model.token import Token

Connection = ASGIConnection[Any, Any, Any, Any]

READING = {"GET", "HEAD", "OPTIONS"}
FOR_NODES = {"nodes": True}
"""`opt` of routes that nodes may ask, and whose clients send a token as they would a password."""


def bearer_secret(header: str | None) -> str | None:
    """Return the secret of an `Authorization: Bearer …` header; None if there is none."""
    scheme, _, secret = (header or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def basic_secret(header: str | None) -> str | None:
    """Return the password of an `Authorization: Basic …` header; None if there is none."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded).decode().partition(":")[2].strip() or None
    except ValueError:
        return None


def is_same_origin(connection: Connection) -> bool:
    """Whether the browser says that a page of this very address sent the request (Fetch Metadata, RFC 6454)."""
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = connection.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == connection.headers.get("host")


def signed_in(connection: Connection) -> Token | None:
    """Return the token of the browser's session; None if it has none, or the token was revoked."""
    sessions: Sessions = connection.app.state.sessions
    hub: Hub = connection.app.state.hub
    session = connection.cookies.get(COOKIE)
    token_id = sessions.token_id(session) if session else None
    return next((token for token in hub.tokens() if token.id == token_id), None) if token_id else None


def identify(connection: Connection, *, is_for_nodes: bool = False) -> Token:
    """Return the caller's token; raises Denied or Forbidden."""
    header = connection.headers.get("authorization")
    if header is not None:
        hub: Hub = connection.app.state.hub
        secret = bearer_secret(header) or (basic_secret(header) if is_for_nodes else None)
        token = hub.authenticate(secret) if secret else None
        if token is None:
            raise Denied("the token was refused: send a valid one as `Authorization: Bearer TOKEN`")
        return token
    token = signed_in(connection)
    if token is None:
        raise Denied("this needs a token: send it as `Authorization: Bearer TOKEN`, or sign in at /sign-in")
    if connection.scope.get("method") not in READING and not is_same_origin(connection):
        raise Forbidden("a signed-in browser may change things from the hub's own pages only; programs send a token")
    return token


def requires_token(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard of every route but /healthz, static files and sign-in. Routes with `opt={"role": "admin"}` are for admins."""
    is_for_nodes = handler.opt.get("nodes", False)
    token = identify(connection, is_for_nodes=is_for_nodes)
    role = handler.opt.get("role")
    if token.role == "node" and not is_for_nodes:
        raise Forbidden("this is a node's token: it can join as a node, nothing else; use a user's or admin's token")
    if role is not None and token.role not in {role, "admin"}:
        raise Forbidden(f"this needs {'an admin' if role == 'admin' else role}'s token; yours is a {token.role}'s")
    hub: Hub = connection.app.state.hub
    hub.check_open()
    connection.state.token = token


def provide_token(request: Connection) -> Token:
    """Hand the token that the guard found to the handler."""
    token: Token = request.state.token
    return token
