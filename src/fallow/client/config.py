"""Which hub, and with which token: arguments first, then the environment, then the config file."""

import os
import sys
import tomllib
from pathlib import Path

import msgspec

from fallow.model.errors import BadRequest


class HubAddress(msgspec.Struct, frozen=True):
    """Where a hub is and what to show it."""

    url: str
    secret: str


def config_path() -> Path:
    """Return the path of the user's config file: $FALLOW_CONFIG, or `fallow/config.toml` in the platform's usual folder."""
    if given := os.environ.get("FALLOW_CONFIG"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return base / "fallow" / "config.toml"


def cache_path() -> Path:
    """Return the platform's folder for what programs can make again, for this user."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "fallow" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fallow"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fallow"


def read_config() -> dict[str, str]:
    """Return the config file's settings: hub, token, token_file; {} if there is no file. Raises BadRequest."""
    path = config_path()
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"the config file {path} can't be read: {error}") from error
    for key, value in values.items():
        if key not in {"hub", "token", "token_file"} or not isinstance(value, str):
            raise BadRequest(
                f"the config file {path}: {key} is not one of hub, token, token_file with a text in quotes"
            )
    return values


def read_token_file(path: str | os.PathLike[str]) -> str:
    """Return the token in a file; raises BadRequest if there is none."""
    try:
        secret = Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"the token file {os.fspath(path)} can't be read: {error}") from error
    if not secret:
        raise BadRequest(f"the token file {os.fspath(path)} is empty")
    return secret


def find_hub(
    url: str | None = None, token: str | None = None, token_file: str | os.PathLike[str] | None = None
) -> HubAddress | None:
    """Return the hub to use, None if none is named anywhere. Raises BadRequest if it has no token."""
    config = read_config() if url is None or (token is None and token_file is None) else {}
    found = url or os.environ.get("FALLOW_HUB") or config.get("hub")
    if not found:
        return None
    if token is None and token_file is not None:
        token = read_token_file(token_file)
    token = token or os.environ.get("FALLOW_TOKEN") or config.get("token")
    if not token and (named := config.get("token_file")):
        token = read_token_file(named)
    if not token:
        raise BadRequest(
            f"no token for the hub {found}: set $FALLOW_TOKEN, pass token=, or put it into {config_path()} "
            "(the hub printed an admin token at its first start; `fallow token create NAME` makes more)"
        )
    return HubAddress(found, token)
