"""200 tasks of 50 ms, and one program killed in mid-run: 200 results, and nothing acknowledged is executed again."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import pytest

pytestmark = pytest.mark.slow

TASKS = 200


def noted_square(path, pause_s, x):
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{x} {time.time()}\n".encode())
    os.close(handle)
    time.sleep(pause_s)
    return x * x


def port_of(hub):
    return hub.url.rsplit(":", 1)[1]


def test_a_killed_hub_keeps_all_results_and_runs_nothing_acknowledged_again(
    programs, grid_of, executions, acknowledged, wait_until
):
    hub = programs.hub()
    for name in ("one", "two"):
        programs.node(hub, "--slots", "1", name=name)
    grid = grid_of(hub.url)
    job = grid.map(partial(noted_square, executions.path, 0.05), range(TASKS), name="through")
    known = wait_until(lambda: len(found := acknowledged(hub, "through")) > 60 and found)
    hub.stop(signal.SIGKILL)
    killed_at = time.time()
    again = programs.hub("--port", port_of(hub))
    assert job.result(60) == [x * x for x in range(TASKS)]
    assert len(acknowledged(again, "through")) == TASKS
    assert not executions.since(killed_at) & known
    counts = executions.counts()
    assert set(counts) == set(range(TASKS))
    assert all(counts[index] == 1 for index in known)


def test_a_hub_that_is_killed_again_and_again_keeps_all_results(
    programs, grid_of, executions, acknowledged, wait_until
):
    hub = programs.hub()
    for name in ("one", "two"):
        programs.node(hub, "--slots", "1", name=name)
    job = grid_of(hub.url).map(partial(noted_square, executions.path, 0.05), range(TASKS), name="through")
    port, ran_again = port_of(hub), set()
    for part in (40, 80, 120):
        known = wait_until(lambda: len(found := acknowledged(hub, "through")) > part and found)
        hub.stop(signal.SIGKILL)
        killed_at = time.time()
        hub.http.close()
        hub = programs.hub("--port", port)
        wait_until(lambda: len(acknowledged(hub, "through")) > len(known))
        ran_again |= executions.since(killed_at) & known
    assert job.result(60) == [x * x for x in range(TASKS)]
    assert not ran_again


def behind_a_gate(path, gate, x):
    result = noted_square(path, 0, x)
    while not os.path.exists(gate):
        time.sleep(0.01)
    return result


def test_tasks_that_run_while_the_hub_is_killed_run_on_and_their_results_are_taken(
    programs, grid_of, executions, wait_until, tmp_path
):
    hub = programs.hub()
    programs.node(hub, "--slots", "2", name="one")
    gate = tmp_path / "gate"
    work = partial(behind_a_gate, executions.path, str(gate))
    job = grid_of(hub.url).map(work, range(2), name="through", speculate=False)
    wait_until(lambda: len(executions.counts()) == 2)
    hub.stop(signal.SIGKILL)
    again = programs.hub("--port", port_of(hub))
    wait_until(lambda: [node["connected"] for node in again.get("/nodes")["nodes"]] == [True])
    gate.touch()
    assert job.result(60) == [0, 1]
    assert executions.counts() == {0: 1, 1: 1}


@pytest.mark.long
@pytest.mark.parametrize("others", [0, 1])
def test_a_killed_node_loses_nothing_and_comes_back(programs, grid_of, executions, acknowledged, wait_until, others):
    hub = programs.hub()
    node = programs.node(hub, "--slots", "1", name="one")
    for number in range(others):
        programs.node(hub, "--slots", "1", name=f"other-{number}")
    job = grid_of(hub.url).map(partial(noted_square, executions.path, 0.05), range(TASKS), name="through")
    known = wait_until(lambda: len(found := acknowledged(hub, "through")) > 60 and found)
    node.stop(signal.SIGKILL)
    killed_at = time.time()
    programs.node(hub, "--slots", "1", name="one")
    assert job.result(60) == [x * x for x in range(TASKS)]
    assert not executions.since(killed_at) & known
    counts = executions.counts()
    assert set(counts) == set(range(TASKS))
    assert all(counts[index] == 1 for index in known)


def test_an_agent_that_starts_again_delivers_what_it_had_finished(
    programs, start_node, grid_of, executions, cable_to, wait_until, steady
):
    hub = programs.hub()
    cable = cable_to(hub.url)
    node = start_node(cable.url)
    job = grid_of(hub.url).map(partial(noted_square, executions.path, 0.01), range(TASKS), name="through")
    wait_until(lambda: len(executions.counts()) > 40)
    mended = cable.fail("refuse", 600)
    wait_until(lambda: steady(len(executions.counts()), 1.0))  # it has run all that it had been given
    done = executions.counts()
    assert len(done) < TASKS
    node.stop(signal.SIGKILL)
    mended.cancel()
    restarted_at = time.time()
    programs.node(hub, "--slots", "1", name="one")
    assert job.result(60) == [x * x for x in range(TASKS)]
    assert not executions.since(restarted_at) & set(done)
    assert set(executions.counts().values()) == {1}


def test_a_named_job_of_a_killed_client_is_found_again(programs, grid_of, executions, wait_until):
    hub = programs.hub()
    programs.node(hub, name="one")
    text = """
        import os, sys, time
        from fallow import Grid
        def work(x):
            time.sleep(0.02)
            return x * x
        grid = Grid(sys.argv[1], token=os.environ["FALLOW_TOKEN"])
        job = grid.map(work, range(200), name="left behind")
        print("made", flush=True)
        job.wait()
    """
    environment = programs.environment(FALLOW_TOKEN="flw_admin-for-tests-0123456789")
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), hub.url], stdout=subprocess.PIPE, env=environment
    ) as client:
        assert client.stdout.readline() == b"made\n"
        client.kill()
    assert grid_of(hub.url).job("left behind").result(60) == [x * x for x in range(200)]
