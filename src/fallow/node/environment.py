"""The environment that processes of a node get: its owner's variables without the grid's secrets."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

SECRET = re.compile(r"FALLOW_(.*TOKEN|CONFIG$)", re.IGNORECASE)
"""Variables that hold tokens, or tell where one is. Tasks must never see them, not even in /proc/PID/environ, where a
variable stays that a process merely removes once it runs."""
PUBLIC = re.compile(r"PATH|LANG|LANGUAGE|LC_\w+|TZ|PYTHONHASHSEED|PYTHONUTF8|FALLOW_NODE|\w+_NUM_THREADS")
"""The variables that contained tasks see: the others are their node's owner's."""
PRIVATE_FOLDERS = ("home", "tmp", "shm")
"""What a contained slot has in its folder in place of the owner's home, /tmp and /dev/shm."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def without_secrets(base: Mapping[str, str]) -> dict[str, str]:
    """Return what every process that the agent starts may know."""
    return {name: value for name, value in base.items() if not SECRET.match(name)}


def within(python: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of what runs in a virtual environment: programs of its packages come first on the PATH, and
    nothing of the agent's own environment is seen.
    """
    kept = {name: value for name, value in variables.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    return kept | {"PATH": os.path.dirname(python) + os.pathsep + variables.get("PATH", os.defpath)}  # noqa: PTH120


def of_slot(base: Mapping[str, str], cores: int, node: str = "") -> dict[str, str]:
    """Return a slot's environment: numerical libraries use as many threads as the task has cores. node: its name."""
    return without_secrets(base) | dict.fromkeys(THREAD_VARIABLES, str(cores)) | {"FALLOW_NODE": node}


def of_sandbox(variables: Mapping[str, str], folder: Path, temporary: Path) -> dict[str, str]:
    """Return what of a slot's environment a contained slot gets. folder: the slot's own. temporary: what is its /tmp."""
    kept = {name: value for name, value in variables.items() if PUBLIC.fullmatch(name)}
    return kept | {"HOME": str(folder / "home"), "TMPDIR": str(temporary)}
