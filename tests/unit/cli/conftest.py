import os
import subprocess
import sys

import pytest


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """No test sees the developer's own hub, token or config file."""
    for name in [name for name in os.environ if name.startswith("FALLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def fallow(tmp_path):
    """Run the command; return its exit code, stdout and stderr."""

    def run(*arguments, stdin="", **environment):
        found = subprocess.run(
            [sys.executable, "-m", "fallow", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, **environment},
        )
        return found.returncode, found.stdout, found.stderr

    return run
