"""`fallow nodes` and `fallow token …`."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from fallow.cli.jobs import connect
from fallow.cli.options import HubOption, JsonOption, TokenFileOption, examples
from fallow.cli.output import Column, Row, choose, print_json, remark

token_commands = typer.Typer(
    help="Make, list and revoke tokens. For admins.",
    no_args_is_help=True,
    epilog=examples(
        "fallow token create alice",
        "fallow token create lab-2 --role node > lab-2.token",
        "fallow token revoke 4f1d22aa",
    ),
)


class TokenRole(StrEnum):
    """What a token allows."""

    admin = "admin"
    user = "user"
    node = "node"


def _node_state(row: Row) -> str:
    if not row["connected"]:
        return "away"
    if not row["accepting"]:
        return f"paused: {row['reason']}" if row["reason"] else "paused"
    return "working" if row["tasks"] else "idle"


def _memory(row: Row) -> str:
    from fallow.model.requirements import format_size

    return format_size(row["memory_bytes"])


NODES = [
    Column("Node", lambda row: row["id"][:12], key="id"),
    Column("Name", lambda row: row["name"], key="name"),
    Column("State", _node_state),
    Column("Slots", lambda row: str(row["slots"]), right=True, key="slots"),
    Column("Cores", lambda row: str(row["cores"]), right=True, key="cores"),
    Column("Memory", _memory, right=True, key="memory_bytes"),
    Column("Machine", lambda row: f"{row['os']} {row['arch']}"),
    Column("Tags", lambda row: ",".join(row["tags"])),
    Column("Tasks", lambda row: f"{row['tasks']:,}", right=True, key="tasks"),
    Column("Finished", lambda row: f"{row['finished']:,}", right=True, key="finished"),
    Column("Score", lambda row: f"{row['score']:.2f}", right=True, key="score"),
]
TOKENS = [
    Column("Token", lambda row: row["id"], key="id"),
    Column("Role", lambda row: row["role"], key="role"),
    Column("Name", lambda row: row["name"], key="name"),
    Column(
        "Created",
        lambda row: datetime.fromtimestamp(row["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M"),
        key="created_at",
    ),
]


def nodes(json: JsonOption = False, hub: HubOption = None, token_file: TokenFileOption = None) -> None:
    """List the grid's computers."""
    with connect(hub, token_file) as api:
        found = api.call("GET", "/nodes")["nodes"]
    choose(json).table(found, NODES, "no computer has joined; on each that should: fallow node URL")


@token_commands.command(
    "create", epilog=examples("fallow token create alice", "fallow token create lab-2 --role node > lab-2.token")
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what it is for.")],
    role: Annotated[
        TokenRole,
        typer.Option(
            "--role", metavar="user|node|admin", help="user: own jobs. node: joining as a node. admin: everything."
        ),
    ] = TokenRole.user,
    json: JsonOption = False,
    hub: HubOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Make a token and print it.

    The hub keeps only a hash of it: it can't be shown again.
    """
    with connect(hub, token_file) as api:
        made = api.call("POST", "/tokens", json={"role": role.value, "name": name})
    if json:
        print_json(made)
        return
    remark(f"{role.value} token {made['token']['id']} for {name}; shown only now:")
    print(made["secret"])


@token_commands.command("list", epilog=examples("fallow token list", "fallow token list --json"))
def list_tokens(json: JsonOption = False, hub: HubOption = None, token_file: TokenFileOption = None) -> None:
    """List tokens, without their secrets."""
    with connect(hub, token_file) as api:
        found = api.call("GET", "/tokens")["tokens"]
    choose(json).table(found, TOKENS, "no tokens")


@token_commands.command("revoke", epilog=examples("fallow token revoke 4f1d22aa"))
def revoke(
    tokens: Annotated[list[str], typer.Argument(metavar="TOKEN...", help="Ids, as `fallow token list` shows them.")],
    hub: HubOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """End tokens.

    Nothing is accepted with them any more, and their connections are closed.
    """
    from urllib.parse import quote

    with connect(hub, token_file) as api:
        for token in tokens:
            api.call("DELETE", f"/tokens/{quote(token, safe='')}")
