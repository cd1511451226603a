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
from fallow.node.builder import PACKAGES, BuildKilled, run_step
from fallow.packages.reaching import HubPackages, reaches
from fallow.packages.uv import MISSING, find_uv, index_urls, uv_environment

SHOWN = 2_000
"""Characters of the log of one index, where another was asked after it."""
TESTS = r"[/\\]tests?[/\\]"
"""Folders that are not compiled: half of what large packages bring, and tasks don't import them."""
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
        hub, reason = self._hub, ""
        if hub is None or await reaches(await index_urls(), lock.packages[0].name):
            try:
                await run_step(command, base, folder)
            except BuildKilled:
                raise  # nothing is wrong with the index
            except EnvironmentFailed as error:
                if hub is None or await hub.obstacle() is not None:
                    raise
                reason = f"{str(error)[-SHOWN:]}\n\nand from the hub:\n"
                _log.info("the package index of this node has not all that is needed", error=str(error)[-500:])
            else:
                return
        elif (obstacle := await hub.obstacle()) is not None:
            raise EnvironmentFailed(f"this node reaches no package index, and {obstacle}")
        assert hub is not None
        try:
            await run_step(command, hub.variables(base), folder)
        except EnvironmentFailed as error:
            raise EnvironmentFailed(reason + str(error).replace(hub.secret, "…")) from None


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
