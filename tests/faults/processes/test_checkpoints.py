"""A long task whose node is killed at 70 % ends on another node, which goes on from the checkpoint that the hub has."""

import io
import json
import os
import signal
import sqlite3
import sys
import tarfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STEPS = 100
KILLED_AT = 70

PROGRAM = """
import json, os, sys, time
gate, ledger = sys.argv[1:]
saved = os.path.join(os.environ["FALLOW_CHECKPOINT"], "state.json")
state = json.load(open(saved)) if os.path.exists(saved) else {"step": 0, "sum": 0}
while state["step"] < 100:
    while state["step"] == 70 and not os.path.exists(gate):
        time.sleep(0.01)
    with open(ledger, "a") as file:
        file.write(f"{state['step']} {os.getpid()}\\n")
    state = {"step": state["step"] + 1, "sum": state["sum"] + state["step"]}
    with open(saved + ".tmp", "w") as file:
        json.dump(state, file)
    os.replace(saved + ".tmp", saved)
    with open(os.environ["FALLOW_PROGRESS"], "w") as file:
        file.write(f"{state['step']} % step {state['step']}")
print(state["sum"])
"""


def simulate(gate, ledger, seed):
    """Make 100 steps; wait at the 70th for the gate. Each step is noted, and what was done so far is kept."""
    import fallow

    saved = fallow.checkpoint() / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "sum": seed}
    while state["step"] < STEPS:
        while state["step"] == KILLED_AT and not os.path.exists(gate):
            time.sleep(0.01)
        with open(ledger, "a") as file:
            file.write(f"{state['step']} {os.getpid()}\n")
        state = {"step": state["step"] + 1, "sum": state["sum"] + state["step"]}
        saved.write_text(json.dumps(state))
        fallow.progress(state["step"] / STEPS, f"step {state['step']}")
    return state["sum"]


def steps(ledger):
    """Return what was executed: (step, process)."""
    return [tuple(map(int, line.split())) for line in Path(ledger).read_text().splitlines()]


def checkpoints(folder):
    """Return the blobs of the checkpoints that a hub has on its disk."""
    with closing(sqlite3.connect(f"file:{folder / 'fallow.sqlite'}?mode=ro", uri=True)) as database:
        found = [digest for (digest,) in database.execute("SELECT digest FROM checkpoints")]
    return [folder / "blobs" / "blobs" / digest[:2] / digest for digest in found]


def saved_step(folder):
    """Return the step that the hub's only checkpoint has reached; None if it has none."""
    try:
        (path,) = checkpoints(folder)
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
            return json.load(archive.extractfile("state.json"))["step"]
    except (ValueError, FileNotFoundError):
        return None  # none yet, or another is just taking its place


def kill_with_its_task(node, ledger):
    """End an agent and its slot as a power failure would."""
    os.kill(node.process.pid, signal.SIGKILL)
    try:
        os.kill(steps(ledger)[-1][1], signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has seen its agent go
    node.wait()


@pytest.fixture
def until_saved(programs, wait_until):
    def until(step=KILLED_AT):
        wait_until(lambda: saved_step(programs.folder / "hub") == step, f"a checkpoint of step {step} at the hub")

    return until


def check_end(programs, wait_until, ledger):
    done = steps(ledger)
    assert [step for step, _ in done] == [*range(STEPS)]  # not one step was made twice
    first, second = {pid for step, pid in done if step < KILLED_AT}, {pid for step, pid in done if step >= KILLED_AT}
    assert len(first) == len(second) == 1
    assert first != second
    wait_until(lambda: not checkpoints(programs.folder / "hub"), "the checkpoint to go with its task")


def test_a_function_that_was_killed_at_70_percent_goes_on_elsewhere(
    programs, grid_of, wait_until, until_saved, tmp_path
):
    hub = programs.hub()
    one = programs.node(hub, "--slots", "1", name="one")
    gate, ledger = tmp_path / "gate", tmp_path / "ledger"
    job = grid_of(hub.url).map(partial(simulate, str(gate), str(ledger)), [7], name="long", checkpoint_s=0.1)
    until_saved()
    (running,) = wait_until(lambda: [each for each in job.running() if each.message == "step 70"])
    assert (running.index, running.node, running.fraction) == (0, "one", 0.7)
    kill_with_its_task(one, ledger)
    (blob,) = checkpoints(programs.folder / "hub")
    programs.node(hub, "--slots", "1", name="two")
    gate.touch()
    assert job.result(60) == [7 + sum(range(STEPS))]
    check_end(programs, wait_until, ledger)
    wait_until(lambda: not blob.exists(), "its blob to be swept")


def test_the_checkpoint_outlives_a_killed_hub(programs, grid_of, wait_until, until_saved, tmp_path):
    hub = programs.hub()
    one = programs.node(hub, "--slots", "1", name="one")
    gate, ledger = tmp_path / "gate", tmp_path / "ledger"
    job = grid_of(hub.url).map(partial(simulate, str(gate), str(ledger)), [0], name="long", checkpoint_s=0.1)
    until_saved()
    hub.stop(signal.SIGKILL)
    kill_with_its_task(one, ledger)
    hub.http.close()
    hub = programs.hub("--port", hub.url.rsplit(":", 1)[1])
    programs.node(hub, "--slots", "1", name="two")
    gate.touch()
    assert job.result(60) == [sum(range(STEPS))]
    check_end(programs, wait_until, ledger)


def test_a_program_that_was_killed_at_70_percent_goes_on_elsewhere(
    programs, grid_of, wait_until, until_saved, tmp_path
):
    hub = programs.hub()
    one = programs.node(hub, "--slots", "1", name="one")
    gate, ledger, script = tmp_path / "gate", tmp_path / "ledger", tmp_path / "simulate.py"
    script.write_text(PROGRAM)
    job = grid_of(hub.url).run(
        [sys.executable, "simulate.py", str(gate), str(ledger)], inputs=[script], name="long", checkpoint_s=0.1
    )
    until_saved()
    (running,) = wait_until(lambda: [each for each in job.running() if each.message == "step 70"])
    assert running.fraction == 0.7
    kill_with_its_task(one, ledger)
    programs.node(hub, "--slots", "1", name="two")
    gate.touch()
    (done,) = job.result(60)
    assert done.stdout.strip() == str(sum(range(STEPS)))
    check_end(programs, wait_until, ledger)


def fail_the_first_time(ledger, seed):
    import fallow

    saved = fallow.checkpoint() / "tried"
    with open(ledger, "a") as file:
        file.write(f"{int(saved.exists())} {os.getpid()}\n")
    if not saved.exists():
        saved.touch()
        fallow.save_checkpoint()
        os.kill(os.getpid(), signal.SIGKILL)
    return seed


def test_a_retry_on_the_same_node_begins_with_the_checkpoint_too(programs, grid_of, tmp_path):
    hub = programs.hub()
    programs.node(hub, "--slots", "1", name="one")
    ledger = tmp_path / "ledger"
    job = grid_of(hub.url).map(partial(fail_the_first_time, str(ledger)), [3, 4], name="twice")
    assert job.result(60) == [3, 4]
    assert sorted(begun for begun, _ in steps(ledger)) == [0, 0, 1, 1]
