"""Real programs (tests/programs.py), a ledger of what was executed, cables that can be cut, and a small disk."""

import asyncio
import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from fallow import Grid
from fallow.hub.web.results import BytesList
from fallow.model.ranges import RangeSet


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


programs_for_tests = _load("programs_for_tests", Path(__file__).parents[2] / "programs.py")
programs = programs_for_tests.programs
Cable = _load("cable_for_tests", Path(__file__).parents[1] / "chaos" / "cable.py").Cable
Meddler = _load("meddler_for_tests", Path(__file__).with_name("meddler.py")).Meddler


@pytest.fixture
def wait_until():
    return programs_for_tests.wait_until


class Executions:
    """A file to which tasks append one line each: (index, time)."""

    def __init__(self, path):
        self.path = str(path)

    def read(self):
        lines = Path(self.path).read_text().splitlines() if Path(self.path).exists() else []
        return [(int(index), float(at)) for index, at in map(str.split, lines)]

    def counts(self):
        return Counter(index for index, _ in self.read())

    def since(self, at):
        return {index for index, begun in self.read() if begun > at}


@pytest.fixture
def executions(tmp_path):
    return Executions(tmp_path / "executions")


@pytest.fixture
def start_node(programs):
    """Start a node at an address, which may be a cable's; does not wait for it to join."""

    def start(url, name="one", slots=1):
        options = ["--slots", slots, "--name", name, "--state", programs.folder / name, "--sandbox", "process"]
        return programs.start("node", url, *options, name=name, FALLOW_TOKEN=programs_for_tests.JOIN)

    return start


@pytest.fixture
def acknowledged():
    """Return the indices of a job whose results are durable: the results of REST wait for the journal."""

    def ask(hub, name):
        found, after = RangeSet(), 0
        while after is not None:
            url = f"/api/v1/jobs/{name}/results?start={after}"
            answer = hub.http.get(url, headers={"Accept": "application/msgpack"})
            assert answer.status_code == 200, answer.text
            body = msgspec.msgpack.decode(answer.content, type=BytesList)
            for page in body.pages:
                for start, stop in zip(page.counts[::2], page.counts[1::2], strict=True):
                    found.add(start, stop)
            after = body.next
        return {index for start, stop in found.ranges() for index in range(start, stop)}

    return ask


@pytest.fixture
def grid_of(monkeypatch, tmp_path):
    """Open a client's handle on a hub; closed at the end."""
    for name in ("FALLOW_HUB", "FALLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "no-config.toml"))
    with contextlib.ExitStack() as stack:
        yield lambda url: stack.enter_context(Grid(url, token=programs_for_tests.ADMIN))


class CableHandle:
    """A cable of the thread's loop, for tests that are not asynchronous."""

    def __init__(self, loop, cable):
        self._loop, self._cable = loop, cable
        self.url = f"http://127.0.0.1:{cable.port}"

    def fail(self, how, duration_s, direction=None):
        """Be broken for a while; returns at once."""
        return asyncio.run_coroutine_threadsafe(self._cable.fail(how, duration_s, direction), self._loop)

    def mend(self):
        self._loop.call_soon_threadsafe(self._cable.mend)

    @property
    def counts(self):
        return self._cable.counts


@pytest.fixture
def cable_to():
    """Lay a cable to a hub's address, in a thread of its own; with chances (by kind of fault), one that meddles."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    cables = []

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    def lay(url, seed=0, **chances):
        port = int(url.rsplit(":", 1)[1])
        cable = Meddler(port, seed, chances) if chances else Cable(port)
        cables.append(cable)
        run(cable.open())
        return CableHandle(loop, cable)

    yield lay
    for cable in cables:
        run(cable.close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class SmallDisk:
    """A filesystem of a few megabytes, and a file that fills it."""

    def __init__(self, path):
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave_bytes):
        """Take room until so much is left, and whatever else becomes free."""
        with self._ballast.open("ab") as file:
            disk = os.statvfs(self.path)
            excess = disk.f_bavail * disk.f_frsize - leave_bytes
            if excess > 0:
                with contextlib.suppress(OSError):  # others take room too
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), excess)

    def clear(self):
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 32 MB; only root can mount one."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can mount a small filesystem")
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "fallow-test", path], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no filesystem can be mounted here: {done.stderr.decode().strip()}")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def steady():
    """Return whether a number has not changed for a while; to be asked until it is so."""
    seen = {}

    def ask(number, for_s):
        now = time.monotonic()
        if seen.get("number") != number:
            seen.update(number=number, since=now)
        return now - seen["since"] >= for_s

    return ask
