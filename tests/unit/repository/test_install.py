"""What an installation weighs, and that it works by itself. Sizes are printed and held to the limits of the design."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIMITS_MB = {"": 60, "[hub]": 180}
"""Installed size by extra, pip itself not counted."""


def installed_bytes(folder):
    """Return what is below a folder, without pip and without compiled files, which appear on use."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not path.relative_to(folder).parts[0].startswith("pip")
    )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_installation_is_small_and_works(tmp_path, capsys):
    """Into an environment of its own, by the pip that runs the tests; what an extra brings is added to what is there."""
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("FALLOW_", "PYTHON"))}
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    for extra, limit_mb in LIMITS_MB.items():
        install = [*pip, "install", "--no-compile", f"{ROOT}{extra}"]
        subprocess.run(install, check=True, env=environment, cwd=tmp_path)
        site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
        size = installed_bytes(site) / 1e6
        with capsys.disabled():
            print(f"\npip install fallow{extra}: {size:.1f} MB (limit: {limit_mb} MB)")
        assert size < limit_mb
        check_that_it_works(tmp_path, python, environment)


def check_that_it_works(folder, python, environment):
    script = "from fallow import Grid\nwith Grid(slots=1) as grid: print(grid.submit(pow, 2, 10).result(timeout=60))"
    commands = [
        [python, "-m", "fallow", "--version"],
        [python.with_name("fallow"), "--help"],
        [python, "-W", "error", "-c", script],
    ]
    for command in commands:
        done = subprocess.run(command, check=False, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "1024\n"


def test_pinned_requirements_name_no_hosts():
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        assert "://" not in text, path
        assert "--index-url" not in text, path
        assert "--find-links" not in text, path
        pins = [line for line in text.splitlines() if "==" in line]
        assert len(pins) > 20
        assert text.count("--hash=sha256:") >= len(pins)


def test_this_is_the_interpreter_that_the_project_asks_for():
    assert sys.version_info >= (3, 11)
