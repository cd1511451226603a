"""The journal and the blobs after a kill at every write, and after a power cut at every sync.

The files are rebuilt from a recording of the system calls (see conftest.py); some real kills by strace, which ends the
writer as it enters a call, show that the recording is the truth.
"""

import random
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fallow.state.blobs import LocalBlobs
from fallow.state.database import FILE_NAME
from fallow.state.sql import SqlState

pytestmark = [pytest.mark.slow, pytest.mark.service("strace"), pytest.mark.timeout(300)]

GROUPS = str(Path(__file__).with_name("test_crash.py"))
SMALL, MANY = 5, 110
"""Groups whose every write is a boundary; groups until the log was folded into the database and begun anew."""

COMMITS = """
import os, runpy, sys
from fallow.state.sql import SqlState
groups = runpy.run_path(sys.argv[1])
count, folder = int(sys.argv[2]), sys.argv[3]
number = 0
for stop in (count // 2, count):  # opened twice: closing folds the log into the database
    state = SqlState(folder + "/state")
    state.recover()
    if number == 0:
        state.commit([groups["new_job"]()])
        os.write(1, b"acknowledged job")
    while number < stop:
        state.commit(groups["group"](number))
        os.write(1, b"acknowledged %d" % number)
        number += 1
    if stop < count:
        state.close()
"""

BLOBS = """
import os, runpy, sys
from pathlib import Path
from fallow.model.changes import AddInputs
from fallow.model.page import InputPage
from fallow.state.blobs import LocalBlobs
from fallow.state.sql import SqlState
from blake3 import blake3
groups = runpy.run_path(sys.argv[1])
folder = Path(sys.argv[3])
state, blobs = SqlState(folder / "state"), LocalBlobs(folder / "state" / "blobs")
state.recover()
state.commit([groups["new_job"]()])
blobs.incoming.mkdir(parents=True)
for number in range(int(sys.argv[2])):
    data = b"%08d" % number * 5000
    digest = blake3(data).hexdigest()
    if number % 3 == 0:
        blobs.keep_bytes(data)
    elif number % 3 == 1:
        writer = blobs.writer(digest, len(data))
        writer.write(0, data[:25000])
        writer.write(25000, data[25000:])
        writer.finish()
    else:
        (blobs.incoming / digest).write_bytes(data)
        blobs.adopt(blobs.incoming / digest, digest)
    state.commit([AddInputs(InputPage(groups["JOB"], number, number + 1, None, digest))])
    os.write(1, b"acknowledged %d" % number)
"""


@pytest.fixture(scope="module")
def groups():
    return runpy.run_path(GROUPS)


def check_commits(groups, folder, acknowledged):
    """Open what is left; every acknowledged group must be there, and whole."""
    state = SqlState(folder / "state")
    try:
        jobs = state.recover().jobs
        if not jobs:
            assert not acknowledged
            return
        count = groups["check_groups"](state, jobs[0])
        known = sum(each != "job" for each in acknowledged)
        assert known <= count <= known + 1
        state.commit(groups["group"](count))  # and it goes on from there
        assert groups["check_groups"](state, state.recover().jobs[0]) == count + 1
    finally:
        state.close()


def check_blobs(groups, folder, acknowledged):
    """Open what is left; every page that a row names must lie in a whole file."""
    state, blobs = SqlState(folder / "state"), LocalBlobs(folder / "state" / "blobs")
    try:
        jobs = state.recover().jobs
        pages = state.input_pages(groups["JOB"], 0, 1000) if jobs else []
        assert len(acknowledged) <= len(pages) <= len(acknowledged) + 1
        for number, page in enumerate(pages):
            assert blobs.read(page.blob) == b"%08d" % number * 5000
        data = b"%08d" % len(pages) * 5000
        assert blobs.read(blobs.keep_bytes(data)) == data  # over whatever is left of an earlier try
    finally:
        state.close()


def each_state(scratch, recording, boundaries, leave):
    """Yield the files for every boundary in turn, with what had been acknowledged."""
    for at in boundaries:
        target = scratch / "left"
        acknowledged = leave(at, target)
        if target.exists():
            yield at, target, acknowledged
            shutil.rmtree(target)
    assert len(recording.syncs) > 10


@pytest.mark.long
def test_a_kill_at_every_write_leaves_whole_groups(scratch, record, groups):
    recording = record(COMMITS, GROUPS, str(SMALL))
    every = range(len(recording.calls) + 1)
    for at, folder, acknowledged in each_state(scratch, recording, every, recording.after_kill):
        try:
            check_commits(groups, folder, acknowledged)
        except Exception as error:
            raise AssertionError(f"killed before call {at}: {recording.calls[at][:2]}") from error


@pytest.fixture(scope="module")
def many(record):
    recording = record(COMMITS, GROUPS, str(MANY))
    restarts = [
        call for call in recording.calls if call[0] == "write" and call[1][-1] == f"{FILE_NAME}-wal" and not call[3]
    ]
    assert len(restarts) > 2, "the log was never begun anew: more groups are needed"
    return recording


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_every_sync_leaves_whole_groups(scratch, many, groups, seed):
    chance = random.Random(seed)

    def leave(at, target):
        return many.after_power_cut(at, target, chance)

    boundaries = [at for at in many.boundaries(seed, 30) if at % 3 == seed % 3]
    for at, folder, acknowledged in each_state(scratch, many, boundaries, leave):
        try:
            check_commits(groups, folder, acknowledged)
        except Exception as error:
            raise AssertionError(f"power cut before call {at}: {many.calls[at][:2]}, seed {seed}") from error


def test_a_kill_while_the_log_is_folded_into_the_database_leaves_whole_groups(scratch, many, groups):
    for at, folder, acknowledged in each_state(scratch, many, many.boundaries(1, 60)[::4], many.after_kill):
        try:
            check_commits(groups, folder, acknowledged)
        except Exception as error:
            raise AssertionError(f"killed before call {at}: {many.calls[at][:2]}") from error


@pytest.mark.parametrize("seed", range(2))
def test_no_row_outlives_the_blob_that_it_names(scratch, record, groups, seed):
    recording = record(BLOBS, GROUPS, "6")
    chance = random.Random(seed)
    ways = [recording.after_kill, lambda at, target: recording.after_power_cut(at, target, chance)]
    for way in ways:
        for at, folder, acknowledged in each_state(scratch, recording, recording.boundaries(seed, 30), way):
            try:
                check_blobs(groups, folder, acknowledged)
            except Exception as error:
                raise AssertionError(f"before call {at}: {recording.calls[at][:2]}, seed {seed}") from error


@pytest.mark.parametrize(("call", "when"), [
    ("pwrite64", 1), ("pwrite64", 40), ("pwrite64", 90), ("pwrite64", 133), ("fdatasync", 2), ("fdatasync", 7),
    ("fdatasync", 12), ("ftruncate", 1), ("unlink", 1),
])  # fmt: skip
def test_a_real_kill_at_a_write_leaves_whole_groups(scratch, groups, call, when):
    inject = f"inject={call}:signal=SIGKILL:when={when}"
    command = ["strace", "-f", "-qq", "-o", scratch / "trace", "-e", f"trace={call}", "-e", inject]
    done = subprocess.run(
        [*command, sys.executable, "-B", "-c", COMMITS, GROUPS, str(SMALL), scratch], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    check_commits(groups, scratch, done.stdout.decode().split("acknowledged ")[1:])


def test_a_blob_that_was_not_synced_would_be_noticed(scratch, record, groups):
    """The recording is strict enough: without the syncs of blobs, rows do outlive them."""
    unsynced = BLOBS.replace(
        'LocalBlobs(folder / "state" / "blobs")', 'LocalBlobs(folder / "state" / "blobs", durable=False)'
    )
    recording = record(unsynced, GROUPS, "6")
    chance = random.Random(1)
    with pytest.raises((AssertionError, FileNotFoundError, LookupError)):
        for _, folder, acknowledged in each_state(
            scratch, recording, recording.syncs, lambda at, target: recording.after_power_cut(at, target, chance)
        ):
            check_blobs(groups, folder, acknowledged)
