"""Tasks that end the process they run in, or the whole agent: who is blamed, what runs again, what the error says."""

import ctypes
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from fallow import TaskCrashed, TaskLostNodes

pytestmark = pytest.mark.slow

TASKS = 40
BLAMED = 13
GOBBLED_BYTES = 300_000_000
MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")


def note(path, x):
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{x} {time.time()}\n".encode())
    os.close(handle)


def fall_of_a_pointer():
    ctypes.string_at(0)


def exit_at_once():
    os._exit(7)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def use_up_memory(group):
    (group / "tasks").write_text(str(os.getpid()))
    held = bytearray()
    while True:
        held += b"x" * 10_000_000


def ends_its_slot(path, end, pause_s, x):
    note(path, x)
    time.sleep(pause_s)
    if x == BLAMED:
        held = bytearray(GOBBLED_BYTES)
        held[::4096] = b"x" * len(held[::4096])
        print("last words of", x, flush=True)
        end()
    return x * x


@pytest.fixture
def memory_limit():
    """A control group whose processes may use 200 MB more than a slot that has gobbled."""
    group = MEMORY_CGROUPS / f"fallow-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("200000000")
    except OSError as error:
        pytest.skip(f"no control group for memory can be made here: {error}")
    yield group
    group.rmdir()


@pytest.mark.parametrize(
    ("end", "word", "exit_code", "signal_name"),
    [
        (fall_of_a_pointer, "SIGSEGV", None, "SIGSEGV"),
        (exit_at_once, "exit code 7", 7, None),
        (kill_itself, "SIGKILL", None, "SIGKILL"),
        ("memory", "SIGKILL", None, "SIGKILL"),
    ],
    ids=["segfault", "exit", "kill", "out of memory"],
)
def test_a_task_that_ends_its_slot_is_tried_elsewhere_and_then_says_all_that_is_known(
    programs, grid_of, executions, request, end, word, exit_code, signal_name
):
    hub = programs.hub()
    for name in ("one", "two"):
        programs.node(hub, "--slots", "1", name=name)
    if end == "memory":
        end = partial(use_up_memory, request.getfixturevalue("memory_limit"))
    work = partial(ends_its_slot, executions.path, end, 0.01)  # longer than a batch: each task is a batch of its own
    job = grid_of(hub.url).map(work, range(TASKS), name="through", max_retries=2, speculate=False)
    found = job.result(60, return_exceptions=True)
    error = found[BLAMED]
    assert isinstance(error, TaskCrashed)
    assert [value for value in found if value is not error] == [x * x for x in range(TASKS) if x != BLAMED]
    assert word in str(error)
    assert "peak memory" in str(error)
    assert "tried 3 times on" in str(error)
    assert "one" in str(error).split("tried 3 times on")[1]
    assert "two" in str(error).split("tried 3 times on")[1]
    assert "last words of 13" in str(error)
    assert executions.counts() == {x: 3 if x == BLAMED else 1 for x in range(TASKS)}
    (failure,) = hub.get("/jobs/through")["failures"]
    shown = failure["error"]
    assert (failure["index"], shown["kind"]) == (BLAMED, "crashed")
    print(shown)


def test_of_a_batch_whose_slot_dies_only_what_had_no_result_yet_runs_again(programs, grid_of, executions):
    """Results wait in the slot for the end of their batch, at most 5 ms of work: these tasks run a second time."""
    hub = programs.hub()
    programs.node(hub, "--slots", "1", name="one")
    work = partial(ends_its_slot, executions.path, exit_at_once, 0.001)
    found = grid_of(hub.url).map(work, range(200), name="through", speculate=False).result(60, return_exceptions=True)
    assert [x for x in range(200) if found[x] != x * x] == [BLAMED]
    counts = executions.counts()
    assert set(counts) == set(range(200))
    assert counts[BLAMED] == 4
    again = sorted(x for x in counts if counts[x] > 1 and x != BLAMED)
    assert again == list(range(BLAMED - len(again), BLAMED)), "the tasks right before it"
    assert len(again) <= 5
    assert max([counts[x] for x in again], default=2) == 2, "only the first death costs them anything"


def ends_its_agent(path, x):
    note(path, x)
    if x == BLAMED:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    time.sleep(0.02)
    return x * x


def test_a_task_that_takes_nodes_down_with_it_is_found_and_stopped(
    programs, start_node, grid_of, executions, wait_until
):
    hub = programs.hub()
    nodes = {name: programs.node(hub, "--slots", "2", name=name) for name in ("one", "two", "three")}
    job = grid_of(hub.url).map(partial(ends_its_agent, executions.path), range(TASKS), name="through", speculate=False)

    def restarted_until_done():
        for name, node in nodes.items():
            if node.process.poll() is not None:
                nodes[name] = start_node(hub.url, name, slots=2)
        return job.progress.ended or None

    wait_until(restarted_until_done)
    found = job.result(60, return_exceptions=True)
    assert isinstance(found[BLAMED], TaskLostNodes)
    assert [x for x in range(TASKS) if found[x] != x * x] == [BLAMED]
    assert executions.counts()[BLAMED] == 4
