"""`fallow map`: a function over lines of JSON."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fallow.cli.options import HubOption, TokenFileOption


class OnErrors(StrEnum):
    """What to do about a task that fails."""

    keep = "keep"
    stop = "stop"


def map_command(
    function: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="Called with each line's value.")],
    *,
    hub: HubOption = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Use this computer's cores, even if a hub is configured.")
    ] = False,
    token_file: TokenFileOption = None,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Write results as they come, not in the order of the inputs.")
    ] = False,
    errors: Annotated[
        OnErrors,
        typer.Option(
            "--errors",
            metavar="keep|stop",
            help="stop: end at the first task that fails, and name its line. "
            'keep: write {"error": ..., "index": ..., "line": ...} in its place.',
        ),
    ] = OnErrors.stop,
    retries: Annotated[
        int, typer.Option("--retries", metavar="N", min=0, help="Try a task that raised this often again.")
    ] = 0,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Seconds that one task may take.")
    ] = None,
    requires: Annotated[
        list[str] | None,
        typer.Option("--requires", metavar="KEY=VALUE", help="What a task needs, such as memory=4GB; repeatable."),
    ] = None,
    priority: Annotated[int, typer.Option("--priority", metavar="N", help="Higher goes first.")] = 0,
) -> None:
    """Map a function over lines of JSON, stdin to stdout.

    Each line of stdin is one value, and each result becomes a line of stdout. Runs on the hub that is configured, else on this computer's cores. The function is looked for as `python -m` does:
    in the current folder, then among what is installed; modules of your own travel to the nodes.
    """
    from fallow.cli.mapping import Mapping, run_map

    run_map(
        Mapping(
            function=function,
            hub=None if embedded else hub,
            embedded=embedded,
            token_file=Path(token_file) if token_file else None,
            ordered=not unordered,
            keep_errors=errors is OnErrors.keep,
            retries=retries,
            timeout=timeout,
            requires=requires or [],
            priority=priority,
        )
    )
