"""A process that is killed while it commits, and a write-ahead log that lost its tail, leave whole groups only."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from fallow.model.changes import AddInputs, AddJob, AddLease, AddLogs, AddResults, LogEntry, SaveSettled
from fallow.model.job import JobSpec, Pages
from fallow.model.lease import Lease
from fallow.model.page import InputPage, ResultPage, StoredPage
from fallow.state.database import FILE_NAME
from fallow.state.sql import SqlState

JOB = f"{1:032x}"

WRITER = """
import sys
from pathlib import Path
from types import ModuleType
source, folder, start = sys.argv[1:]
crash = ModuleType("crash")
exec(compile(Path(source).read_text(), source, "exec"), crash.__dict__)
state = crash.SqlState(folder)
held = state.recover()
number = int(start)
if number == 0:
    state.commit([crash.new_job()])
while True:
    state.commit(crash.group(number))
    print(number, flush=True)
    number += 1
"""


def new_job():
    return AddJob(
        JobSpec(id=JOB, stages=("map",), function="f" * 64, function_name="f", inputs=Pages(), created_at=0.0)
    )


def group(number):
    """Group `number` adds to five tables; all of it or nothing must be found."""
    start, stop = number * 10, number * 10 + 10
    data = bytes([number % 256]) * (1 + number * 7919 % 20_000)
    changes = [
        AddInputs(InputPage(JOB, start, stop, data, refs=(f"{number:064x}",))),
        AddResults(JOB, (StoredPage(ResultPage(start, stop, data), (start, stop)),)),
        AddLogs(JOB, (LogEntry(number, "x" * (number % 500)),)),
        AddLease(Lease(number, JOB, start, stop), "node"),
    ]
    if number % 16 == 0:
        changes.append(SaveSettled(JOB, (0, stop), (), ()))
    return changes


def check_groups(state, job):
    """Return how many groups there are; AssertionError unless each of them is whole."""
    count = job.accepted // 10
    assert job.accepted == count * 10
    assert job.settled == ((0, count * 10) if count else ())
    pages = state.input_pages(JOB, 0, 10**9)
    results, _ = state.result_pages(JOB, [(0, 10**9)], limit_bytes=10**12)
    entries, _ = state.logs(JOB, limit=10**9)
    expected = [group(number) for number in range(count)]
    assert pages == [each[0].page for each in expected]
    assert results == [each[1].pages[0] for each in expected]
    assert entries == [each[2].entries[0] for each in expected]
    assert len(state.blobs_held_by(JOB)) == count + 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_groups_that_were_acknowledged_survive_a_kill(tmp_path, seed):
    chance = random.Random(seed)
    durable = 0
    for _ in range(5):
        kill_after = durable + chance.randrange(1, 80)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, __file__, str(tmp_path), str(durable)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        acknowledged = durable - 1
        killer = None
        for line in writer.stdout:
            acknowledged = int(line)
            if killer is None and acknowledged >= kill_after:
                # After a random moment, so that the kill falls anywhere in a commit.
                killer = threading.Timer(chance.uniform(0, 0.003), os.kill, (writer.pid, signal.SIGKILL))
                killer.start()
        killer.join()
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        state = SqlState(tmp_path)
        recovered = state.recover()
        durable = check_groups(state, recovered.jobs[0])
        assert [lease.id for lease, _ in recovered.leases] == list(range(durable))
        state.close()
        assert acknowledged + 1 <= durable <= acknowledged + 2, f"seed {seed}"


def crashed_copy(folder, target):
    """Copy the database and its log as a power cut would leave them; the index of the log is not durable."""
    target.mkdir()
    for name in (FILE_NAME, FILE_NAME + "-wal"):
        shutil.copy(folder / name, target / name)
    return target / (FILE_NAME + "-wal")


@pytest.fixture
def journal(tmp_path):
    """A folder whose log holds 40 groups that are not in the database's file yet, and the log's size after each."""
    folder = tmp_path / "live"
    state = SqlState(folder)
    state.recover()
    state.commit([new_job()])
    sizes = []
    for number in range(40):
        state.commit(group(number))
        sizes.append((folder / (FILE_NAME + "-wal")).stat().st_size)
    yield folder, sizes
    state.close()


def recovered_groups(folder):
    state = SqlState(folder)
    try:
        jobs = state.recover().jobs
        count = check_groups(state, jobs[0])
        for number in range(count, count + 3):  # and it goes on from there
            state.commit(group(number))
        assert state.recover().jobs[0].accepted == (count + 3) * 10
        return count
    finally:
        state.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_log_cut_anywhere_recovers_to_whole_groups(tmp_path, journal, seed):
    folder, sizes = journal
    chance = random.Random(seed)
    for attempt in range(20):
        log = crashed_copy(folder, tmp_path / f"cut {attempt}")
        length = chance.randrange(sizes[0], sizes[-1] + 1)
        os.truncate(log, length)
        whole = sum(size <= length for size in sizes)
        assert recovered_groups(log.parent) == whole, f"seed {seed}, cut at {length}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_log_with_garbage_recovers_to_the_groups_before_it(tmp_path, journal, seed):
    folder, sizes = journal
    chance = random.Random(seed)
    for attempt in range(20):
        log = crashed_copy(folder, tmp_path / f"garbage {attempt}")
        at = chance.randrange(sizes[0], sizes[-1])
        with log.open("r+b") as file:
            file.seek(at)
            file.write(chance.randbytes(chance.choice([1, 512, 4096, sizes[-1] - at + 3000])))
        whole = sum(size <= at for size in sizes)
        # A byte may be overwritten by itself, so the group that was hit may be whole by chance.
        assert recovered_groups(log.parent) in {whole, whole + 1}, f"seed {seed}, garbage at {at}"


@pytest.mark.slow
def test_bytes_after_the_end_of_the_log_do_no_harm(tmp_path, journal):
    folder, _ = journal
    log = crashed_copy(folder, tmp_path / "longer")
    with log.open("ab") as file:
        file.write(random.Random(1).randbytes(10_000))
    assert recovered_groups(log.parent) == 40
