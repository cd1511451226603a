"""uv, which resolves packages for clients and installs them for nodes. It is a program, and an extra: it weighs as much as
all the rest.
"""

import os
import re
import shutil
from collections.abc import Mapping

from fallow.packages.index import uv_variables

MISSING = 'environments need uv, which is not installed here: pip install "fallow[envs]"'

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
