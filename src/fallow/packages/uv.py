"""uv, which resolves packages for clients and installs them for nodes. It is a program, and an extra: it weighs as much as
all the rest.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from fallow.packages.index import configured_index, uv_variables

MISSING = 'environments need uv, which is not installed here: pip install "fallow[envs]"'

ASK_TIMEOUT_S = 60.0

_OURS = re.compile(r"FALLOW_|VIRTUAL_ENV|CONDA_|PYTHON(PATH|HOME)$|UV_(PROJECT|PYTHON$|SYSTEM_PYTHON)")
"""Variables that uv must not see: the grid's secrets, and what belongs to the environment that we run in."""


def find_uv() -> str | None:
    """Return the path of uv: that of the `uv` package, else the one on the PATH; None if there is none."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def uv_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that uv runs with: this computer's package index, however that is configured."""
    kept = {name: value for name, value in base.items() if not _OURS.match(name)}
    return kept | uv_variables(base) | {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"}


async def index_urls() -> tuple[str, ...]:
    """Return the addresses of this computer's package index: what is configured, else what uv takes then; () without uv."""
    configured = configured_index()
    return configured.urls if configured.url else await asyncio.to_thread(_ask_uv)


def _ask_uv() -> tuple[str, ...]:
    uv = find_uv()
    if uv is None:
        return ()
    command = [uv, "pip", "compile", "-", "--quiet", "--offline", "--no-header", "--emit-index-url"]
    try:
        done = subprocess.run(
            command, input="", capture_output=True, text=True, env=uv_environment(), timeout=ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(re.findall(r"^--(?:extra-)?index-url (\S+)", done.stdout, re.MULTILINE))
