"""The rule for tests that need a service: skipped where it is missing, failed where FALLOW_REQUIRE_SERVICES=1."""

import os
import shutil
from pathlib import Path

import pytest


def _has_postgresql():
    return shutil.which("initdb") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _has_chromium():
    return shutil.which("chromium") is not None


def _has_strace():
    return shutil.which("strace") is not None


SERVICES = {"postgresql": _has_postgresql, "chromium": _has_chromium, "strace": _has_strace}


def pytest_runtest_setup(item):
    for marker in item.iter_markers("service"):
        (name,) = marker.args
        if not SERVICES[name]():
            if os.environ.get("FALLOW_REQUIRE_SERVICES") == "1":
                pytest.fail(f"{name} is not installed, and FALLOW_REQUIRE_SERVICES=1 requires it", pytrace=False)
            pytest.skip(f"{name} is not installed")
