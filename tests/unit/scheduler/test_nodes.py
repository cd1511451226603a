"""Nodes that come, fall silent, are lost, and take tasks down with them."""

import pytest

from fallow.model.events import NodeJoined, NodeLost
from fallow.model.page import ResultPage


def test_a_node_is_granted_nothing_before_it_presented_its_leases(bench):
    bench.job("j", 1).node(presents=False)
    assert bench.told == [NodeJoined("a", "a")]
    assert bench.grants == []
    assert bench("on_leases_presented", "a", ()).granted == [("a", 0, 1)]


def test_a_node_that_never_presents_is_given_up(bench):
    bench.node(presents=False).after(16)
    assert [type(each) for each in bench.told] == [NodeLost]
    assert not bench.scheduler.has_node("a")


def test_delivering_results_gives_a_joining_node_more_time(bench):
    bench.node(presents=False)
    for _ in range(3):
        bench.after(10)("on_results", "a", 1, "j", ())
    assert bench.scheduler.has_node("a")


def test_presenting_without_a_hello_has_no_effect(bench):
    assert bench("on_leases_presented", "a", ()).effects == []
    bench.node()("on_link_closed", "a")
    assert bench("on_leases_presented", "a", ()).effects == []


def test_a_closed_link_has_grace(bench):
    bench.node().job("j", 2)
    lease = bench.grant.lease
    bench("on_link_closed", "a").after(4.9)
    assert bench.scheduler.nodes()[0].connected is False
    bench("on_node_joined", "a", bench.info())
    assert bench.progress().leased == 2
    assert bench("on_link_closed", "a").after(5.1).told == [NodeLost("a", "a", 1, 2)]
    assert bench.progress().leased == 0
    assert lease.id not in bench.scheduler._books.leases


def test_a_link_that_closes_twice_is_closed_once(bench):
    bench.node()("on_link_closed", "a").after(3)("on_link_closed", "a").after(3)
    assert not bench.scheduler.has_node("a")
    assert bench("on_link_closed", "a").effects == []


def test_a_silent_node_with_leases_is_lost_after_three_beats(bench):
    bench.node().job("j", 1).after(14.9)
    assert bench.scheduler.has_node("a")
    assert bench.after(0.2).told == [NodeLost("a", "a", 1, 1)]


def test_a_silent_idle_node_is_lost_later(bench):
    bench.node().after(89)
    assert bench.scheduler.has_node("a")
    bench.after(2)
    assert not bench.scheduler.has_node("a")


def test_a_node_granted_work_after_a_long_idle_time_has_three_beats_from_then(bench):
    bench.node().after(60).job("j", 1).after(14)
    assert bench.scheduler.has_node("a")
    bench.after(2)
    assert not bench.scheduler.has_node("a")


def test_beats_keep_a_node(bench):
    bench.node().job("j", 1).beats(100, "a")
    assert bench.scheduler.has_node("a")


def test_leases_of_a_lost_node_go_to_others_first(bench):
    bench.node("a").job("j", 100)
    bench("on_link_closed", "a").after(6)
    assert bench.node("b").granted == [("b", 0, 1)], "the task that may have been running goes by itself"
    bench.done(bench.grant, elapsed_s=10)
    assert bench.granted == [("b", 1, 2)]


def test_nothing_of_a_lost_node_stays_in_memory(bench):
    bench.job("j", 10, seal=False)
    for number in range(50):
        bench.node(f"n{number}")("on_link_closed", f"n{number}").after(6)
    books = bench.scheduler._books
    (job,) = books.jobs.values()
    assert books.nodes == {}
    assert job.touched == {}
    assert job.paces == {}
    assert all(not each.ready and not len(each.hungry) for each in books.classes.values())


def test_a_lease_that_the_node_never_received_is_reclaimed(bench):
    bench.node().job("j", 1)
    for _ in range(4):
        bench.now += 4
        assert bench.beat("a", leases=[]).grants == [], "it may be on its way"
    bench.now += 4
    bench.beat("a", leases=[])
    assert bench.granted == [("a", 0, 1)]
    assert bench.scheduler._books.jobs["j"].troubles == {}, "nobody is to blame"


def test_a_lease_is_reclaimed_sooner_if_later_ones_came(bench):
    bench.node(slots=2).job("i", 1).job("j", 1)
    lost, came = bench.held_by("a")
    bench.now += 1
    assert bench.beat("a", leases=[came.id]).grants == []
    bench.now += 4
    bench.beat("a", leases=[came.id])
    assert bench.granted == [("a", 0, 1)]
    assert lost.id not in bench.scheduler._books.leases
    assert bench.scheduler._books.jobs["j"].troubles == {}, "nobody is to blame"


def test_heartbeats_that_waited_in_a_busy_hub_take_no_lease_away(bench):
    bench.node().job("j", 1)
    bench.now += 8  # the hub was busy: these were sent before the lease arrived
    for _ in range(2):
        assert bench.beat("a", leases=[]).grants == []
    bench.now += 5
    assert bench.beat("a").grants == []
    bench.now += 5
    assert bench.beat("a", leases=[]).grants == []
    assert len(bench.held_by("a")) == 1


def test_beats_of_unknown_nodes_and_about_unknown_leases_have_no_effect(bench):
    assert bench("on_heartbeat", "x", (), ()).effects == []
    bench.node().job("j", 1)
    assert bench.beat("a", running=[(999, 0, 1.0)]).effects == []
    lease = bench.held_by("a")[0]
    bench.beat("a", running=[(lease.id, 55, 1.0), (lease.id, 0, -1.0)])
    assert lease.running == {}


def test_a_changed_unknown_node_has_no_effect(bench):
    assert bench("on_node_changed", "x", bench.info(), True, "").effects == []


def test_a_clock_that_goes_back_stands_still(bench):
    bench.now = 100.0
    bench.node().job("j", 1)
    bench.now = 10.0
    bench.done(bench.grant)
    assert bench.scheduler._books.now == 100.0


def lose(bench, name, index, listed):
    """Have the node run the task, and be lost."""
    lease = bench.held_by(name)[0]
    bench.now += 2
    if listed:
        bench.beat(name, running=[(lease.id, index, 1.5)])
    bench("on_link_closed", name).after(6)


@pytest.mark.parametrize("listed", [True, False])
def test_a_task_that_was_running_on_lost_nodes_runs_alone_and_then_fails(bench, listed):
    bench.job("j", 3, max_retries=0)
    for number in range(3):
        bench.node(f"n{number}")
        lose(bench, f"n{number}", 0, listed)
    bench.node("last", slots=4)
    assert bench.granted == [("last", 0, 1)], "nothing beside it"
    lose(bench, "last", 0, listed)
    (failure,) = bench.failures
    assert failure.kind == "lost_nodes"
    assert failure.attempts == 4
    assert "n0, n1, n2, last" in failure.message
    bench.node("next", slots=4)
    assert bench.granted == [("next", 1, 2), ("next", 2, 3)], "the others were never to blame"


def test_a_suspect_task_that_finishes_alone_frees_its_node(bench):
    bench.job("j", 3)
    for number in range(3):
        bench.node(f"n{number}")
        lose(bench, f"n{number}", 0, listed=True)
    bench.node("last", slots=4)
    bench.done(bench.grant)
    assert bench.granted == [("last", 1, 2), ("last", 2, 3)]
    assert bench.scheduler._books.nodes["last"].alone is None


def test_a_busy_node_is_drained_for_a_suspect_task(bench):
    bench.node("busy", slots=2, tags=("x",)).job("other", 100, requires={"tags": ("x",)})
    other = bench.grants
    bench.job("j", 1, requires={"memory_bytes": 1})
    for number in range(3):
        bench.node(f"n{number}", slots=1)
        lease = next(each for each in bench.held_by(f"n{number}") if each.job.id == "j")
        bench.now += 2
        bench.beat("busy")
        bench.beat(f"n{number}", running=[(lease.id, 0, 1.5)])
        bench("on_link_closed", f"n{number}").after(5.5)
        bench.beat("busy")
    assert bench.scheduler._books.nodes["busy"].drains_for is not None
    assert "empty" in " ".join(bench.explain("j"))
    seen = []
    while other:
        bench.done(other.pop(0), elapsed_s=1.0)
        seen += bench.granted
        other += [each for each in bench.grants if each.lease.job == "other"]
        if bench.grants:
            break
    assert seen == [("busy", 0, 1)]
    assert len(bench.held_by("busy")) == 1


def test_a_node_no_longer_drains_for_a_task_that_was_cancelled(bench):
    bench.node("busy", slots=2).job("other", 4)
    (other,) = bench.grants
    bench.job("j", 2, requires={"memory_bytes": 1})
    books = bench.scheduler._books
    for number in range(3):
        bench.node(f"n{number}", slots=1)
        for lease in bench.held_by(f"n{number}"):
            bench.beat(f"n{number}", running=[(lease.id, lease.unfinished.first, 1.5)])
        bench.now += 2
        bench("on_link_closed", f"n{number}").after(5.5)
        bench.beat("busy")
    assert books.nodes["busy"].drains_for is not None
    bench("on_tasks_cancelled", "j", [(0, 2)])
    bench.done(other)
    assert books.nodes["busy"].drains_for is None


def test_a_lost_draining_node_leaves_the_task_to_another(bench):
    bench.node("busy", slots=1).job("other", 1)
    bench.job("j", 1, requires={"memory_bytes": 1})
    for number in range(3):
        bench.node(f"n{number}")
        lose_with(bench, f"n{number}")
    books = bench.scheduler._books
    assert books.nodes["busy"].drains_for is not None
    bench("on_link_closed", "busy").after(6)
    assert books.jobs["j"].drains == {}
    assert ("z", 0, 1) in bench.node("z").granted


def lose_with(bench, name):
    lease = bench.held_by(name)[0]
    bench.beat(name, running=[(lease.id, 0, 1.5)])
    bench.now += 2
    bench("on_link_closed", name).after(5.5)
    bench.beat("busy")


def test_losses_are_no_attempts_of_a_jobs_retries(bench):
    bench.job("j", 1, retries=0, max_retries=0)
    for number in range(2):
        bench.node(f"n{number}")
        lose(bench, f"n{number}", 0, listed=True)
    bench.node("z")
    bench.done(bench.grant)
    assert bench.failures == []


def test_returned_work_goes_to_others(bench):
    bench.node("a", slots=2).job("j", 100)
    grant = bench.grant
    bench("on_node_changed", "a", bench.info(slots=2), False, "leaving")
    bench.returned(grant, (2, 4), (90, 99))
    assert bench.node("b").granted == [("b", 2, 4)]


def test_results_after_a_return_still_count(bench):
    bench.node("a", slots=2).job("j", 8, seal=False)
    grant = bench.grant
    bench.returned(grant, (0, 4))
    bench("on_results", "a", grant.lease.id, "j", (ResultPage(0, 4, b""),))
    assert bench.counts == [(0, 4)]
