"""Who is next: priority, then what was tried before, then arrival."""

from fallow.model.page import ResultPage
from fallow.scheduler.settings import SchedulerSettings


def test_first_come_first_served(bench):
    for name in "xyz":
        bench.job(name, 2)
    bench.node()
    grants, seen = bench.grants, []
    while grants:
        grant = grants.pop(0)
        seen.append(grant.lease.job)
        bench.done(grant, elapsed_s=2.0 * (grant.lease.stop - grant.lease.start))
        grants += bench.grants
    assert seen == ["x", "y", "z"]


def test_jobs_of_one_priority_go_by_arrival_of_their_oldest_pending_page(bench):
    bench.job("x").job("y")
    bench("on_inputs_added", "y", 1)
    bench("on_inputs_added", "x", 1)
    bench("on_inputs_added", "y", 2)
    bench.node()
    assert [each.lease.job for each in bench.grants] == ["y"]


def test_higher_priority_goes_first_in_every_class(bench):
    bench.job("low", 5, priority=-1).job("big", 5, requires={"cores": 2}).job("urgent", 5, priority=3)
    bench.node(slots=2)
    assert [each.lease.job for each in bench.grants] == ["urgent"]


def test_an_urgent_task_is_granted_to_a_full_node_at_once(bench):
    bench.node(slots=2).job("j", 100_000)
    bench.job("urgent", 1, priority=1)
    assert [(each.node, each.lease.job) for each in bench.grants] == [("a", "urgent")]


def test_urgent_work_is_bounded_by_the_slots_of_the_node(bench):
    bench.node(slots=2).job("j", 100_000)
    bench.job("urgent", 100_000, priority=1)
    assert sum(each.lease.stop - each.lease.start for each in bench.grants) <= 4
    assert bench.job("later", 5, priority=1).grants == []


def test_an_urgent_job_finds_one_of_many_full_nodes(bench):
    for number in range(100):
        bench.node(f"n{number}")
    bench.job("j", 100_000)
    assert len(bench.job("urgent", 1, priority=1).grants) == 1


def test_equal_or_lower_priority_waits_for_room(bench):
    bench.node().job("j", 100_000)
    assert bench.job("same", 1).grants == []
    assert bench.job("low", 1, priority=-1).grants == []


def test_tried_work_goes_before_fresh_work_of_its_priority(bench):
    bench.node().job("x", 4).job("y", 1)
    (lease,) = bench.held_by("a")
    assert bench("on_returned", "a", lease.id, "x", [(1, 2)]).grants == []
    page = ResultPage(0, 1, b"", elapsed_s=0.01)
    bench("on_results", "a", lease.id, "x", (page,))
    assert bench.granted == [("a", 1, 2), ("a", 2, 4), ("a", 0, 1)]
    assert [each.lease.job for each in bench.grants] == ["x", "x", "y"]


def test_a_million_single_submits_of_two_jobs_keep_few_arrivals(bench):
    bench.job("x").job("y")
    scheduler, limit = bench.scheduler, SchedulerSettings().arrival_runs
    for stop in range(1, 5000):
        scheduler.on_inputs_added("x", stop, 0.0)
        scheduler.on_inputs_added("y", stop, 0.0)
    for job in scheduler._books.jobs.values():
        assert len(job.arrivals) <= limit
    for stop in range(5000, 20_000):
        scheduler.on_inputs_added("x", stop, 0.0)
    scheduler.check_invariants()


def test_inputs_of_one_job_after_each_other_are_one_arrival(bench):
    bench.job("x")
    for stop in range(1, 100):
        bench("on_inputs_added", "x", stop)
    assert len(bench.scheduler._books.jobs["x"].arrivals) == 1


def test_the_heap_of_a_class_is_swept(bench):
    bench.job("long", 10)
    for number in range(300):
        bench.job(f"j{number}", 1)("on_job_cancelled", f"j{number}")
    (work_class,) = bench.scheduler._books.classes.values()
    assert len(work_class._heap) < 100
