"""Builders and agents that are killed, and disks that fill, while an environment is built: with real processes."""

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from fallow import Environment, EnvironmentFailed, Grid
from fallow.node.environments import MARKER

from .conftest import Index, load

programs_for_tests = load("programs_for_tests", Path(__file__).parents[2] / "programs.py")
programs, wait_until = programs_for_tests.programs, programs_for_tests.wait_until
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Gate(Index):
    """Another index of the same packages, for nodes, which holds what it sends until it is opened."""

    def __init__(self, folder):
        super().__init__(folder)
        self.open = threading.Event()
        self.asked = []

    def answer(self, path):
        if path.startswith("/files/"):
            self.asked.append(path)
            assert self.open.wait(120)
        return super().answer(path)


@pytest.fixture
def gate(index):
    made = Gate(index.folder)
    yield made
    made.open.set()
    made.close()


@pytest.fixture
def grid(programs, index, tmp_path):
    hub = programs.hub()
    with Grid(hub.url, token=programs_for_tests.ADMIN, progress=False) as opened:
        opened.hub_for_tests = hub
        yield opened


def version_of(module):
    import importlib

    return importlib.import_module(module).VERSION


version_of.__module__ = "__main__"  # travels by value: nodes have no tests


def environments(programs, name="node-1"):
    """Return the names of a node's environments: of whole ones, and of all else but what was downloaded."""
    found = [path for path in (programs.folder / name / "environments").iterdir() if path.name != "packages"]
    whole = [path.name for path in found if (path / MARKER).exists()]
    return whole, [path.name for path in found if path.name not in whole]


def builders_of(program):
    """Return the processes of uv that install."""
    found = []
    for child in psutil.Process(program.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # uv has others too, which end just now
            if {"pip", "install"} <= {*child.cmdline()}:
                found.append(child)
    return found


def test_ten_jobs_at_once_are_one_build(programs, grid, index, gate):
    index.add("apple", "1.5")
    apple = Environment(["apple"])
    node = programs.node(grid.hub_for_tests, UV_DEFAULT_INDEX=gate.url)
    jobs = [grid.map(version_of, ["apple"] * 3, env=apple) for _ in range(10)]
    wait_until(lambda: gate.asked, "the build to begin")
    wait_until(lambda: all(job.progress.leased or job.explain() for job in jobs), "all jobs to wait for it")
    gate.open.set()
    assert [job.result(60) for job in jobs] == [["1.5"] * 3] * 10
    assert node.said().count("environment built") == 1
    assert gate.fetched().count("apple-1.5-py3-none-any.whl") == 1
    assert environments(programs)[0]


def test_a_killed_builder_is_replaced(programs, grid, index, gate):
    index.add("apple", "1.5")
    apple = Environment(["apple"])
    node = programs.node(grid.hub_for_tests, UV_DEFAULT_INDEX=gate.url)
    job = grid.map(version_of, ["apple"], env=apple)
    wait_until(lambda: gate.asked, "the build to begin")
    (builder,) = builders_of(node)
    builder.kill()
    wait_until(lambda: len(gate.asked) > 1, "another build")
    gate.open.set()
    assert job.result(60) == ["1.5"]
    whole, half = environments(programs)
    assert (len(whole), half) == (1, [])


def test_a_killed_agent_leaves_nothing_that_is_used(programs, grid, index, gate):
    index.add("apple", "1.5")
    apple = Environment(["apple"])
    node = programs.node(grid.hub_for_tests, UV_DEFAULT_INDEX=gate.url)
    job = grid.map(version_of, ["apple"], env=apple)
    wait_until(lambda: gate.asked, "the build to begin")
    (builder,) = builders_of(node)
    node.process.kill()
    node.wait()
    whole, half = environments(programs)
    assert (whole, len(half)) == ([], 1)
    again = programs.node(grid.hub_for_tests, UV_DEFAULT_INDEX=gate.url)
    wait_until(lambda: len(gate.asked) > 1, "the build to begin again")
    gate.open.set()  # for the builder that was left, too
    assert job.result(60) == ["1.5"]
    wait_until(lambda: not builder.is_running(), "the builder that was left to end")
    assert again.said().count("environment built") == 1
    wait_until(lambda: len(environments(programs)[0]) == 1 and half[0] not in environments(programs)[1], "the clean-up")


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 24 MB; only root can mount one."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can mount a small filesystem")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "fallow-test", path]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no filesystem can be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_disk_that_fills_fails_the_build_and_has_its_room_again(programs, grid, index, small_disk):
    index.add("melon", "1.0", {"melon.py": "VERSION = '1.0'\n", "melon.bin": os.urandom(30 << 20).hex()[: 30 << 20]})
    index.add("apple", "1.5")
    place = small_disk / "node"
    node = programs.node(grid.hub_for_tests, "--state", place, "--reserve", "4MB")
    with pytest.raises(EnvironmentFailed, match="No space left on device"):
        grid.map(version_of, ["melon"], env=Environment(["melon"])).result(120)
    kept = place / "environments"
    wait_until(lambda: not [each for each in kept.iterdir() if each.name != "packages"], "the half-built one to go")
    assert grid.map(version_of, ["apple"], env=Environment(["apple"])).result(120) == ["1.5"]
    assert len(list(kept.glob(f"env-*/{MARKER}"))) == 1
    node.stop()  # before its disk goes
