"""What fits: cores, memory, slots; work ahead; nodes kept free for larger tasks."""

import pytest


def test_a_lease_reserves_no_more_than_the_node_has(bench):
    bench.node(slots=4, cores=4).job("wide", 10, requires={"cores": 2})
    assert sum(lease.reserved for lease in bench.held_by("a")) == 2
    assert bench.job("j", 5).grants == [], "all four cores are taken"


def test_a_task_of_two_cores_leaves_room_for_another_of_one(bench):
    bench.node(slots=3, cores=3).job("wide", 1, requires={"cores": 2}).job("j", 10)
    assert [each.lease.job for each in bench.grants] == ["j"]
    assert [lease.reserved for lease in bench.held_by("a")] == [1, 1]


def test_memory_is_reserved(bench):
    bench.node(slots=4, memory_bytes=10_000).job("fat", 4, requires={"memory_bytes": 4_000})
    assert sum(lease.reserved for lease in bench.held_by("a")) == 2


def test_slots_cap_what_runs_whatever_the_cores(bench):
    bench.node(slots=2, cores=16).job("j", 100)
    assert sum(lease.reserved for lease in bench.held_by("a")) == 2


def test_nodes_that_do_not_match_are_left_out(bench):
    bench.node("plain").node("tagged", tags=("lab",))
    assert bench.job("j", 3, requires={"tags": ("lab",)}).granted == [("tagged", 0, 2)]


def test_a_node_without_slots_is_granted_nothing(bench):
    assert bench.node(slots=0, cores=1).job("j", 1).grants == []


@pytest.mark.parametrize("requires", [{"cores": 0}, {"memory_bytes": -5}])
def test_absurd_requirements_do_no_harm(bench, requires):
    assert len(bench.node().job("j", 1, requires=requires).grants) == 1


def test_work_is_fetched_ahead_once_its_length_is_known(bench):
    bench.node(slots=1).job("j", 1000)
    first = bench.grant
    assert (first.lease.start, first.lease.stop) == (0, 2)
    bench.done(first, 0, 1, elapsed_s=0.01)
    assert bench.granted == [("a", 2, 34)], "0.01 s of work are left: more is on its way before they are done"


def test_long_tasks_are_not_fetched_ahead(bench):
    bench.node(slots=1).job("j", 1000)
    bench.done(bench.grant, 0, 1, elapsed_s=10.0)
    assert bench.grants == []


def test_a_slot_on_a_long_task_does_not_count_as_draining_the_queue(bench):
    bench.node(slots=1).job("j", 100_000)
    lease = bench.grant.lease
    bench.done(bench.grant, 0, 1, elapsed_s=0.001)
    (ahead,) = bench.grants
    bench.now += 2
    bench.beat("a", running=[(lease.id, 1, 2.0)])
    bench.returned(ahead, (ahead.lease.start, ahead.lease.stop))
    assert bench.grants == []


def test_a_larger_task_is_not_kept_out_by_small_ones(bench):
    bench.node(slots=2, cores=2).job("small", 4)
    grants = bench.grants
    bench.job("wide", 1, requires={"cores": 2}).job("other", 20)
    seen = []
    while grants:
        grant = grants.pop(0)
        seen.append(grant.lease.job)
        for index in range(grant.lease.start, grant.lease.stop):
            bench.done(grant, index, index + 1, elapsed_s=1.0)
            grants += bench.grants
    assert seen[:2] == ["small", "wide"]


def test_a_node_is_held_for_the_wide_task_and_freed_when_another_node_takes_it(bench):
    bench.node("a", slots=2, cores=2).job("long", 1)
    bench.job("wide", 1, requires={"cores": 2}).job("late", 5)
    assert bench.grants == [], "the free slot is kept for the wide task"
    bench.node("b", slots=2, cores=2)
    assert sorted((each.node, each.lease.job) for each in bench.grants) == [("a", "late"), ("b", "wide")]


def test_no_node_is_held_for_what_takes_too_long(bench):
    bench.node(slots=2, cores=2).job("slow", 2)
    grant = bench.grant
    bench.beats(5, "a", running={"a": [(grant.lease.id, 0, 100.0), (grant.lease.id, 1, 100.0)]})
    bench.job("wide", 1, requires={"cores": 2}).job("j", 5, priority=-1)
    bench.done(grant, 0, 1, elapsed_s=100.0)
    assert [each.lease.job for each in bench.grants] == ["j"]


def test_a_changed_node_is_matched_anew(bench):
    bench.node().job("j", 1, requires={"tags": ("gpu",)})
    assert bench.grants == []
    assert bench("on_node_changed", "a", bench.info(tags=("gpu",)), True, "").granted == [("a", 0, 1)]


def test_a_node_that_does_not_accept_is_granted_nothing_until_it_does(bench):
    bench.node()("on_node_changed", "a", bench.info(), False, "disk full")
    assert bench.job("j", 1).grants == []
    assert bench.scheduler.nodes()[0].reason == "disk full"
    assert len(bench("on_node_changed", "a", bench.info(), True, "").grants) == 1


@pytest.mark.parametrize("score", [float("nan"), 0.0, -1.0, float("inf"), 1e9])
def test_an_impossible_score_counts_as_one(bench, score):
    assert len(bench.node(score=score).job("j", 1).grants) == 1


def test_faster_nodes_come_first(bench):
    bench.node("slow", score=0.5).node("fast", score=3.0).node("mid", score=1.0)
    assert bench.job("j", 1).granted == [("fast", 0, 1)]


def test_many_grants_are_spread_over_events(make_bench):
    bench = make_bench(grants_per_event=10)
    for number in range(30):
        bench.node(f"n{number}")
    assert len(bench.job("j", 1000).grants) <= 21, "10 for the inputs, 10 for the seal, and what one node may add"
    bench.after(0)
    assert len(bench.held_by("n29")) == 1


def test_a_new_class_is_matched_with_the_nodes_that_are_there_and_old_classes_go(bench):
    bench.node(tags=("t",))
    for number in range(100):
        bench.job(f"j{number}", 1, requires={"memory_bytes": number + 1})
        bench.done(bench.grant)
    assert len(bench.scheduler._books.classes) <= 66
