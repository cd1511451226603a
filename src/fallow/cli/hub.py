"""`fallow hub`."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fallow.cli.long_running import LongRunning
from fallow.cli.options import VerboseOption


def hub(
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="DIR", help="Folder that holds all that the hub knows.", show_default="per user"
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            envvar="FALLOW_DATABASE",
            metavar="URL",
            help="Database instead of SQLite in the state folder, such as postgresql://host/fallow. One with a password "
            "is better given by the variable: others can read command lines.",
        ),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            "--blobs",
            metavar="URL",
            help="Object store for large inputs and results instead of the state folder: s3://bucket/prefix, also gs:// and "
            "az://. Its credentials and its endpoint come from the environment ($AWS_ACCESS_KEY_ID, $AWS_ENDPOINT_URL, "
            "and so on).",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for every one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Port to listen on; 0 takes a free one.")] = 7070,
    reserve: Annotated[
        str,
        typer.Option(
            "--reserve",
            metavar="SIZE",
            help="Disk space below which new work is refused, so that results of accepted work still fit.",
        ),
    ] = "512MB",
    packages: Annotated[
        str,
        typer.Option(
            "--packages",
            metavar="URL|off",
            help="Package index to serve to nodes that reach none, with a cache.",
            show_default="that of uv or pip here",
        ),
    ] = "",
    packages_cache: Annotated[
        str, typer.Option("--packages-cache", metavar="SIZE", help="Room for packages in the state folder.")
    ] = "10GB",
    verbose: VerboseOption = False,
) -> NoReturn:
    """Run a hub.

    It accepts jobs, keeps them safe and leases their work to nodes. The first start makes an admin token and a join token and prints each once; $FALLOW_ADMIN_TOKEN and
    $FALLOW_JOIN_TOKEN give them instead, for scripts. SIGTERM or Ctrl-C drains it; its state stays.
    """
    raise LongRunning(
        "hub",
        {
            "state": state,
            "database": database,
            "blobs": blobs,
            "host": host,
            "port": port,
            "reserve": reserve,
            "packages": packages,
            "packages_cache": packages_cache,
            "verbose": verbose,
        },
    )
