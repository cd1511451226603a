"""Jobs that go on from another's results."""

import pytest

from fallow.model.changes import SealJob
from fallow.model.failure import Failure


@pytest.fixture
def pair(bench):
    """A parent of four tasks, leased to a node of four slots, and a child of higher priority."""
    bench.node(slots=4).job("p", 4)
    bench.lease = bench.grant
    return bench.job("c", follows="p", priority=1)


def test_tasks_become_available_as_the_parent_settles_them(pair):
    assert pair.progress("c").accepted == 0
    pair.done(pair.lease, 2, 3)
    assert [(each.lease.job, each.lease.start) for each in pair.grants] == [("c", 2)]
    assert pair.progress("c").accepted == 1
    assert pair.scheduler.accepted("c") == 1


def test_the_child_is_sealed_with_its_parent(bench):
    bench.job("p", 4, seal=False).job("c", follows="p")
    bench("on_job_sealed", "p", 4)
    assert bench.changes(SealJob) == [SealJob("p", 4), SealJob("c", 4)]


def test_a_child_can_not_be_fed_or_sealed_from_outside(pair):
    assert pair("on_inputs_added", "c", 3).effects == []
    assert pair("on_job_sealed", "c", 3).effects == []


def test_the_parent_stays_until_the_child_has_ended(pair):
    pair.done(pair.lease)
    assert pair.ends == [("p", "done")]
    assert not pair.scheduler.has_job("p")
    assert pair.progress("p").state == "done"
    assert pair.explain("p") == ["it has ended; another job goes on from its results"]
    for grant in pair.grants:
        pair.done(grant)
    assert pair.ends == [("c", "done")]
    assert pair.scheduler._books.jobs == {}


def test_a_failed_input_fails_the_task_that_needs_it(pair):
    failure = Failure(
        index=1, kind="raised", type_name="KeyError", message="'x'", traceback="…", exception=b"p", node="a"
    )
    pair.done(pair.lease, failures=(failure,))
    (mine,) = [each for each in pair.failures if each.kind == "input"]
    assert (mine.index, mine.type_name, mine.message, mine.traceback, mine.exception) == (
        1,
        "KeyError",
        "'x'",
        "…",
        b"p",
    )
    assert pair.progress("c").failed == 1


def test_a_child_whose_inputs_all_failed_ends_with_its_parent(pair):
    pair.done(pair.lease, failures=(0, 1, 2, 3))
    assert pair.ends == [("p", "done"), ("c", "done")]
    assert pair.scheduler._books.jobs == {}


def test_a_child_made_late_gets_what_is_there(bench):
    bench.node(slots=2).job("p", 8)
    bench.done(bench.grant, failures=(1,))
    bench.job("c", follows="p")
    assert [(each.index, each.kind) for each in bench.failures] == [(1, "input")]
    assert bench.progress("c").size == 8
    assert bench.progress("c").accepted == 4


def test_failures_beyond_the_kept_records_still_fail_the_child(make_bench):
    bench = make_bench(kept_failures=2).node(slots=4).job("p", 9)
    bench.done(bench.grant, failures=(0, 1, 2, 3))
    bench.job("c", follows="p")
    assert [each.index for each in bench.failures] == [0, 1, 2, 3]
    assert "task 3 of the parent job failed" in bench.failures[3].message


def test_cancelling_the_parent_cancels_the_child(pair):
    pair("on_job_cancelled", "p")
    assert pair.ends == [("p", "cancelled"), ("c", "cancelled")]
    assert pair.scheduler._books.jobs == {}


def test_cancelling_the_child_leaves_the_parent(pair):
    assert pair("on_job_cancelled", "c").ends == [("c", "cancelled")]
    assert pair.scheduler.jobs() == ["p"]


def test_deleting_an_ended_parent_cancels_the_child(pair):
    pair.done(pair.lease)
    assert pair("on_job_deleted", "p").ends == [("c", "cancelled")]
    assert pair.scheduler._books.jobs == {}


def test_a_chain_of_three(bench):
    bench.node(slots=4).job("p", 3).job("c", follows="p").job("d", follows="c")
    grants, ends = bench("on_heartbeat", "a", (), [each.id for each in bench.held_by("a")]).grants, []
    grants = [type("G", (), {"node": "a", "lease": each}) for each in lease_views(bench)]
    while grants:
        bench.done(grants.pop(0))
        ends += bench.ends
        grants += bench.grants
    assert ends == [("p", "done"), ("c", "done"), ("d", "done")]


def lease_views(bench):
    from fallow.model.lease import Lease

    return [Lease(each.id, each.job.id, each.unfinished.first, each.unfinished.end) for each in bench.held_by("a")]


def test_a_child_of_an_unknown_parent_waits_until_the_parent_is_recovered(bench):
    bench.node(slots=4).job("c", follows="p")
    assert bench.explain("c") == ["it waits for the results of the job before it"]
    failure = Failure(index=2, kind="raised", type_name="ValueError")
    bench("on_parent_recovered", bench.spec("p"), size=4, settled=[(0, 4)], failed=[(2, 3)], first_failures=(failure,))
    assert bench.granted == [("a", 0, 2), ("a", 3, 4)]
    assert [(each.index, each.type_name) for each in bench.failures] == [(2, "ValueError")]
    for grant in bench.grants:
        bench.done(grant)
    assert bench.ends == [("c", "done")]
    assert bench.scheduler._books.jobs == {}


def test_an_ended_parent_may_be_recovered_before_its_child_is_made(bench):
    bench.node(slots=4)("on_parent_recovered", bench.spec("p"), size=2, settled=[(0, 2)])
    assert not bench.scheduler.has_job("p")
    assert bench.job("c", follows="p").granted == [("a", 0, 2)]
    assert bench("on_parent_recovered", bench.spec("p"), size=2, settled=[(0, 2)]).effects == []


def test_failures_of_a_recovered_parent_beyond_the_kept_records_fail_its_child(bench):
    failure = Failure(index=0, kind="raised", type_name="ValueError")
    bench(
        "on_parent_recovered",
        bench.spec("p"),
        size=9,
        settled=[(0, 9)],
        failed=[(0, 2), (5, 6)],
        first_failures=(failure,),
    )
    bench.job("c", follows="p")
    assert [(each.index, each.type_name) for each in bench.failures] == [(0, "ValueError"), (1, ""), (5, "")]
    assert bench.progress("p").failed == bench.progress("c").failed == 3


def test_a_child_of_a_cancelled_parent_is_cancelled(bench):
    bench.job("c", follows="p")
    bench("on_parent_recovered", bench.spec("p"), size=None, settled=[(0, 2)], state="cancelled")
    assert bench.ends == [("c", "cancelled")]


def test_a_reduction_of_a_parents_results(bench):
    bench.node(slots=4).job("p", 4)
    lease = bench.grant
    bench.job("c", follows="p", stages=("reduce",))
    bench.done(lease)
    (grant,) = bench.grants
    assert (grant.lease.start, grant.lease.stop) == (0, 4)
    assert bench.done(grant, partial=True).ends == [("c", "done")]


def test_tasks_of_a_child_can_be_cancelled_as_far_as_they_are_available(pair):
    pair.done(pair.lease, 0, 2)
    pair("on_tasks_cancelled", "c", [(1, 4)])
    assert pair.counts == [(1, 2)]


def test_restored_children_go_on_from_restored_parents(bench):
    from types import SimpleNamespace as Record

    bench(
        "restore",
        Record(
            spec=bench.spec("p"), accepted=4, size=4, input_ended=False, settled=(0, 2), failed=(), first_failures=()
        ),
    )
    bench(
        "restore",
        Record(
            spec=bench.spec("c", follows="p"),
            accepted=0,
            size=None,
            input_ended=False,
            settled=(0, 1),
            failed=(),
            first_failures=(),
        ),
    )
    assert bench.changes(SealJob) == [SealJob("c", 4)]
    assert bench.progress("c").accepted == 2
    assert bench.progress("c").settled == 1


def test_failures_of_a_restored_parent_beyond_the_kept_records_fail_its_child(bench):
    from types import SimpleNamespace as Record

    about = {"accepted": 4, "size": 4, "input_ended": False, "first_failures": ()}
    bench("restore", Record(spec=bench.spec("p"), settled=(0, 3), failed=(1, 3), **about))
    assert bench.progress("p").failed == 2
    bench.node(slots=4).job("c", follows="p")
    assert [each.index for each in bench.failures] == [1, 2]
    assert ("a", 0, 1) in bench.granted
