from random import Random

import pytest

from fallow.scheduler.estimate import Pace, TaskTimes


def test_nothing_is_known_at_first():
    times = TaskTimes()
    assert times.mean is None
    assert times.usual is None
    assert times.saved_by_copy(1.0, there=1.0, here=9.0, rest_s=0.0) == 0.0


def test_the_mean_is_by_task_in_reference_seconds():
    times = TaskTimes()
    times.add(10, 1.0, 2.0)
    assert times.mean == pytest.approx(0.2)
    assert times.measured == 10
    assert times.largest == pytest.approx(0.2)


def test_a_slow_first_call_is_soon_outweighed():
    times = TaskTimes()
    times.add(4, 0.8, 1.0)
    for tasks in (64, 1000, 16000):
        times.add(tasks, tasks * 1e-6, 1.0)
    assert times.mean < 1e-4


def test_old_pages_fade():
    times = TaskTimes()
    for seconds in [1.0] * 200 + [3.0] * 200:
        times.add(1, seconds, 1.0)
    assert times.mean == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("elapsed_s", [float("nan"), float("inf"), -1.0])
def test_times_that_can_not_be_are_ignored(elapsed_s):
    times = TaskTimes()
    times.add(1, elapsed_s, 1.0)
    assert times.mean is None


@pytest.fixture
def equal():
    """Tasks that all take 1 s."""
    times = TaskTimes()
    for _ in range(1000):
        times.add(1, 1.0, 1.0)
    return times


def test_a_second_attempt_at_a_task_like_all_others_pays_only_on_a_much_faster_node(equal):
    assert equal.saved_by_copy(0.5, there=1.0, here=1.0, rest_s=0.0) < 0.01
    assert equal.saved_by_copy(0.5, there=1.0, here=4.0, rest_s=0.0) == pytest.approx(0.25, rel=0.01)


def test_what_lasts_longer_than_all_others_may_be_slow_for_its_node(equal):
    assert equal.saved_by_copy(3.0, there=1.0, here=1.0, rest_s=0.0) == pytest.approx(2.0), "as long again, or 1 s anew"


def test_a_task_that_is_long_already_is_expected_to_be_very_long():
    times = TaskTimes()
    for seconds in (1.0, 1.0, 1.0, 8.0, 64.0):
        times.add(1, seconds, 1.0)
    early, late = (times.saved_by_copy(work, there=1.0, here=3.5, rest_s=0.0) for work in (0.5, 10.0))
    assert late > early > 0


def test_only_what_is_saved_after_all_else_is_done_counts():
    times = TaskTimes()
    for seconds in (1.0, 1.0, 1.0, 8.0, 64.0):
        times.add(1, seconds, 1.0)
    saved = [times.saved_by_copy(10.0, there=1.0, here=4.0, rest_s=rest_s) for rest_s in (0.0, 16.0, 30.0, 100.0)]
    assert saved == sorted(saved, reverse=True)
    assert saved[1] > saved[2] > saved[3] == 0.0


def test_what_is_left_is_expected_from_all_that_was_measured():
    times = TaskTimes()
    for seconds in [1.0] * 200 + [3.0] * 200:
        times.add(1, seconds, 1.0)
    assert times.left(10) == pytest.approx(20.0)


def test_a_running_task_tells_that_the_mean_is_too_low():
    times = TaskTimes()
    times.note_running(7, 0.0)
    assert times.mean is None, "it has just begun"
    times.note_running(7, 5.0)
    assert times.mean == 5.0, "nothing is measured yet, but it is at least this"
    times.note_running(7, 9.0)
    assert times.mean == 9.0
    times.add(99, 0.099, 1.0)
    assert times.mean == pytest.approx(0.091, rel=0.01)
    times.note_running(8, 0.01)
    times.note_settled(0, 8)
    assert times.mean == pytest.approx(0.001)
    times.note_settled(0, 8)


def test_a_nodes_pace_starts_at_its_score_and_follows_what_is_measured():
    pace = Pace()
    assert pace.factor == 1.0
    for _ in range(100):
        pace.add(1, 2.0)
    assert 0.5 < pace.factor < 0.65


def test_one_long_task_does_not_mark_a_slow_node():
    pace = Pace()
    pace.add(1, 1000.0)
    assert pace.factor > 0.8


def test_a_few_long_tasks_do_not_make_those_who_had_none_look_fast():
    times, pace, random = TaskTimes(), Pace(), Random(1)
    for _ in range(1000):
        seconds, usual = random.paretovariate(1.5), times.usual
        times.add(1, seconds, 1.0)
        if usual is not None:
            pace.add(1, seconds / usual)
    assert pace.factor == pytest.approx(1.0, abs=0.25)
