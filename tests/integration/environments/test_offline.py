"""Nodes and clients in a network namespace that reaches the hub and nothing else: packages come through the hub's cache.

The hub's own index is the one that this computer is configured for, or that uv takes where nothing is.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fallow import Environment, EnvironmentFailed, Grid

from .conftest import load

pytestmark = [pytest.mark.slow, pytest.mark.service("netns"), pytest.mark.timeout(300)]


programs_for_tests = load("programs_for_tests", Path(__file__).parents[2] / "programs.py")
programs = programs_for_tests.programs
PACKAGE = "six"


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Island:
    """A network namespace with one cable, to this computer; no other network, and no names."""

    def __init__(self):
        number = os.getpid() % 32_000 * 2  # several run at a time
        self.name = f"fallow-{number}"
        self.host, self._address = (f"198.19.{number // 250}.{number % 250 + each}" for each in (1, 2))
        self._cable = f"fallow{number}"
        self.within = ("ip", "netns", "exec", self.name)

    def make(self):
        ip("netns", "add", self.name)
        ip("link", "add", self._cable, "type", "veth", "peer", "name", "uplink", "netns", self.name)
        ip("addr", "add", f"{self.host}/32", "peer", self._address, "dev", self._cable)
        ip("link", "set", self._cable, "up")
        ip("-n", self.name, "addr", "add", f"{self._address}/32", "peer", self.host, "dev", "uplink")
        ip("-n", self.name, "link", "set", "uplink", "up")
        ip("-n", self.name, "link", "set", "lo", "up")

    def remove(self):
        for command in (
            ["link", "del", self._cable],
            ["netns", "del", self.name],
        ):  # a namespace goes later than it says
            subprocess.run(["ip", *command], check=False, capture_output=True)


@pytest.fixture
def island():
    made = Island()
    made.remove()  # of a run that was killed
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture
def hub(programs, island):
    """Start a hub that islanders reach, too."""

    def start(*options):
        port = programs_for_tests.lasting_port()
        home = os.environ["HOME"]  # with its settings of uv and pip
        return programs.hub("--host", island.host, "--port", port, *options, HOME=home)

    return start


def version_of(name):
    import importlib

    return importlib.import_module(name).__version__


version_of.__module__ = "__main__"  # travels by value: this module is not on the island's nodes


def open_grid(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "no-config.toml"))
    return Grid(hub.url, token=programs_for_tests.ADMIN, progress=False)


def test_a_node_that_reaches_the_hub_alone_builds_through_its_cache(hub, programs, island, monkeypatch, tmp_path):
    served = hub()
    programs.node(served, name="islander", within=island.within)
    probe = "import socket; socket.create_connection(('1.1.1.1', 443), 5)"
    tried = subprocess.run([*island.within, sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert "unreachable" in tried.stderr
    with open_grid(served, monkeypatch, tmp_path) as grid:
        (version,) = grid.map(version_of, [PACKAGE], env=Environment([PACKAGE])).result(120)
    kept = [path for path in (tmp_path / "hub" / "packages").glob("??/*") if path.suffix != ".metadata"]
    assert len(kept) == 1  # the wheel that the node got
    assert version[0].isdigit()


def change(wheel):
    """Put a line into its module, as somebody would who wants it to run: it is a whole wheel still."""
    with zipfile.ZipFile(wheel) as archive:
        members = {each: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for each, data in members.items():
            archive.writestr(each, data + b"\nevil = True\n" if each.filename == f"{PACKAGE}.py" else data)


def test_a_wheel_that_was_changed_in_the_cache_is_refused(hub, programs, island, monkeypatch, tmp_path):
    served = hub()
    programs.node(served, name="first", within=island.within)
    with open_grid(served, monkeypatch, tmp_path) as grid:
        env = Environment([PACKAGE])
        grid.map(version_of, [PACKAGE], env=env).result(120)
        (wheel,) = [path for path in (tmp_path / "hub" / "packages").glob("??/*") if path.suffix != ".metadata"]
        change(wheel)
        programs.all[-1].stop()
        programs.node(served, name="second", within=island.within)
        with pytest.raises(EnvironmentFailed, match="Hash mismatch") as caught:
            grid.map(version_of, [PACKAGE], env=env, max_retries=0).result(120)
    assert "second" in str(caught.value)
    assert PACKAGE in str(caught.value)


CLIENT = """
import sys
from fallow import Environment, Grid

def version_of(name):
    import importlib
    return importlib.import_module(name).__version__

with Grid(progress=False) as grid:
    try:
        print(grid.map(version_of, [sys.argv[1]], env=Environment([sys.argv[1]])).result(120))
    except Exception as error:
        print(type(error).__name__, error)
"""


def islander_says(hub, programs, island):
    """Run a client on the island, which has no index and an empty cache of uv's; return what it prints."""
    script = programs.folder / "client.py"
    script.write_text(CLIENT)
    environment = programs.environment(
        FALLOW_HUB=hub.url, FALLOW_TOKEN=programs_for_tests.ADMIN, UV_CACHE_DIR=str(programs.folder / "empty")
    )
    done = subprocess.run(
        [*island.within, sys.executable, script, PACKAGE],
        env=environment, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    assert not done.stderr
    return done.stdout


def test_a_client_that_has_no_index_resolves_through_the_hub(hub, programs, island):
    served = hub()
    programs.node(served, name="islander", within=island.within)
    assert islander_says(served, programs, island).startswith("['1.")


def test_where_the_hub_serves_none_either_the_error_says_what_to_set(hub, programs, island, monkeypatch, tmp_path):
    served = hub("--packages", "off")
    programs.node(served, name="islander", within=island.within)
    said = islander_says(served, programs, island)
    assert said.startswith("BadRequest the environment can't be resolved:")
    assert "this computer reaches no package index, and the hub serves none either" in said
    assert "set UV_DEFAULT_INDEX" in said
    with (
        open_grid(served, monkeypatch, tmp_path) as grid,
        pytest.raises(EnvironmentFailed, match="this node reaches no package index, and the hub serves none either"),
    ):
        grid.map(version_of, [PACKAGE], env=Environment([PACKAGE]), max_retries=0).result(120)
