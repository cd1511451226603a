"""The end of a job: recall and second attempts."""

import pytest


def test_unstarted_tasks_are_recalled_for_an_idle_node(bench):
    bench.node("a", slots=1).job("j", 10)
    bench.done(bench.grant, 0, 1, elapsed_s=0.1)
    (ahead,) = bench.grants
    bench.node("b")
    (recall,) = bench.recalls
    assert recall.lease == ahead.lease.id
    assert 0 < recall.count < ahead.lease.stop - ahead.lease.start
    stop = ahead.lease.stop
    bench.returned(ahead, (stop - recall.count, stop))
    assert bench.grants[0].node == "b"


def test_one_recall_at_a_time_per_lease(bench):
    bench.node("a", slots=1).job("j", 10)
    bench.done(bench.grant, 0, 1, elapsed_s=0.1)
    assert len(bench.node("b").recalls) == 1
    assert bench.node("c").recalls == []
    bench.beats(1, "a", "b", "c")
    assert bench.recalls == []
    bench.beats(3, "a", "b", "c")
    assert len(bench.recalls) >= 1, "an answer that never came is not waited for"


def test_an_empty_answer_is_accepted(bench):
    bench.node("a", slots=1).job("j", 10)
    bench.done(bench.grant, 0, 1, elapsed_s=0.1)
    (ahead,) = bench.grants
    bench.node("b")
    assert bench.returned(ahead).effects == []


def test_what_starts_soon_is_not_recalled(bench):
    bench.node("a").job("j", 20)
    bench.done(bench.grant, 0, 1, elapsed_s=0.001)
    assert bench.node("b").recalls == []


def test_nodes_that_are_away_are_not_asked(bench):
    bench.node("a").job("j", 20)
    bench.done(bench.grant, 0, 1, elapsed_s=0.1)
    bench("on_link_closed", "a")
    assert bench.node("b").recalls == []


def measured(bench, **options):
    """A job of 1 s tasks, of which the last runs on a, b being idle."""
    bench.node("a").node("b").job("j", 6, counting=True, **options)
    grants = bench.grants
    while grants:
        grant = grants.pop(0)
        if grant.lease.stop == 6:
            bench.last = grant
            if grant.lease.stop - grant.lease.start > 1:
                bench.done(grant, grant.lease.start, 5, elapsed_s=1.0 * (5 - grant.lease.start))
                grants += bench.grants
            continue
        bench.done(grant, elapsed_s=1.0 * (grant.lease.stop - grant.lease.start))
        grants += bench.grants
    bench.slow, bench.idle = (bench.last.node, "b" if bench.last.node == "a" else "a")
    return bench


def test_a_task_that_runs_far_longer_than_all_others_is_tried_elsewhere(bench):
    measured(bench)
    assert bench.grants == []
    bench.beats(1, "a", "b")
    assert bench.grants == []
    bench.beats(3, "a", "b")
    assert bench.granted == [(bench.idle, 5, 6)]


def test_the_first_result_wins_and_the_other_attempt_is_stopped(bench):
    measured(bench).beats(4, "a", "b")
    copy = bench.grant
    bench.done(copy)
    assert bench.counts == [(5, 6)]
    assert bench.ends == [("j", "done")]
    assert bench.cancels == [(bench.slow, "j", (5, 6))]


def test_the_original_may_win(bench):
    measured(bench).beats(4, "a", "b")
    bench.done(bench.last, 5, 6)
    assert bench.ends == [("j", "done")]
    assert {node for node, _, _ in bench.cancels} == {bench.idle}


def test_a_second_attempt_holds_its_task_once_the_first_is_lost(bench):
    measured(bench).beats(4, "a", "b")
    first, copy = bench.last, bench.grant
    holds = lambda grant: bench.scheduler.holds(grant.node, grant.lease.id, "j", 5)
    assert (holds(first), holds(copy)) == (True, False)
    bench("on_link_closed", bench.slow).beats(10, bench.idle)
    assert (holds(first), holds(copy)) == (False, True)


def test_there_is_one_copy_of_a_task_at_most(bench):
    measured(bench).beats(4, "a", "b")
    assert bench.node("c").grants == []
    bench.beats(20, "a", "b", "c")
    assert bench.grants == []


def test_jobs_with_side_effects_are_not_tried_twice(bench):
    measured(bench, speculate=False).beats(20, "a", "b")
    assert bench.grants == []


def test_a_job_of_unknown_length_is_not_tried_twice(bench):
    bench.node("a").job("j", 1).node("b").beats(30, "a", "b")
    assert bench.grants == []


def test_a_copy_takes_over_when_its_original_is_lost(bench):
    measured(bench).beats(4, "a", "b")
    copy = bench.grant
    bench("on_link_closed", bench.slow)
    bench.beats(6, bench.idle)
    assert bench.grants == [], "it runs already"
    assert bench.scheduler._books.leases[copy.lease.id].original is None
    assert bench.done(copy).ends == [("j", "done")]


def test_a_lost_copy_changes_nothing(bench):
    measured(bench).beats(4, "a", "b")
    bench("on_link_closed", bench.idle).beats(6, bench.slow)
    assert bench.progress().leased == 1
    assert bench.done(bench.last, 5, 6).ends == [("j", "done")]


def test_a_failed_copy_leaves_the_original(bench):
    measured(bench, retries=1).beats(4, "a", "b")
    bench.done(bench.grant, failures=(5,))
    assert bench.counts == []
    assert bench.progress().leased == 1


def test_a_failed_original_leaves_the_copy(bench):
    measured(bench, retries=1).beats(4, "a", "b")
    copy = bench.grant
    bench.done(bench.last, 5, 6, failures=(5,))
    assert bench.counts == []
    assert bench.scheduler._books.leases[copy.lease.id].original is None, "the copy has the task now"
    assert bench.done(copy).ends == [("j", "done")]


def test_the_last_failure_of_either_settles(bench):
    measured(bench).beats(4, "a", "b")
    bench.done(bench.grant, failures=(5,))
    assert bench.ends == [("j", "done")]
    assert bench.failures[0].index == 5


def test_a_reduction_is_repeated_whole(bench):
    bench.node("a").node("b").job("j", 40, counting=True, stages=("reduce",))
    grants, last = bench.grants, None
    while grants:
        grant = grants.pop(0)
        if bench.progress().settled > 20 and last is None:
            last = grant
            continue
        bench.done(grant, elapsed_s=0.5 * (grant.lease.stop - grant.lease.start), partial=True)
        grants += bench.grants
    bench.beats(60, "a", "b")
    copy = bench.grants[-1]
    assert (copy.lease.start, copy.lease.stop) == (last.lease.start, last.lease.stop)
    bench.done(copy, partial=True)
    assert bench.ends == [("j", "done")]


def copied_before_the_tail(bench, **options):
    """A job of many tasks, of which the first ones are long and run on a slow node: return the copies that are made of them."""
    bench.node("slow", score=0.5).node("fast", score=4.0).job("j", 200, counting=True, **options)
    grants = [each for each in bench.grants if each.node == "fast"]
    copied = []
    while grants and not copied:
        grant = grants.pop(0)
        size = grant.lease.stop - grant.lease.start
        seconds = 3.0 if grant.lease.start < 10 else 0.3 * size
        bench.now += seconds
        bench.beat("slow")
        bench.done(grant, elapsed_s=seconds)
        grants += [each for each in bench.grants if each.node == "fast"]
        copied = [lease for lease in bench.scheduler._books.leases.values() if lease.original is not None]
    return copied


def test_a_long_task_on_a_slow_node_moves_before_the_tail(bench):
    copied = copied_before_the_tail(bench)
    assert copied[0].original.node.id == "slow"
    assert bench.scheduler._books.jobs["j"].pending_count > 0


def test_a_long_task_with_side_effects_stays_where_it_is(bench):
    assert copied_before_the_tail(bench, speculate=False) == []
    assert bench.progress().leased == bench.progress().accepted - bench.progress().settled > 0
    assert {lease.node.id for lease in bench.scheduler._books.leases.values()} == {"slow"}


def test_a_slow_node_takes_nothing_over_before_the_tail(bench):
    bench.node("slow", score=0.5).node("fast", score=4.0).job("j", 60, counting=True)
    grants = [each for each in bench.grants if each.node == "slow"]
    for number in range(10):
        grant = grants.pop(0)
        seconds = 9.0 if number == 0 else 0.3 * (grant.lease.stop - grant.lease.start)
        bench.now += 3.0
        bench.beat("fast")
        bench.done(grant, elapsed_s=seconds)
        grants += [each for each in bench.grants if each.node == "slow"]
    assert bench.scheduler._books.jobs["j"].pending_count > 0
    assert all(lease.original is None for lease in bench.scheduler._books.leases.values())


def test_a_late_result_ends_both_attempts(bench):
    measured(bench).beats(4, "a", "b")
    assert len(bench.grants) == 1
    bench.node("c").done(bench.last, 5, 6, node="c")
    assert bench.counts == [(5, 6)]
    assert {(node, ranges) for node, _, ranges in bench.cancels} == {("a", (5, 6)), ("b", (5, 6))}
    assert bench.ends == [("j", "done")]


def test_idle_nodes_look_less_and_less_often(bench):
    bench.node("a").job("j", 1).node("b")
    gaps, scheduler = [], bench.scheduler
    for _ in range(8):
        before = bench.now
        bench.beat("a")
        bench.beat("b")
        bench.now = scheduler._books.tick_mono
        bench("on_time")
        gaps.append(bench.now - before)
    assert gaps[0] == pytest.approx(0.25)
    assert gaps[-1] == pytest.approx(2.0)
