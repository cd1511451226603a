"""Environments built by uv: a virtual environment from whichever interpreter it finds, filled with wheels by their hashes.

Wheels only: to build one from sources would run the package's code outside of any sandbox.
"""

import os
import platform as python_platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from fallow.log import Logger
from fallow.model.environment import EnvironmentLock
from fallow.model.errors import EnvironmentFailed
from fallow.model.ids import Digest
from fallow.node.builder import PACKAGES, run_step
from fallow.node.settings import HubPackages
from fallow.packages.index import PackageIndex, configured_index
from fallow.packages.uv import MISSING, find_uv, uv_environment

CHECK_TIMEOUT_S = 3.0
"""An index that has not answered after this is taken to be out of reach."""
HUB_TIMEOUT_S = 900
"""How long the hub may take until it sends a file: it fetches large ones first."""
TESTS = r"[/\\]tests?[/\\]"
"""Folders that are not compiled: half of what large packages bring, and tasks don't import them."""
HUB_INDEX = "fallow"
"""What uv calls the hub's index; its password is in a variable of this name."""

_log = Logger("fallow.node")


class UvBuilder:
    """Builds with uv, from this computer's package index, or the hub's if that can't be reached."""

    name = "uv"

    def __init__(self, hub: HubPackages | None = None) -> None:
        self._hub = hub
        self._uv = find_uv()

    def obstacle(self) -> str | None:
        return None if self._uv is not None else MISSING

    async def build(self, lock: EnvironmentLock, wheels: Mapping[Digest, Path], folder: Path) -> Path:
        if self._uv is None:
            raise EnvironmentFailed(MISSING)
        base = uv_environment() | {"UV_CACHE_DIR": str(folder.parent / PACKAGES)}
        home = folder / "python"
        asked = _interpreter(lock.python) or lock.python
        await run_step([self._uv, "venv", "--no-project", "--python", asked, str(home)], base, folder)
        python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        requirements = folder / "requirements.txt"
        requirements.write_text(_requirements(lock, _named(lock, wheels, folder / "wheels")))
        command = [self._uv, "pip", "install", "--python", str(python), "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--requirements", str(requirements)]
        await self._install(command, base, lock, folder)
        # With -S, and by the interpreter below: packages may bring .pth files, which are code that runs at its start.
        compiler = [os.path.realpath(python), "-I", "-S", "-m", "compileall", "-q", "-j", "0", "-x", TESTS, str(home)]
        await run_step(compiler, base, folder, may_fail=True)
        return python

    async def _install(self, command: list[str], base: dict[str, str], lock: EnvironmentLock, folder: Path) -> None:
        if not lock.packages:
            await run_step([*command, "--offline"], base, folder)
            return
        own = await _serves(configured_index(), lock.packages[0].name)
        if own or self._hub is None:
            try:
                await run_step(command, base, folder)
            except EnvironmentFailed as error:
                if self._hub is None:
                    raise
                _log.info("the package index of this node has not all that is needed", error=str(error)[-500:])
            else:
                return
        assert self._hub is not None
        try:
            await run_step([*command, "--no-config"], _through(self._hub, base), folder)
        except EnvironmentFailed as error:
            raise EnvironmentFailed(str(error).replace(self._hub.secret, "…")) from None


def _through(hub: HubPackages, base: dict[str, str]) -> dict[str, str]:
    """Return uv's variables for the hub's index. The secret is in the process's environment: not on its command line."""
    kept = {name: value for name, value in base.items() if not name.startswith(("UV_INDEX", "UV_EXTRA_", "UV_FIND_"))}
    return kept | {
        "UV_DEFAULT_INDEX": f"{HUB_INDEX}={hub.url}/api/v1/packages/simple/",
        f"UV_INDEX_{HUB_INDEX.upper()}_USERNAME": "node",
        f"UV_INDEX_{HUB_INDEX.upper()}_PASSWORD": hub.secret,
        "UV_HTTP_TIMEOUT": str(HUB_TIMEOUT_S),
    }


async def _serves(index: PackageIndex, name: str) -> bool:
    """Whether an index can be reached and knows a package; uv's own, and any that can't be looked at, is taken to."""
    import httpx  # 0.1 s

    if not index.urls:
        return True
    for url in index.urls:
        if "://" not in url or url.startswith("file:"):
            return True
        try:
            async with httpx.AsyncClient(timeout=CHECK_TIMEOUT_S, follow_redirects=True) as client:
                answer = await client.head(f"{url.rstrip('/')}/{name.lower()}/")
        except (httpx.HTTPError, OSError, ValueError):  # ValueError: an address that is none
            continue
        if answer.status_code in {200, 401, 403, 405}:  # uv may have credentials that we don't
            return True
    return False


def _requirements(lock: EnvironmentLock, wheels: Mapping[Digest, Path]) -> str:
    lines = []
    for package in lock.packages:
        marker = f" ; {package.marker}" if package.marker else ""
        hashes = " ".join(f"--hash=sha256:{each}" for each in package.sha256)
        lines.append(f"{package.name}=={package.version}{marker} {hashes}\n")
    for wheel in lock.wheels:
        name = wheel.filename.partition("-")[0]
        lines.append(f"{name} @ {wheels[wheel.blob].as_uri()} --hash=sha256:{wheel.sha256}\n")
    return "".join(lines)


def _named(lock: EnvironmentLock, wheels: Mapping[Digest, Path], folder: Path) -> dict[Digest, Path]:
    """Give the wheels' blobs their proper names, which say what they are for."""
    named = {}
    for wheel in lock.wheels:
        place = folder / wheel.blob / wheel.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(wheels[wheel.blob], place)
        named[wheel.blob] = place
    return named


def _interpreter(minor: str) -> str | None:
    """Return an interpreter of a minor version that uv would not find, or later than we do; None: uv shall look."""
    if (
        minor == f"{sys.version_info.major}.{sys.version_info.minor}"
        and python_platform.python_implementation() == "CPython"
    ):
        return str(Path(sys.executable))
    root = os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")  # noqa: PTH111, PTH118
    # pyenv's shims are on the PATH, but fail for every version that is not chosen: uv gives up at the first of them.
    found = [path for path in Path(root, "versions").glob(f"{minor}.*/bin/python") if path.exists()]
    return str(max(found, key=_patch)) if found else None


def _patch(path: Path) -> list[int]:
    return [int(part) for part in path.parent.parent.name.split(".") if part.isdigit()]
