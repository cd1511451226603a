"""From names of packages to a lock, for those who submit without a client: exact versions and hashes, worked out by uv on the hub.

Only names, versions, extras and markers are taken, and only wheels: no address, path or option of the caller's reaches uv, and nothing
is built.
"""

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fallow.model.environment import EnvironmentLock, check_lock
from fallow.model.errors import BadRequest
from fallow.packages.compiling import locked_lines, locked_package, prepare, run_uv
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
    with tempfile.TemporaryDirectory(prefix="fallow-lock-") as name:
        command = prepare(uv, Path(name), python, [each.strip() for each in packages])
        code, text, problem = await run_uv(command, Path(name), uv_environment(), TIMEOUT_S)
    if code:
        raise BadRequest(f"env: it can't be resolved:\n{problem.replace(f'{name}/', '')[-ERROR_CHARS:]}")
    lock = EnvironmentLock(python=python, packages=tuple(locked_package(*line) for line in locked_lines(text)))
    check_lock(lock)
    return lock
