"""`fallow node`."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fallow.cli.long_running import LongRunning
from fallow.cli.options import VerboseOption


def node(
    hub: Annotated[
        str | None,
        typer.Argument(envvar="FALLOW_HUB", metavar="HUB", help="The hub's address, such as http://hub.example:7070."),
    ] = None,
    *,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="File that holds the join token. Otherwise: $FALLOW_TOKEN."),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            "--slots", metavar="N", min=1, max=1024, help="Tasks that run at a time.", show_default="one per core lent"
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option("--cores", metavar="N", min=1, max=4096, help="Cores lent to the grid.", show_default="all"),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Memory lent, such as 8GB.", show_default="all"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What lists call it.", show_default="the computer's name"),
    ] = None,
    tags: Annotated[
        str, typer.Option("--tags", metavar="A,B", help="Words that jobs can require, such as lab,gpu.")
    ] = "",
    reserve: Annotated[
        str,
        typer.Option(
            "--reserve",
            metavar="SIZE",
            help="Disk space in the state folder below which the node takes no new work.",
        ),
    ] = "256MiB",
    environments: Annotated[
        str,
        typer.Option(
            "--environments", metavar="SIZE", help="Room for environments: over it, those that no job needs go."
        ),
    ] = "20GB",
    sandbox: Annotated[
        str | None,
        typer.Option(
            "--sandbox",
            metavar="LEVEL",
            help="What tasks run in unless they ask for more: process, confined, bubblewrap or container.",
            show_default="the strongest that works here",
        ),
    ] = None,
    min_sandbox: Annotated[
        str,
        typer.Option(
            "--min-sandbox",
            metavar="LEVEL",
            help="Run no task in anything weaker: process, confined, bubblewrap or container.",
        ),
    ] = "process",
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="Folder for what must survive a restart.", show_default="per user"),
    ] = None,
    verbose: VerboseOption = False,
) -> NoReturn:
    """Lend this computer to a hub.

    Runs the tasks that the hub leases to it until it is stopped. The node dials out only, so it works behind NAT and firewalls, and it reconnects for ever. SIGTERM or Ctrl-C stops
    it with its slots and all that they started; unfinished work goes back to the hub.
    """
    raise LongRunning(
        "node",
        {
            "hub": hub,
            "token_file": token_file,
            "slots": slots,
            "cores": cores,
            "memory": memory,
            "reserve": reserve,
            "environments": environments,
            "name": name,
            "tags": tags,
            "sandbox": sandbox,
            "min_sandbox": min_sandbox,
            "state": state,
            "verbose": verbose,
        },
    )
