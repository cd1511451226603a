"""Which results count."""

from fallow.model.page import ResultPage
from fallow.model.ranges import RangeSet


def test_a_late_success_counts_and_is_taken_from_the_queue(bench):
    bench.node("a").job("j", 10)
    old = bench.grants[0]
    bench("on_link_closed", "a").after(6)
    assert bench.done(old).counts == [(0, 2)]
    assert bench.node("b").granted == [("b", 2, 4)]


def test_a_late_success_stops_whoever_has_the_task_now(bench):
    bench.node("a", slots=4).job("j", 6)
    old = bench.grant
    bench("on_link_closed", "a").after(6)
    bench.node("b", slots=4)
    assert len(bench.grants) >= 1
    bench.done(old, 0, 3)
    assert bench.counts == [(0, 3)]
    assert sum(len(RangeSet.from_flat(ranges)) for _, _, ranges in bench.cancels) == 3
    assert {node for node, _, _ in bench.cancels} == {"b"}


def test_a_repeated_page_has_no_effect(bench):
    bench.node(slots=2).job("j", 10)
    grant = bench.grant
    bench.done(grant, 0, 2)
    assert bench.done(grant, 0, 2).counts == []
    assert bench.progress().settled == 2


def test_of_an_overlapping_page_only_the_new_part_counts(bench):
    bench.node(slots=4).job("j", 8)
    grant = bench.grant
    bench.done(grant, 2, 4)
    assert bench.done(grant, 0, 8).counts == [(0, 2, 4, 8)]
    assert bench.ends == [("j", "done")]


def test_a_success_of_another_lease_of_the_node_counts(bench):
    bench.node("a", slots=2).node("b", slots=2).job("j", 8)
    first, second = bench.grants
    assert bench.done(first, second.lease.start, second.lease.stop).counts == [(second.lease.start, second.lease.stop)]
    assert bench.cancels == [(second.node, "j", (second.lease.start, second.lease.stop))]


def test_pages_that_can_not_be_are_dropped(bench):
    bench.node().job("j", 4)
    grant = bench.grant
    for start, stop in ((-3, 1), (3, 9), (2, 2), (3, 1), (100, 200)):
        assert bench.done(grant, start, stop).counts == []
    assert bench.done(grant, failures=(77,)).failures == [], "a failure outside of its page is none"


def test_results_of_unknown_jobs_nodes_and_leases(bench):
    bench.node().job("j", 4)
    grant = bench.grant
    assert bench("on_results", "a", grant.lease.id, "x", (ResultPage(0, 1, b""),)).effects == []
    bench("on_results", "stranger", grant.lease.id, "j", (ResultPage(0, 1, b""),))
    assert bench.counts == [(0, 1)], "a success counts whoever brings it"


def test_a_raised_exception_settles_its_task(bench):
    bench.node(slots=2).job("j", 4)
    bench.done(bench.grant, failures=(1,))
    assert bench.counts == [(0, 4)]
    assert [(each.index, each.kind) for each in bench.failures] == [(1, "raised")]
    assert bench.scheduler.has_job("j") is False


def test_a_stale_failure_is_dropped_while_the_successes_beside_it_count(bench):
    bench.node("a", slots=2).job("j", 8)
    old = bench.grant
    bench("on_link_closed", "a").after(6)
    bench.done(old, 0, 4, failures=(2,))
    assert bench.counts == [(0, 2, 3, 4)]
    assert bench.failures == []
    assert bench.progress().failed == 0


def test_a_stale_failure_alone_changes_nothing(bench):
    bench.node("a").job("j", 8)
    old = bench.grant
    bench("on_link_closed", "a").after(6)
    assert bench.done(old, 0, 1, failures=(0,)).effects == []


def test_counts_are_exact_and_records_bounded_when_everything_fails(bench):
    bench.node(slots=2).job("j", 50_000, counting=True)
    grants = bench.grants
    while grants:
        grant = grants.pop(0)
        job = bench.scheduler._books.jobs["j"]
        bench.done(grant, failures=tuple(range(grant.lease.start, grant.lease.stop)), elapsed_s=1e-4)
        grants += bench.grants
    assert job.failed == 50_000
    assert len(job.first_failures) == 100
    assert job.failed_set.run_count == 1


def test_a_partial_counts_whole(bench):
    bench.node(slots=2).job("j", 4, stages=("reduce",))
    assert bench.done(bench.grant, partial=True).counts == [(0, 4)]


def test_a_partial_that_overlaps_something_settled_is_dropped_and_done_again(bench):
    bench.node("a", slots=2).job("j", 8, stages=("reduce",))
    grant = bench.grant
    bench("on_tasks_cancelled", "j", [(1, 2)])
    bench.done(grant, 0, 4, partial=True)
    assert bench.counts == []
    assert bench.granted[0][1:] == (0, 1)
    assert bench.progress().settled == 1


def test_a_failure_in_a_partial_settles_its_task(bench):
    bench.node(slots=2).job("j", 4, stages=("map", "reduce"))
    bench.done(bench.grant, partial=True, failures=(2,))
    assert bench.counts == [(0, 4)]
    assert [each.index for each in bench.failures] == [2]


def test_a_failure_in_a_partial_that_may_be_retried_sends_all_of_it_back(bench):
    bench.node(slots=2).job("j", 4, stages=("map", "reduce"), retries=1)
    bench.done(bench.grant, partial=True, failures=(2,))
    assert bench.counts == []
    assert bench.progress().settled == 0
    (again,) = bench.grants
    bench.done(again, partial=True, failures=(2,))
    assert bench.failures[0].attempts == 2
    assert bench.ends == [("j", "done")]


def test_a_late_partial_of_a_lost_lease_counts_if_all_of_it_is_unsettled(bench):
    bench.node("a", slots=2).job("j", 4, stages=("reduce",))
    old = bench.grant
    bench("on_link_closed", "a").after(6)
    assert bench.done(old, partial=True).counts == [(0, 4)]
    assert bench.done(old, partial=True).effects == []


def test_a_late_partial_that_overlaps_is_dropped(bench):
    bench.node("a", slots=2).job("j", 8, stages=("reduce",))
    old = bench.grant
    bench("on_link_closed", "a").after(6)
    bench("on_tasks_cancelled", "j", [(0, 1)])
    assert bench.done(old, partial=True).counts == []
