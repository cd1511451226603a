"""Programs and functions in sandboxes, from a client's end: an embedded grid, whose tasks are plain processes unless they ask."""

import os
import sys

import pytest

from fallow import TaskOverLimit, TaskTimeout

pytestmark = pytest.mark.slow

LARGE = 2_000_000

SIMULATION = """
import os, sys, time
state = os.path.join(os.environ["FALLOW_CHECKPOINT"], "state")
if os.path.exists(state):
    print("goes on from", open(state).read())
    sys.exit()
step, end = 0, time.monotonic() + 2
while time.monotonic() < end:  # never at rest, and never half-written under its name
    step += 1
    with open(state + ".tmp", "w") as file:
        file.write(f"step {step}")
    os.replace(state + ".tmp", state)
    time.sleep(0.02)
held = [bytearray(b"x" * 5_000_000) for _ in range(600)]
"""


@pytest.fixture(params=["confined", pytest.param("bubblewrap", marks=pytest.mark.service("bubblewrap"))])
def level(request):
    return request.param


def test_programs_get_large_inputs_and_give_outputs_in_every_sandbox(grid, level, tmp_path):
    content = os.urandom(LARGE)
    (tmp_path / "large.bin").write_bytes(content)
    (tmp_path / "diary").write_text("the owner's")
    script = "cat large.bin large.bin > twice.bin; echo {x} > x.txt; cat " + str(tmp_path / "diary")
    job = grid.run(
        ["sh", "-c", script + "; pwd; true"],
        inputs=[tmp_path / "large.bin"],
        outputs=["twice.bin", "x.txt"],
        params={"x": range(3)},
        sandbox=level,
    )
    for number, result in enumerate(job.result(60)):
        assert result.read("x.txt") == b"%d\n" % number
        assert result.read("twice.bin") == content * 2
        assert "the owner's" not in result.stdout
        assert "diary" in result.stderr


def test_functions_run_in_every_sandbox_with_objects_of_put(grid, level):
    held = grid.put(b"x" * LARGE)
    assert grid.options(sandbox=level).submit(len, held).result(60) == LARGE
    assert grid.map(lambda x: x * 2, [b"y" * LARGE, b"z"], sandbox=level).result(60) == [b"y" * LARGE * 2, b"zz"]


@pytest.mark.service("bubblewrap")
def test_no_network_is_a_matter_of_bubblewrap(grid):
    def interfaces():
        import socket

        return [name for _, name in socket.if_nameindex()]

    assert grid.options(network=False).submit(interfaces).result(60) == ["lo"]


def test_a_task_over_its_memory_fails_at_once_however_often_crashes_are_retried(grid, tmp_path):
    ledger = tmp_path / "ledger"

    def gobble(x):
        with open(ledger, "a") as file:
            file.write("x")
        return len([bytearray(b"x" * 5_000_000) for _ in range(x)])

    job = grid.map(gobble, [4, 600], limits={"memory": "200MB"}, max_retries=3)
    small, large = job.result(60, return_exceptions=True)
    assert small == 4
    assert isinstance(large, TaskOverLimit)
    assert "went over its limit of 200 MB of memory: it had" in str(large)
    assert ledger.read_text() == "xx"


def test_a_program_over_its_memory_fails_too(grid):
    code = "print('about to hold', flush=True); held = [bytearray(b'x' * 5_000_000) for _ in range(600)]; import time; time.sleep(600)"
    job = grid.run([sys.executable, "-c", code], limits={"memory": "200MB"}, max_retries=3)
    (result,) = job.result(60, return_exceptions=True)
    assert isinstance(result, TaskOverLimit)
    assert "200 MB" in str(result)
    assert str(result).endswith(": about to hold")


def test_a_program_over_its_memory_or_time_tells_its_last_words_in_every_sandbox(grid, level):
    code = "print('about to hold', flush=True); held = [bytearray(b'x' * 5_000_000) for _ in range(600)]"
    (error,) = grid.run([sys.executable, "-c", code], limits={"memory": "200MB"}, sandbox=level).result(
        60, return_exceptions=True
    )
    assert isinstance(error, TaskOverLimit)
    assert str(error).endswith(": about to hold")
    for timeout in (1.0, 30.0):  # on a busy computer it may not have come to its words
        job = grid.run("sh -c 'echo about to sleep; sleep 600'", timeout=timeout, sandbox=level)
        (error,) = job.result(90, return_exceptions=True)
        assert isinstance(error, TaskTimeout)
        if str(error).endswith(": about to sleep"):
            return
    pytest.fail(f"it said {error}")


def test_tasks_have_files_of_their_own_in_every_sandbox(grid, level, tmp_path):
    for x in range(3):
        (tmp_path / f"{x}.bin").write_bytes(b"%d" % x * 300_000)
        (tmp_path / f"{x}.txt").write_text(f"small {x}\n")
    job = grid.run(
        "sh -c 'cat {x}.txt; head -c 1 {x}.bin'", inputs=["{x}.txt", "{x}.bin"], params={"x": range(3)}, sandbox=level
    )
    assert [each.stdout for each in job] == [f"small {x}\n{x}" for x in range(3)]


def test_a_task_over_its_memory_goes_on_from_its_checkpoint_in_every_sandbox(grid, level):
    """The state is replaced every 20 ms. On a busy computer it takes more than one attempt until one was sent."""
    job = grid.run(
        [sys.executable, "-c", SIMULATION.replace("{", "{{").replace("}", "}}")],
        sandbox=level,
        limits={"memory": "200MB"},
        checkpoint_s=0.5,
        retries=20,
    )
    (found,) = job.result(60)
    assert found.stdout.startswith("goes on from step ")
