"""A job of which every task fails: bounded memory and logs, the first errors shown, counts exact."""

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]

TASKS = 100_000
GROWTH_BYTES = 25_000_000
ROW_BYTES = 1000


def fail(x):
    raise ValueError(f"no {x}")


def memory(program):
    return psutil.Process(program.process.pid).memory_info().rss


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_of_which_every_task_fails_stays_small_and_is_counted_exactly(programs, grid_of, wait_until, retries):
    hub = programs.hub()
    node = programs.node(hub, name="one")
    grid = grid_of(hub.url)
    assert grid.map(abs, range(1000)).result(60)
    before = [memory(each) for each in (hub, node)]
    job = grid.map(fail, range(TASKS), name="hopeless", retries=retries)
    most = list(before)

    def has_ended():
        most[:] = [max(one, memory(each)) for one, each in zip(most, (hub, node), strict=True)]
        return job.progress.ended

    wait_until(has_ended, "so many failures", deadline_s=200)
    print([now - then for now, then in zip(most, before, strict=True)])
    assert all(now - then < GROWTH_BYTES for now, then in zip(most, before, strict=True))
    shown = hub.get("/jobs/hopeless")
    assert (shown["settled"], shown["failed"], shown["state"]) == (TASKS, TASKS, "done")
    assert len(shown["failures"]) == 100
    assert all(each["error"]["message"] == f"no {each['index']}" for each in shown["failures"])
    assert min(each["index"] for each in shown["failures"]) < 10
    errors = [error for _, error in zip(range(3), job.errors(), strict=False)]
    assert [str(error) for _, error in errors] == [f"no {index}" for index, _ in errors]
    assert sum(path.stat().st_size for path in (programs.folder / "hub").rglob("*")) < TASKS * ROW_BYTES
    assert len(hub.said()) + len(node.said()) < 2000
    assert sum(1 for error in job.result(60, return_exceptions=True) if isinstance(error, ValueError)) == TASKS
