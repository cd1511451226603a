import pytest

from fallow.scheduler.estimate import Pace, TaskTimes


def test_nothing_is_known_at_first():
    times = TaskTimes()
    assert times.mean is None
    assert times.total_given(1.0) is None


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


def test_what_to_expect_of_a_task_that_runs_long_already():
    times = TaskTimes()
    for seconds in (1.0, 1.0, 1.0, 8.0, 64.0):
        times.add(1, seconds, 1.0)
    assert times.total_given(0.5) == pytest.approx(15.0)
    assert times.total_given(2.0) == pytest.approx(36.0)
    assert times.total_given(10.0) == pytest.approx(64.0)
    assert times.total_given(64.0) is None


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
    assert pace.factor(1.0) == 1.0
    for _ in range(100):
        pace.add(1.0, 2.0)
    assert 0.5 < pace.factor(1.0) < 0.65


def test_one_long_task_does_not_mark_a_slow_node():
    pace = Pace()
    pace.add(1.0, 1000.0)
    assert pace.factor(1.0) > 0.6
