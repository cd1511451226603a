"""Nodes that lack what a job needs: they don't take it, and the job says why."""

import subprocess
import sys
from pathlib import Path

import pytest

from fallow import Environment, Grid
from fallow.node.builders.uv import _interpreter
from fallow.packages.uv import find_uv, uv_environment

from .conftest import PYTHON, load

ROOT = Path(__file__).parents[3]
programs_for_tests = load("programs_for_tests", Path(__file__).parents[2] / "programs.py")
programs, wait_until = programs_for_tests.programs, programs_for_tests.wait_until
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def version(_):

    return f"{sys.version_info.major}.{sys.version_info.minor}"


version.__module__ = "__main__"  # travels by value: nodes have no tests


def test_a_node_without_uv_takes_no_job_with_an_environment(programs, index, tmp_path):
    hub = programs.hub()
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "uv.py").write_text("raise ImportError('no uv here')\n")
    programs.node(hub, name="bare", PYTHONPATH=str(hidden), PATH="/usr/bin:/bin")
    (node,) = hub.get("/nodes")["nodes"]
    assert 'pip install "fallow[envs]"' in node["notes"]["environments"]
    with Grid(hub.url, token=programs_for_tests.ADMIN, progress=False) as grid:
        job = grid.map(version, [1], env=Environment())
        (reason,) = wait_until(lambda: [each for each in job.explain() if "uv" in each], "the reason")
        assert reason == 'needs an environment, and no node has uv to build it: pip install "fallow[envs]" there'
        assert grid.map(version, [1]).result(60) == [PYTHON]  # others go on
        programs.node(hub, name="full")
        assert job.result(60) == [PYTHON]


def test_a_node_of_another_python_takes_only_jobs_with_an_environment(programs, index, tmp_path, monkeypatch):
    other = next((each for each in ("3.12", "3.13", "3.11") if each != PYTHON and _interpreter(each)), None)
    if other is None:
        pytest.skip("there is one Python here only")
    monkeypatch.delenv("UV_DEFAULT_INDEX")  # Fallow's own packages come from where this computer gets packages from
    home = tmp_path / "other"
    python = home / "bin" / "python"
    for command in (["venv", "--python", _interpreter(other), home], ["pip", "install", "--python", python, ROOT]):
        subprocess.run([find_uv(), *command], check=True, capture_output=True, env=uv_environment(), cwd=tmp_path)
    hub = programs.hub()
    program = ("sh", "-c", f'shift; exec {python} "$@"', "sh")
    uv_folder = str(Path(find_uv()).parent)
    programs.node(hub, name="other", within=program, PATH=f"{uv_folder}:/usr/bin:/bin", UV_DEFAULT_INDEX=index.url)
    with Grid(hub.url, token=programs_for_tests.ADMIN, progress=False) as grid:
        job = grid.map(version, [1])
        reasons = wait_until(lambda: [each for each in job.explain() if "Python" in each], "the reason")
        assert reasons == [f"needs Python {PYTHON}; nodes have {other}"]
        assert grid.map(version, [1], env=Environment()).result(120) == [PYTHON]
