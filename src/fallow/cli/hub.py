"""`fallow hub`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fallow.cli.options import VerboseOption

if TYPE_CHECKING:
    from fallow.hub.core.hub import Hub

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


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
) -> None:
    """Run a hub.

    It accepts jobs, keeps them safe and leases their work to nodes. The first start makes an admin token and a join token and prints each once; $FALLOW_ADMIN_TOKEN and
    $FALLOW_JOIN_TOKEN give them instead, for scripts. SIGTERM or Ctrl-C drains it; its state stays.
    """
    import os

    from fallow.cli.config import make_folder, state_path
    from fallow.cli.logs import log_to_stderr
    from fallow.cli.loop import run_loop
    from fallow.cli.needs import hub_extra
    from fallow.model.errors import BadRequest
    from fallow.model.requirements import parse_size

    with hub_extra():
        from fallow.hub.core.opening import open_hub
        from fallow.hub.core.settings import HubSettings
        from fallow.hub.web.package_mirror import package_settings
        from fallow.hub.web.server import serve
        from fallow.hub.web.settings import WebSettings

    secrets = {name: os.environ.get(name, "").strip() or None for name in ("FALLOW_ADMIN_TOKEN", "FALLOW_JOIN_TOKEN")}
    for name, secret in secrets.items():
        if secret is not None and len(secret) < MIN_SECRET_LENGTH:
            raise BadRequest(f"${name} is too short to be safe: it needs {MIN_SECRET_LENGTH} characters or more")
    folder = make_folder(state or state_path("hub"))
    settings = HubSettings(
        folder=folder,
        database=database,
        object_store=blobs,
        admin_secret=secrets["FALLOW_ADMIN_TOKEN"],
        join_secret=secrets["FALLOW_JOIN_TOKEN"],
        reserve_bytes=parse_size(reserve, "--reserve"),
    )
    web = WebSettings(packages=package_settings(packages, parse_size(packages_cache, "--packages-cache"), folder))
    log_to_stderr(verbose=verbose)
    made = open_hub(settings)

    def announce(address: str) -> None:
        _announce(made, address, folder, host)

    raise typer.Exit(run_loop(serve(made, host, port, announce, settings=web)))


MIN_SECRET_LENGTH = 20


def _announce(made: "Hub", address: str, folder: Path, host: str) -> None:
    print(f"Fallow hub at {address}", flush=True)
    print(f"State in {folder}")
    admin, join = made.new_secrets.get("admin"), made.new_secrets.get("node")
    if admin or join:
        print("\nMade for this hub and shown only now; keep them safe:")
        if admin:
            print(f"  admin token  {admin}")
        if join:
            print(f"  join token   {join}")
    print("\nA computer joins with")
    print(f"  FALLOW_TOKEN={join or 'JOIN_TOKEN'} fallow node {address}")
    print("A program connects with")
    print(f"  export FALLOW_HUB={address} FALLOW_TOKEN={admin or 'TOKEN'}")
    print(f"A browser shows it all at {address}")
    if host not in LOOPBACK:
        print("\nOthers on the network can reach this hub. Tokens cross it unencrypted: put a TLS proxy in front of it")
        print("wherever the network is not yours alone.")
    print(flush=True)
