"""`fallow version` and `fallow config`."""

from pathlib import Path

from fallow.cli.options import HubOption, JsonOption, TokenFileOption
from fallow.cli.output import Column, choose


def version() -> None:
    """Print the version.

    With those of Python and the platform, which what runs on a grid depends on.
    """
    import platform

    from fallow import __version__

    print(f"fallow {__version__} (Python {platform.python_version()}, {platform.system()} {platform.machine()})")


def config(json: JsonOption = False, hub: HubOption = None, token_file: TokenFileOption = None) -> None:
    """Show which hub and token are in effect.

    And where each comes from, and where the config file is. The config file is TOML: hub = "URL", and token_file = "FILE" or token = "...". The token itself is never shown.
    """
    from fallow.cli.config import config_path, find_connection

    found = find_connection(hub, token_file)
    path: Path = config_path()
    row = {
        "config_file": str(path),
        "exists": path.exists(),
        "hub": found.hub,
        "hub_from": found.hub_from or None,
        "token_from": found.token_from or None,
    }
    choose(json).record(
        row,
        [
            Column("Config file", lambda row: f"{row['config_file']}{'' if row['exists'] else ' (none there)'}"),
            Column("Hub", lambda row: f"{row['hub']} (from {row['hub_from']})" if row["hub"] else "none"),
            Column("Token", lambda row: f"set (from {row['token_from']})" if row["token_from"] else "none"),
        ],
    )
