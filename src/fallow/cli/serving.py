"""Running a hub for `fallow hub`: settings from options, what it says at its start."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fallow.cli.config import make_folder, state_path
from fallow.cli.logs import log_to_stderr
from fallow.cli.loop import run_loop
from fallow.cli.needs import hub_extra
from fallow.model.errors import BadRequest
from fallow.model.requirements import parse_size

if TYPE_CHECKING:
    from fallow.hub.core.hub import Hub

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
MIN_SECRET_LENGTH = 20


def run_hub(
    *,
    state: str | None,
    database: str | None,
    blobs: str | None,
    host: str,
    port: int,
    reserve: str,
    packages: str,
    packages_cache: str,
    verbose: bool,
) -> int:
    """Run a hub until it is stopped; return the exit code. Raises FallowError if it can't go on."""
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
    folder = make_folder(Path(state) if state else state_path("hub"))
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

    return run_loop(serve(made, host, port, announce, settings=web))


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
