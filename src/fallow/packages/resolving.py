"""From names of packages to a lock, for those who submit without a client: exact versions and hashes, worked out by uv on the hub.

Only names, versions, extras and markers are taken, and only wheels: no address, path or option of the caller's reaches uv, and nothing
is built.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fallow.model.environment import EnvironmentLock, LockedPackage, check_lock
from fallow.model.errors import BadRequest
from fallow.packages.uv import MISSING, find_uv, uv_environment

TIMEOUT_S = 120.0
"""Somebody waits for an answer."""
MAX_REQUIREMENTS = 500
ERROR_CHARS = 4_000
OLDEST_PYTHON = 11

_PYTHON = re.compile(r"3\.\d{1,3}")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\s*(\[[\w.,\s-]{0,200}\])?\s*([<>=!~][\w.*+!<>=~,\s-]{0,200})?"
    r"(;[\w.,'\"<>=!~()+* -]{1,500})?",
    re.ASCII,
)
_LOCKED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;\s*(.*))?")


async def resolve(packages: Sequence[str], python: str | None) -> EnvironmentLock:
    """Lock packages of an index for a minor version of Python, default this one's. Raises BadRequest that names the fault."""
    python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    if not _PYTHON.fullmatch(python) or int(python.removeprefix("3.")) < OLDEST_PYTHON:
        raise BadRequest(f'env: python={python!r:.80} is not a minor version such as "3.12", from 3.{OLDEST_PYTHON} on')
    if len(packages) > MAX_REQUIREMENTS:
        raise BadRequest(f"env: {len(packages)} packages are over the limit of {MAX_REQUIREMENTS}")
    for each in packages:
        if not _REQUIREMENT.fullmatch(each.strip()):
            raise BadRequest(f'env: packages: {each!r:.80} is not a name with a version, such as "numpy==2.3"')
    uv = find_uv()
    if uv is None:
        raise BadRequest(f"env: {MISSING} on the hub")
    text = await _compile(uv, packages, python)
    lock = EnvironmentLock(python=python, packages=tuple(map(_package, _requirements(text))))
    check_lock(lock)
    return lock


async def _compile(uv: str, packages: Sequence[str], python: str) -> str:
    with tempfile.TemporaryDirectory(prefix="fallow-lock-") as name:
        folder = Path(name)
        (folder / "requirements.in").write_text("".join(f"{each.strip()}\n" for each in packages))
        # for all platforms, but this Python alone: others may need other versions, which then fit nothing
        (folder / "pyproject.toml").write_text(f"[tool.uv]\nenvironments = [\"python_version == '{python}'\"]\n")
        command = [uv, "pip", "compile", "requirements.in", "--quiet", "--universal", "--python", sys.executable]
        command += ["--python-version", python, "--generate-hashes", "--only-binary", ":all:", "--strip-extras"]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=folder, env=uv_environment()
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, problem = await process.communicate()
        except TimeoutError as error:
            raise BadRequest(f"env: it could not be resolved within {TIMEOUT_S:.0f} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = problem.decode("utf-8", "replace").strip().replace(f"{name}/", "")[-ERROR_CHARS:]
            raise BadRequest(f"env: it can't be resolved:\n{said}")
        return output.decode()


def _requirements(text: str) -> list[str]:
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def _package(line: str) -> LockedPackage:
    requirement, *hashes = line.split("--hash=")
    match = _LOCKED.fullmatch(requirement.strip())
    if match is None:
        raise BadRequest(f"env: {requirement.strip()!r:.80} does not come from a package index")
    sha256 = tuple(each.strip().removeprefix("sha256:") for each in hashes)
    return LockedPackage(match[1], match[2], sha256, (match[3] or "").strip())
