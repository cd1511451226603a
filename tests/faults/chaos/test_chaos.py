"""A minute of every kind of fault at once, on real processes; `make chaos` runs it for longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 60
KINDS = [
    "hub killed", "agent killed", "slot killed", "client killed", "agent stopped", "node and slots stopped",
    "hub stopped", "link cut",
]  # fmt: skip
KINDS_OF_ROOT = ["disk below reserve", "disk full"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(420)
@pytest.mark.skipif(os.name != "posix", reason="stops processes by signals")
def test_nothing_is_lost_while_everything_breaks():
    program = Path(__file__).with_name("chaos.py")
    found = subprocess.run(
        [sys.executable, str(program), "--seconds", str(SECONDS), "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    print(found.stdout)
    assert found.returncode == 0, found.stdout + found.stderr
    for kind in KINDS + (KINDS_OF_ROOT if os.geteuid() == 0 else []):
        assert any(line.endswith(f" {kind}") for line in found.stdout.splitlines()), kind
