"""A hub, nodes and clients as separate processes: work, losses, restarts, refusals."""

import contextlib
import operator
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from fallow import Denied, Grid, JobNotFound

pytestmark = pytest.mark.slow


def square(x):
    return x * x


def slow_square(x):
    time.sleep(0.02)
    return x * x


def test_a_grid_of_processes_computes(real_grid):
    real_grid.start_hub()
    real_grid.start_node("one", 1)
    real_grid.start_node("two", 1)
    grid = real_grid.client()
    assert list(grid.map(square, range(50_000))) == [x * x for x in range(50_000)]
    assert grid.submit(pow, 2, 10).result(60) == 1024
    assert grid.reduce(operator.add, grid.map(square, range(1000))) == sum(x * x for x in range(1000))
    futures = [grid.submit(square, i) for i in range(2000)]
    assert [future.result(60) for future in futures] == [i * i for i in range(2000)]
    ref = grid.put(bytes(5_000_000))
    assert list(grid.map(lambda x, data: len(data) + x, [1, 2, 3], [ref] * 3)) == [5_000_001, 5_000_002, 5_000_003]
    large = grid.map(lambda n: bytes(n), [3_000_000, 10, 2_000_000])
    assert [len(each) for each in large] == [3_000_000, 10, 2_000_000]
    assert {node.info.name for node in grid.nodes()} == {"one", "two"}


def test_named_jobs_are_found_from_another_process(real_grid):
    real_grid.start_hub()
    real_grid.start_node()
    text = """
        import sys
        from fallow import Grid
        grid = Grid(sys.argv[1], token=sys.argv[2])
        grid.map(abs, range(-5, 0), name="left behind")
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), real_grid.url, "flw_admin_secret_for_tests_only"],
        check=True,
        timeout=120,
    )
    grid = real_grid.client()
    assert grid.job("left behind").result(60) == [5, 4, 3, 2, 1]
    with pytest.raises(JobNotFound):
        grid.job("never made")


def test_leaving_ends_unnamed_jobs_at_once(real_grid, until):
    real_grid.start_hub()
    real_grid.start_node()
    client = real_grid.client()
    job = client.map(time.sleep, [600] * 3)
    job._demand()
    kept = client.map(square, range(3), name="kept")

    def jobs():
        return {each["id"] for each in real_grid.api("jobs").json()["jobs"]}

    until(lambda: job.id in jobs(), jobs)
    client.close()
    until(lambda: jobs() == {kept.id}, jobs)  # waits for less than the 60 s that a session which is lost has


def test_a_killed_hub_loses_nothing_and_everybody_comes_back(real_grid, until):
    real_grid.start_hub()
    real_grid.start_node("one", 1)
    real_grid.start_node("two", 1)
    grid = real_grid.client()
    job = grid.map(slow_square, range(300), name="through a crash")
    until(lambda: job.progress.settled > 50, lambda: job.progress)
    settled = job.progress.settled
    real_grid.kill("hub")
    real_grid.start_hub()
    assert job.result(60) == [x * x for x in range(300)]
    info = real_grid.api("jobs").json()
    assert settled > 50
    assert info


def test_a_killed_node_costs_nothing_but_time(real_grid, until):
    real_grid.start_hub()
    real_grid.start_node("one", 1)
    real_grid.start_node("two", 1)
    grid = real_grid.client()
    job = grid.map(slow_square, range(300))
    until(lambda: job.progress.settled > 50, lambda: job.progress)
    real_grid.kill("two")
    assert job.result(60) == [x * x for x in range(300)]
    real_grid.start_node("two", 1)
    until(lambda: sum(node.connected for node in grid.nodes()) == 2)


def test_a_stopped_node_hands_back_its_work_at_once_and_leaves_no_process(real_grid, until):
    real_grid.start_hub()
    real_grid.start_node("one", 2)
    grid = real_grid.client()
    job = grid.map(lambda x: time.sleep(600), range(2))
    job._demand()
    until(lambda: job.progress.leased, lambda: job.explain())
    processes = psutil.Process(real_grid.processes["one"].pid).children(recursive=True)
    assert len(processes) >= 2
    real_grid.kill("one", signal.SIGTERM)
    assert not [each for each in psutil.wait_procs(processes, 60)[1]]
    until(lambda: job.progress.leased == 0, lambda: job.progress)
    job.cancel()


def test_a_stopped_hub_drains_and_keeps_its_state(real_grid):
    real_grid.start_hub()
    real_grid.start_node()
    grid = real_grid.client()
    assert grid.map(square, range(10), name="kept").result(60) == [x * x for x in range(10)]
    hub = real_grid.processes["hub"]
    real_grid.kill("hub", signal.SIGTERM)
    assert hub.returncode == 0
    real_grid.start_hub()
    assert grid.job("kept").result(60) == [x * x for x in range(10)]


def test_wrong_tokens_and_roles_are_refused(real_grid):
    real_grid.start_hub()
    with pytest.raises(Denied, match="refused the token"):
        Grid(real_grid.url, token="flw_wrong")
    with pytest.raises(Denied, match="not for a client"):
        Grid(real_grid.url, token="flw_join_secret_for_tests_only")
    process = subprocess.run(
        [sys.executable, "-m", "fallow.cli.main", "node", real_grid.url],
        env={**os.environ, "FALLOW_TOKEN": "flw_wrong"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert process.returncode == 1
    assert "refused the token" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_port_in_use_is_one_clear_line(real_grid, tmp_path):
    real_grid.start_hub()
    process = subprocess.run(
        [sys.executable, "-m", "fallow.cli.main", "hub", "--state", str(tmp_path / "other"), "--port", str(real_grid.port)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert process.returncode == 1
    assert str(real_grid.port) in process.stderr
    assert "--port" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_state_folder_in_use_is_one_clear_line(real_grid):
    real_grid.start_hub()
    process = subprocess.run(
        [sys.executable, "-m", "fallow.cli.main", "hub", "--state", str(real_grid.folder / "state"), "--port", "0"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert process.returncode == 1
    assert str(real_grid.folder / "state") in process.stderr
    assert "Traceback" not in process.stderr


def test_tokens_appear_in_no_log_and_no_command_line(real_grid):
    real_grid.start_hub()
    real_grid.start_node()
    grid = real_grid.client()
    assert grid.submit(square, 2).result(60) == 4
    looked_at = 0
    for name, process in real_grid.processes.items():
        assert "secret_for_tests" not in real_grid.log(name)
        assert "secret_for_tests" not in " ".join(psutil.Process(process.pid).cmdline())
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # of those that try what the node can do, some end just now
                assert "secret_for_tests" not in " ".join(child.cmdline())
                assert "secret_for_tests" not in str(child.environ())
                looked_at += 1
    assert looked_at  # the slots stay


def test_slots_do_not_inherit_the_node_token(real_grid):
    real_grid.start_hub()
    real_grid.start_node()
    assert real_grid.client().submit(os.environ.get, "FALLOW_TOKEN").result(60) is None


def test_another_python_is_refused_at_matching(real_grid, until):
    real_grid.start_hub()
    real_grid.start_node()
    grid = real_grid.client()
    until(lambda: grid.nodes())
    job = grid.map(square, range(3), requires={"python": "3.99"})
    job._demand()
    reasons = until(lambda: " ".join(job.explain()))
    assert "3.99" in reasons
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in reasons
    job.cancel()
