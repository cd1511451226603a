"""Rules for all tests.

One that needs a service is skipped where it is missing, failed where FALLOW_REQUIRE_SERVICES=1. Long ones begin first.
Properties are judged by what they find, not by how long a busy machine takes for an example.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's `&`: programs that tests start would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _has_postgresql():
    return shutil.which("initdb") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _has_chromium():
    return shutil.which("chromium") is not None


def _has_strace():
    return shutil.which("strace") is not None


def _has_bubblewrap():
    return shutil.which("bwrap") is not None


def _has_dockerd():
    programs = ("dockerd", "ip", "debootstrap")
    return all(map(shutil.which, programs)) and os.geteuid() == 0


def _has_netns():
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"fallow-try-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return done.returncode == 0


SERVICES = {
    "postgresql": _has_postgresql,
    "chromium": _has_chromium,
    "strace": _has_strace,
    "bubblewrap": _has_bubblewrap,
    "dockerd": _has_dockerd,
    "netns": _has_netns,
}


def pytest_collection_modifyitems(config, items):
    """Put the long tests first: with several processes, first in the share of each (pytest-xdist cuts the list evenly)."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    left = len(items)
    items.clear()
    for number in range(workers):
        share = left // (workers - number)
        left -= share
        first = long[number::workers]
        more = max(0, share - len(first))
        items += first + others[:more]
        del others[:more]
    items += others


def pytest_runtest_setup(item):
    for marker in item.iter_markers("service"):
        (name,) = marker.args
        if not SERVICES[name]():
            if os.environ.get("FALLOW_REQUIRE_SERVICES") == "1":
                pytest.fail(f"{name} is not installed, and FALLOW_REQUIRE_SERVICES=1 requires it", pytrace=False)
            pytest.skip(f"{name} is not installed")
