"""Options that several commands share, written once, and how examples are written."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

ON_A_HUB = "Hub"

HubOption = Annotated[
    str | None,
    typer.Option(
        "--hub",
        envvar="FALLOW_HUB",
        metavar="URL",
        help="The hub's address, such as http://127.0.0.1:7070.",
        rich_help_panel=ON_A_HUB,
    ),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File that holds the token. Otherwise: $FALLOW_TOKEN, or the config file.",
        rich_help_panel=ON_A_HUB,
    ),
]
ToOption = Annotated[
    Path | None,
    typer.Option("--to", metavar="DIR", help="Of a program's job: write what each task put out into DIR/<index>/."),
]


class By(Enum):
    """What tasks' folders are called after."""

    index = "index"
    parameters = "parameters"


ByOption = Annotated[
    By, typer.Option("--by", metavar="index|parameters", help="What the folders in DIR are called after.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id or name.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr.")]


def examples(*lines: str) -> str:
    """Write command lines as the end of a command's help has them."""
    return "\n\n".join(("Examples", *lines))
