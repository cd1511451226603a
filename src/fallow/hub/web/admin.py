"""/api/v1/nodes, /api/v1/tokens and /api/v1/whoami."""

from typing import Annotated

import msgspec
from litestar import Router, delete, get, post
from litestar.params import JSONBody, PathParameter

from fallow.hub.web.given import GivenHub, GivenToken
from fallow.hub.web.views import NewToken, NodeList, TokenList, TokenView, view_node, view_token
from fallow.model.token import Role


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to be made."""

    role: Role
    """"admin": everything. "user": own jobs, reading nodes. "node": joining as a node, nothing else."""
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """Whom or what it is for."""


@get("/nodes", summary="List nodes", tags=["nodes"])
async def list_nodes(hub: GivenHub) -> NodeList:
    """List the computers of the grid."""
    return NodeList([view_node(node) for node in hub.nodes()])


@get("/tokens", summary="List tokens", tags=["tokens"], opt={"role": "admin"})
async def list_tokens(hub: GivenHub) -> TokenList:
    """List the tokens, without their secrets. For admins."""
    return TokenList([view_token(token) for token in hub.tokens()])


@post("/tokens", summary="Make a token", tags=["tokens"], opt={"role": "admin"})
async def create_token(data: JSONBody[TokenRequest], hub: GivenHub) -> NewToken:
    """Make a token. Its secret is in this answer and nowhere else. For admins."""
    token, secret = await hub.create_token(data.role, data.name)
    return NewToken(view_token(token), secret)


@delete("/tokens/{token_id:str}", summary="Revoke a token", tags=["tokens"], opt={"role": "admin"})
async def revoke_token(
    token_id: Annotated[str, PathParameter(description="As lists of tokens show it.")], hub: GivenHub
) -> None:
    """End a token: nothing is accepted with it any more. For admins."""
    await hub.revoke_token(token_id)


@get("/whoami", summary="Show your token", tags=["tokens"])
async def whoami(token: GivenToken) -> TokenView:
    """Show the token that this request came with, without its secret."""
    return view_token(token)


def admin_router() -> Router:
    return Router("/", route_handlers=[list_nodes, list_tokens, create_token, revoke_token, whoami])
