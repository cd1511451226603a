"""After a restart of the hub, or a reconnect: held leases, presented leases, recovered jobs."""

import msgspec
import pytest

from fallow.model.changes import AddLease, EndLease
from fallow.model.events import NodeLost
from fallow.model.failure import Failure
from fallow.model.lease import Lease
from fallow.scheduler.scheduler import Scheduler


class Record(msgspec.Struct):
    spec: object
    accepted: int = 0
    size: int | None = None
    input_ended: bool = False
    settled: tuple = ()
    failed: tuple = ()
    first_failures: tuple = ()


def restored(bench, *records, leases=()):
    for record in records:
        bench("restore", record)
    for lease, node in leases:
        bench("restore_lease", lease, node)
    return bench


def test_settled_tasks_are_not_run_again(bench):
    restored(bench, Record(bench.spec(), accepted=6, size=6, settled=(0, 2, 4, 5), failed=(4, 5)))
    assert bench.node(slots=4).granted == [("a", 2, 4), ("a", 5, 6)]
    progress = bench.progress()
    assert (progress.settled, progress.failed, progress.state) == (3, 1, "running")


def test_an_open_job_takes_more_inputs(bench):
    restored(bench, Record(bench.spec(), accepted=2))
    bench("on_inputs_added", "j", 3)
    assert bench.node(slots=4).granted == [("a", 0, 3)]


def test_a_range_as_input_is_available_again(bench):
    restored(
        bench, Record(bench.spec(counting=True), size=5, settled=(0, 3)), Record(bench.spec("open", counting=True))
    )
    assert bench.node(slots=4).granted == [("a", 3, 5)]
    assert bench.progress("open").accepted == 0


def test_a_job_that_was_complete_ends(bench):
    assert restored(bench, Record(bench.spec(), accepted=3, size=3, settled=(0, 3))).ends == [("j", "done")]


def test_restoring_twice_changes_nothing(bench):
    record = Record(bench.spec(), accepted=3)
    assert restored(bench, record, record).effects == []


def test_failures_are_known_again(bench):
    failure = Failure(index=1, kind="raised")
    restored(bench, Record(bench.spec(), accepted=3, settled=(1, 2), failed=(1, 2), first_failures=(failure,)))
    assert bench.scheduler.info("j").first_failures == (failure,)


def test_a_recorded_lease_waits_for_its_node(bench, held):
    lease = Lease(5, "j", 0, 4)
    restored(bench, Record(bench.spec(), accepted=4), leases=[(lease, "a")])
    assert bench.node("b").grants == []
    assert [view.id for view in bench.scheduler.nodes()] == ["b"], "a node that only the journal knows is not shown"
    bench.now += 5
    bench("on_node_joined", "a", bench.info())
    assert bench("on_leases_presented", "a", [held(5, "j", 1, 4)]).granted == [("b", 0, 1)]
    assert bench.progress().leased == 4


def test_a_recorded_lease_whose_node_does_not_come_goes_to_others(bench):
    restored(bench, Record(bench.spec(), accepted=4), leases=[(Lease(5, "j", 0, 4), "a")]).node("b", slots=4)
    bench.beats(9, "b")
    assert bench.grants == []
    bench.beats(2, "b")
    assert bench.granted == [("b", 0, 4)]
    assert bench.changes(EndLease) == [EndLease(5)]
    assert not [each for each in bench.told if isinstance(each, NodeLost)], "it was never here"


def test_recorded_leases_of_what_is_settled_unknown_or_doubled_end(bench):
    restored(bench, Record(bench.spec(), accepted=4, settled=(0, 2)))
    for lease in (Lease(5, "j", 0, 2), Lease(6, "gone", 0, 2)):
        assert bench("restore_lease", lease, "a").changes(EndLease) == [EndLease(lease.id)]
    bench("restore_lease", Lease(7, "j", 2, 4), "a")
    assert bench("restore_lease", Lease(7, "j", 2, 4), "a").changes(EndLease) == [EndLease(7)]


def test_two_recorded_leases_of_one_node_wait_together(bench):
    restored(bench, Record(bench.spec(), accepted=4), leases=[(Lease(5, "j", 0, 2), "a"), (Lease(6, "j", 2, 4), "a")])
    assert bench.progress().leased == 4


def test_presented_leases_that_were_never_recorded_are_adopted(bench, held):
    restored(bench, Record(bench.spec(), accepted=10, settled=(0, 1)))
    bench.node("a", slots=4, held=[held(99, "j", 0, 3, 6, 8)])
    assert bench.changes(AddLease)[0] == AddLease(Lease(99, "j", 1, 8), "a")
    assert bench.cancels == [("a", "j", (0, 1))], "what is settled is not run again"
    assert bench.progress().leased == 4


def test_presented_leases_of_unknown_jobs_are_cancelled(bench, held):
    bench.node(held=[held(99, "gone", 0, 3)])
    assert bench.cancels == [("a", "gone", ())]


def test_a_presented_lease_of_what_others_have_is_refused(bench, held):
    bench.node("a", slots=4).job("j", 4)
    bench.node("b", held=[held(99, "j", 0, 2)])
    assert bench.cancels == [("b", "j", (0, 2))]
    assert [lease.id for lease in bench.scheduler._books.leases.values()] != [99]


def test_numbers_that_are_no_ranges_are_as_good_as_none(bench, held):
    bench.job("j", 4).node(held=[held(99, "j", 0)])
    assert 99 not in bench.scheduler._books.leases


def test_a_known_lease_shrinks_to_what_is_presented(bench, held):
    bench.node("a", slots=4).job("j", 4)
    lease = bench.grant.lease
    bench("on_link_closed", "a")("on_node_joined", "a", bench.info(slots=4))
    bench("on_leases_presented", "a", [held(lease.id, "j", 2, 4)])
    assert bench.granted == [("a", 0, 2)], "what it did not finish and does not have is granted again"
    assert bench.cancels == []


def test_what_was_settled_meanwhile_is_cancelled(bench, held):
    bench.node("a", slots=4).job("j", 4)
    grant = bench.grant
    bench("on_link_closed", "a")("on_tasks_cancelled", "j", [(0, 1)])
    bench("on_node_joined", "a", bench.info(slots=4))
    assert bench("on_leases_presented", "a", [held(grant.lease.id, "j", 0, 4)]).cancels == [("a", "j", (0, 1))]
    assert bench.done(grant, 1, 4).ends == [("j", "done")]


def test_another_nodes_lease_can_not_be_presented(bench, held):
    bench.node("a", slots=4).job("j", 4)
    lease = bench.grant.lease
    bench.node("b", held=[held(lease.id, "j", 0, 4)])
    assert bench.scheduler._books.leases[lease.id].node.id == "a"


def test_a_restarted_agent_presents_nothing_and_running_tasks_are_suspects(bench):
    bench.node("a").job("j", 2)
    lease = bench.grant.lease
    bench.beat("a", running=[(lease.id, 0, 1.0)])
    bench("on_link_closed", "a").node("a")
    troubles = bench.scheduler._books.jobs["j"].troubles
    assert {index: each.lost for index, each in troubles.items()} == {0: 1}


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_task_that_ends_its_agent_again_and_again_is_found(bench, is_listed):
    bench.node("a").job("j", 1)
    for _ in range(4):
        lease = bench.held_by("a")[0]
        if is_listed:
            bench.beat("a", running=[(lease.id, 0, 1.0)])
        bench("on_link_closed", "a").node("a", presents=False)("on_leases_presented", "a", (), is_first=True)
    assert bench.ends == [("j", "done")]
    assert bench.failures[0].kind == "lost_nodes"


def test_leases_that_a_reconnecting_agent_never_received_blame_nobody(bench):
    bench.node("a").job("j", 1)
    for _ in range(5):
        assert bench.held_by("a")
        bench("on_link_closed", "a").node("a")
    assert not bench.ends
    assert not bench.scheduler._books.jobs["j"].troubles


def test_a_hub_that_starts_again_gives_its_leases_other_ids(make_bench):
    """A lease's id is its fencing number: what a node says of a lease of the last start must not touch one of this start."""
    ids = set()
    for epoch in (1, 2, 3):
        bench = make_bench()
        bench.scheduler = Scheduler(epoch=epoch)
        for number in range(3):
            bench.node(f"a{number}").job(f"j{number}", 1)
        ids |= {lease.id for lease in bench.scheduler._books.leases.values()}
    assert len(ids) == 9


def test_a_failure_in_a_lease_of_the_last_start_is_stale(make_bench):
    before, after = make_bench(), make_bench()
    before.scheduler, after.scheduler = Scheduler(epoch=1), Scheduler(epoch=2)
    stale = before.node("a").job("j", 1).grant
    mine = after.node("a").job("j", 1).grant
    assert after.broke(stale).effects == after.returned(stale, (0, 1)).effects == []
    assert [lease.id for lease in after.held_by("a")] == [mine.lease.id]
