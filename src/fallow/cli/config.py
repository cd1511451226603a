"""Where the hub's address and the token come from, and default folders.

Options come first, then the environment, then the config file. `fallow.client.config` reads them, so that programs
and commands agree; here are the warnings and the words for people at a terminal.
"""

import errno
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from fallow.client.config import config_path, read_config, read_token_file
from fallow.model.errors import BadRequest, StateError

__all__ = ["Connection", "config_path", "find_connection", "make_folder", "require_hub", "require_token", "state_path"]


@dataclass(frozen=True)
class Connection:
    """How to reach a hub, and what each part came from."""

    hub: str | None
    hub_from: str
    token: str | None
    token_from: str

    def __repr__(self) -> str:
        return f"Connection(hub={self.hub!r}, token={'set' if self.token else None!r})"


def state_path(program: str) -> Path:
    """Return the default state folder of "hub" or "node": in the platform's folder for data of programs."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "fallow" / program


def make_folder(path: Path) -> Path:
    """Make a state folder, for this user only if it is new; raises StateError that names it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StateError(
            f"the state folder {path} can't be used: {error.strerror}; choose another with --state"
        ) from error
    return path


def find_connection(hub: str | None = None, token_file: Path | None = None) -> Connection:
    """Work out address and token; either may be None. hub: from `--hub` or $FALLOW_HUB."""
    config, path = read_config(), config_path()
    hub_from = ""
    if hub:
        hub_from = "$FALLOW_HUB" if hub == os.environ.get("FALLOW_HUB") else "--hub"
    elif named := config.get("hub"):
        hub, hub_from = named, str(path)
    token, token_from = _find_token(config, path, token_file)
    return Connection(hub, hub_from, token, token_from)


def _find_token(config: dict[str, str], path: Path, token_file: Path | None) -> tuple[str | None, str]:
    if token_file is not None:
        return _from_file(token_file), str(token_file)
    if token := os.environ.get("FALLOW_TOKEN", "").strip():
        return token, "$FALLOW_TOKEN"
    if "token" in config:
        _warn_if_open(path)
        return config["token"], str(path)
    if file := config.get("token_file"):
        return _from_file(Path(file).expanduser()), file
    return None, ""


def _from_file(path: Path) -> str:
    token = read_token_file(path)
    if len(token.split()) != 1:
        raise BadRequest(f"{path} is no token file: it must hold one token and nothing else")
    _warn_if_open(path)
    return token


def _warn_if_open(path: Path) -> None:
    if os.name == "posix" and stat.S_ISREG(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) & 0o077:
        print(f"fallow: others can read {path}, which holds a token; `chmod 600 {path}` stops that", file=sys.stderr)


def require_hub(hub: str | None, token_file: Path | None) -> tuple[str, str]:
    """Return address and token; raises BadRequest that says how to give what is missing."""
    found = find_connection(hub, token_file)
    if found.hub is None:
        raise BadRequest(f'which hub? Give --hub URL, set $FALLOW_HUB, or write `hub = "URL"` into {config_path()}')
    return found.hub, require_token(found)


def require_token(found: Connection) -> str:
    """Return the token; raises BadRequest that says how to give one."""
    if found.token is None:
        raise BadRequest(f"no token: set $FALLOW_TOKEN, give --token-file FILE, or write it into {config_path()}")
    return found.token
