"""Results too large for a frame, of an embedded grid: in memory while that has room, else on the disk, and gone with their job."""

import contextlib
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tests.programs import wait_until

from fallow import Grid
from fallow.model.page import INLINE_BYTES
from fallow.node import platform
from fallow.slot.room import has_room

pytestmark = pytest.mark.slow

LARGE = 2 * INLINE_BYTES
COUNT = 6


def make(number):
    return np.full(LARGE // 8, float(number))


def meddled(number):
    """A task that leaves no place in memory for its result."""
    memory_folder = Path("/proc/self/cmdline").read_bytes().split(b"\0")[5].decode()
    assert Path(memory_folder).is_dir(), memory_folder
    for written in range(1, 100):
        Path(memory_folder, f"{os.getpid()}-{written}").mkdir(exist_ok=True)
    return make(number)


def limited(number):
    """A task that can write no large file."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE // 2, resource.RLIM_INFINITY))
    return make(number)


def last_of(array):
    return float(array[-1])


def files_in(folder, size):
    """Return the regular files of at least this size, with what the system says of them."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            found[path] = path.lstat()
    return {path: facts for path, facts in found.items() if stat.S_ISREG(facts.st_mode) and facts.st_size >= size}


def large_files(folder):
    return set(files_in(folder, LARGE))


def arrays_in(folder):
    """Return how many results lie there: fast tasks may share a file, and a file may have two names for a moment."""
    sizes = {facts.st_ino: facts.st_size for facts in files_in(folder, LARGE).values()}
    return sum(sizes.values()) // LARGE


def have_one_name(folder):
    return {facts.st_nlink for facts in files_in(folder, LARGE).values()} == {1}


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The folder that grids make their temporary ones in."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def memory(monkeypatch):
    """A folder in memory that grids of this test alone make theirs in, if there is room for it."""
    folder = platform.memory_folder()
    if folder is None or not has_room(str(folder), 100 * LARGE):
        pytest.skip("no room in memory for files")
    with tempfile.TemporaryDirectory(dir=folder, prefix="fallow-tests-") as own:
        monkeypatch.setattr(platform, "MEMORY_FOLDER", Path(own))
        yield Path(own)


@pytest.fixture
def grid(memory):
    with Grid(slots=2) as opened:
        yield opened


def check(arrays):
    assert [(array[0], array[-1], array.size) for array in arrays] == [(n, n, LARGE // 8) for n in range(COUNT)]


def test_they_lie_in_memory_once_and_go_with_their_job(disk, memory, grid, monkeypatch):
    monkeypatch.setattr("fallow.hub.core.blob_house.CONFIRMED_S", 600.0)  # nobody else waits for them
    job = grid.map(make, range(COUNT))
    arrays = list(job)
    check(arrays)
    assert not large_files(disk)
    assert arrays_in(memory) == COUNT
    wait_until(lambda: have_one_name(memory))  # the node has let go of its own
    arrays[0][:] = -1.0  # who has them may change them
    check(job)  # what the others have is their own
    del job
    wait_until(lambda: not large_files(memory))
    assert arrays[0].sum() == -LARGE // 8
    check([make(0), *arrays[1:]])  # what was mapped stays


def test_lone_large_results_come_from_memory(disk, memory, grid):
    for number in range(COUNT):
        assert grid.submit(make, number).result(60)[-1] == number
    assert not large_files(disk)


def test_they_go_to_the_disk_where_memory_takes_none(disk, memory, grid):
    job = grid.map(meddled, range(COUNT))
    check(job)
    assert arrays_in(disk) == COUNT
    assert not large_files(memory)
    del job
    wait_until(lambda: not large_files(disk))


def test_half_written_files_are_removed(disk, memory, grid):
    with pytest.raises(OSError, match="can't be stored on its node"):
        grid.submit(limited, 1).result(60)
    assert not files_in(disk, LARGE // 2)
    assert not files_in(memory, LARGE // 2)


@pytest.mark.parametrize("level", ["confined", pytest.param("bubblewrap", marks=pytest.mark.service("bubblewrap"))])
def test_sandboxed_tasks_write_to_the_disk_and_read_what_lies_in_memory(disk, memory, grid, level):
    first = grid.map(make, range(COUNT))
    check(first)
    in_memory = large_files(memory)
    assert list(first.map(last_of, sandbox=level)) == list(range(COUNT))
    check(job := grid.map(make, range(COUNT), sandbox=level))
    assert large_files(memory) <= in_memory
    assert large_files(disk)
    del job


def test_futures_keep_theirs_for_as_long_as_nobody_has_asked(disk, memory, grid, monkeypatch):
    monkeypatch.setattr("fallow.client.stream.IDLE_S", 0.05)
    futures = [grid.submit(make, number) for number in range(COUNT)]
    ((_, stream),) = grid._streams._streams.values()
    wait_until(lambda: all(future.done() for future in futures))
    wait_until(lambda: stream._feed is not None and stream._feed.sealed is not None)
    grid.jobs()  # the hub has heard all that was said before
    assert large_files(memory)
    check([future.result() for future in futures])
    wait_until(lambda: not large_files(memory))


@pytest.mark.parametrize("in_memory", [True, False])
def test_futures_keep_theirs_when_the_grid_is_closed(disk, memory, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(platform, "MEMORY_FOLDER", memory / "none")
    with Grid(slots=2) as grid:
        futures = [grid.submit(make, number) for number in range(COUNT)]
        wait_until(lambda: all(future.done() for future in futures))
        assert large_files(memory if in_memory else disk)
    assert not large_files(memory)
    assert not large_files(disk)
    check([future.result() for future in futures])


def test_there_may_be_more_of_them_than_files_can_be_open():
    """A mapping holds a descriptor, of which a program often has 1,024."""
    count = 100
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({count}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
import numpy
from fallow import Grid
with Grid(slots=1) as grid:
    arrays = list(grid.map(lambda n: numpy.full({LARGE // 8}, float(n)), range({count})))
    for array in arrays:
        array[0] += 0.5
    assert [(array[0], array[-1]) for array in arrays] == [(n + 0.5, n) for n in range({count})]
    print(len(arrays))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == f"{count}\n", done.stderr


def test_results_of_a_job_that_is_gone_leave_nothing(disk, memory, grid):
    for _ in range(5):
        job = grid.map(make, range(1000))
        next(iter(job))
        del job
    assert grid.submit(last_of, [1.0]).result(60) == 1.0
    wait_until(lambda: not large_files(memory) and not large_files(disk))


def test_what_a_killed_grid_held_in_memory_is_freed_by_the_next(memory, disk):
    program = f"""
import os, pathlib, signal
from fallow import Grid
from fallow.node import platform
platform.MEMORY_FOLDER = pathlib.Path({str(memory)!r})
grid = Grid(slots=1)
job = grid.map(bytes, [{LARGE}] * 3)
assert sum(map(len, job)) == {3 * LARGE}
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert killed.stdout == "ready\n", killed.stderr
    assert arrays_in(memory) == 3
    with Grid(slots=1):
        assert not large_files(memory)
