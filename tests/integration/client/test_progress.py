"""A long wait shows how far the job is, also while results keep coming."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import time
from fallow import Grid
from fallow.client import progress
progress.PATIENCE_S = 0.1
with Grid(slots=2, progress=True) as grid:
    assert sum(grid.map(lambda x: time.sleep(0.02) or 1, range(100))) == 100
"""


def test_the_bar_is_shown_while_results_come():
    environment = {**os.environ, "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=environment)
    assert found.returncode == 0, found.stderr
    assert "map(<lambda>)" in found.stderr
    assert "/100" in found.stderr
    assert found.stdout == ""
