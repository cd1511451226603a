"""The environment that processes of a node get: its owner's variables without the grid's secrets."""

import re
from collections.abc import Mapping

SECRET = re.compile(r"FALLOW_.*TOKEN", re.IGNORECASE)
"""Variables that hold tokens, or tell where one is. Tasks must never see them, not even in /proc/PID/environ, where a
variable stays that a process merely removes once it runs."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def without_secrets(base: Mapping[str, str]) -> dict[str, str]:
    """Return what every process that the agent starts may know."""
    return {name: value for name, value in base.items() if not SECRET.match(name)}


def of_slot(base: Mapping[str, str], cores: int, node: str = "") -> dict[str, str]:
    """Return a slot's environment: numerical libraries use as many threads as the task has cores. node: its name."""
    return without_secrets(base) | dict.fromkeys(THREAD_VARIABLES, str(cores)) | {"FALLOW_NODE": node}
