"""What differs between operating systems, as far as it shows here."""

import subprocess
import sys

import pytest

from fallow.node import platform

STARTER = """
import subprocess, sys
held = bytearray(400_000_000)
held[::4096] = b"x" * len(held[::4096])
subprocess.run([sys.executable, "-c", "from fallow.node import platform; print(platform.own_peak_memory())"], check=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="others count a process's own memory only")
def test_the_memory_of_who_started_us_is_not_ours():
    """An agent that a large program starts would else take its slots' memory for its own, and not tell of it."""
    done = subprocess.run([sys.executable, "-c", STARTER], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 200_000_000
    assert platform.own_peak_memory() > 0
