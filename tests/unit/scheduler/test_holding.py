"""Whose checkpoint of a task counts, and which tasks run."""


def holds(bench, grant, index, *, node=None, job=None):
    lease = grant.lease
    return bench.scheduler.holds(node or grant.node, lease.id, job or lease.job, index)


def running(bench, job="j"):
    return [
        (node, info.name, task.index, task.running_s) for node, info, task in bench.scheduler.running(job, bench.now)
    ]


def test_the_lease_that_holds_a_task_counts_and_no_other(bench):
    bench.node("a").node("b").job("j", 1)
    grant = bench.grant
    other = {"a": "b", "b": "a"}[grant.node]
    assert holds(bench, grant, 0)
    assert not holds(bench, grant, 1)
    assert not holds(bench, grant, 0, node=other)
    assert not holds(bench, grant, 0, node="nobody")
    assert not holds(bench, grant, 0, job="another")
    bench.returned(grant, (0, 1))
    assert not holds(bench, grant, 0)
    again = bench.grant
    assert holds(bench, again, 0)
    bench.done(again)
    assert not holds(bench, again, 0)


def test_tasks_run_as_the_last_heartbeat_says(bench):
    bench.node("a", slots=2).job("j", 10)
    lease = bench.held_by("a")[0]
    assert running(bench) == []
    bench.beat("a", [(lease.id, 0, 3.0), (lease.id, 99, 1.0), (12345, 1, 1.0)])
    bench.now += 2.0
    assert running(bench) == [("a", "a", 0, 5.0)]
    bench.beat("a")
    assert running(bench) == []
    assert running(bench, "another") == []
