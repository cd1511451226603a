"""What users do with maps, on real slots."""

import functools
import itertools
import operator
import threading
import time

import pytest

from fallow import BadRequest, Grid, JobCancelled, PicklingFailed, Ref, TaskCrashed, TaskTimeout, TooLarge
from fallow.client.session import ClientSession

pytestmark = pytest.mark.slow


def square(x):
    return x * x


def is_even(x):
    return x % 2 == 0


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(other) is Point and (self.x, self.y) == (other.x, other.y)

    def __hash__(self):
        return hash((self.x, self.y))


def mirror(point):
    assert type(point) is Point
    return Point(point.y, point.x)


class OwnError(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


def test_map_in_order_over_every_kind_of_iterable(grid):
    expected = [x * x for x in range(1000)]
    assert list(grid.map(square, range(1000))) == expected
    assert list(grid.map(square, list(range(1000)))) == expected
    assert list(grid.map(square, (x for x in range(1000)))) == expected
    assert list(grid.map(square, range(10, 0, -3))) == [100, 49, 16, 1]
    assert list(grid.map(square, [])) == []
    assert list(grid.map(square, range(0))) == []
    assert list(grid.map(square, iter(()))) == []
    assert sorted(grid.map(square, {1, 2, 3})) == [1, 4, 9]


def test_several_iterables_and_starmap(grid):
    assert list(grid.map(pow, [2, 3, 4], [5, 2])) == [32, 9]
    assert list(grid.map(pow, itertools.count(1), [2, 2])) == [1, 4]
    assert list(grid.starmap(pow, [(2, 5), (3, 2)])) == [32, 9]


def test_a_named_fold_that_is_attached_to_gives_its_parts(grid):
    assert grid.reduce(operator.add, range(10_000), name="fold") == sum(range(10_000))
    attached = grid.job("fold")
    parts = dict(attached.as_completed())
    assert sum(parts.values()) == sum(range(10_000))
    assert min(parts) == 0
    assert [parts[index] for index in sorted(parts)] == attached.result()
    attached.delete()


@pytest.mark.parametrize("progress", [False, True])
def test_a_wait_that_was_too_short_says_how_long_it_was(progress):
    with Grid(slots=1, progress=progress) as grid:
        job = grid.map(time.sleep, [0, 60])
        with pytest.raises(TimeoutError, match=r"not all results within 1\.5 s"):
            job.result(timeout=1.5)
        with pytest.raises(TimeoutError, match=r"not all results within 0\.01 s"):
            list(job.results(timeout=0.01))


def test_filter_and_reduce(grid):
    assert list(grid.filter(is_even, range(100))) == list(range(0, 100, 2))
    assert grid.reduce(operator.add, range(10_000)) == sum(range(10_000))
    assert grid.reduce(operator.add, range(10), 100) == 145
    assert grid.reduce(operator.add, range(10), initial=100) == 145
    assert grid.map(abs, range(10)).reduce(operator.add, initial=100) == 145
    assert grid.reduce(operator.add, ["a", "b", "c"]) == "abc"
    assert grid.reduce(operator.add, [], "start") == "start"
    with pytest.raises(TypeError):
        grid.reduce(operator.add, [])


def test_chains_are_fused_and_associate_in_order(grid):
    job = grid.map(square, range(1000)).filter(is_even)
    assert list(job.map(str)) == [str(x * x) for x in range(1000) if x % 2 == 0]
    text = grid.map(str, range(200)).reduce(operator.add)
    assert text == "".join(map(str, range(200)))


def test_a_chain_onto_a_job_that_has_started_goes_on_from_its_results(grid):
    parent = grid.map(square, range(500))
    assert parent.wait(60)
    child = parent.filter(is_even).map(lambda x: x + 1)
    assert list(child) == [x * x + 1 for x in range(500) if x % 2 == 0]
    assert list(parent) == [x * x for x in range(500)]
    assert grid.reduce(operator.add, parent) == sum(x * x for x in range(500))


def test_a_failure_in_a_parent_is_a_failure_of_its_child(grid):
    parent = grid.map(lambda x: 1 / (x - 3), range(6))
    assert parent.wait(60)
    found = list(parent.map(lambda x: -x).results(return_exceptions=True))
    assert [type(each).__name__ for each in found] == ["float", "float", "float", "ZeroDivisionError", "float", "float"]


def fail_below_150(x):
    if x < 150:
        raise OwnError(x, "too low")
    return x


def check_150_failures(child):
    found = child.result(60, return_exceptions=True)
    assert sorted(type(each).__name__ for each in found[:150]) == ["OwnError"] * 100 + ["TaskFailed"] * 50
    for index, error in enumerate(found[:150]):
        assert str(error) == f"({index}, 'too low')" or f"task {index} of the parent job failed" in str(error)
    assert found[150:] == [-x for x in range(150, 200)]
    assert child.wait(60)
    assert child.progress.failed == 150


def test_more_failures_in_a_parent_than_are_remembered_whole_are_all_failures_of_its_child(grid):
    parent = grid.map(fail_below_150, range(200))
    assert parent.wait(60)
    check_150_failures(parent.map(operator.neg))


def test_failures_of_a_parent_that_ended_before_a_restart_are_failures_of_its_child(tmp_path):
    with Grid(state=tmp_path, slots=2) as grid:
        assert grid.map(fail_below_150, range(200), name="parent").wait(60)
    with Grid(state=tmp_path, slots=2) as grid:
        check_150_failures(grid.job("parent").map(operator.neg))


def test_closures_lambdas_classes_and_local_modules(grid):
    factor = 7
    assert list(grid.map(lambda x: x * factor, range(3))) == [0, 7, 14]
    assert list(grid.map(mirror, [Point(1, 2)])) == [Point(2, 1)]
    assert list(grid.map(functools.partial(pow, 2), [3, 4])) == [8, 16]


def test_an_exception_keeps_its_type_and_other_tasks_go_on(grid):
    def fail(x):
        if x == 3:
            raise OwnError(x, "no threes")
        return x

    job = grid.map(fail, range(6))
    got = []
    with pytest.raises(OwnError) as caught:
        for value in job:
            got.append(value)
    assert got == [0, 1, 2]
    assert caught.value.code == 3
    assert "in fail" in str(caught.value.__cause__)
    assert "no threes" in str(caught.value.__cause__)
    found = job.result(return_exceptions=True, timeout=60)
    assert [value for value in found if not isinstance(value, OwnError)] == [0, 1, 2, 4, 5]
    assert [(index, type(error)) for index, error in job.errors()] == [(3, OwnError)]
    assert job.progress.failed == 1


def test_as_completed_yields_each_index_once(grid):
    assert sorted(grid.map(square, range(100)).as_completed()) == [(x, x * x) for x in range(100)]


def test_result_wait_progress_and_repr(grid):
    job = grid.map(square, range(100))
    assert job.result(timeout=60) == [x * x for x in range(100)]
    assert job.wait(60)
    assert (job.progress.state, job.progress.settled, job.progress.size) == ("done", 100, 100)
    assert "map(square)" in repr(job)
    assert "100 of 100" in repr(job)
    assert list(job) == list(job)


def test_two_readers_of_one_job_go_at_their_own_pace(grid):
    job = grid.map(square, range(1000))
    one, two = iter(job), iter(job)
    assert next(one) == 0
    assert list(two) == [x * x for x in range(1000)]
    assert list(one) == [x * x for x in range(1, 1000)]


def test_a_generator_is_pulled_no_further_than_a_window_ahead(grid):
    pulled = 0

    def numbers():
        nonlocal pulled
        for pulled in range(10_000_000):
            yield pulled

    results = iter(grid.map(square, numbers()))
    assert [next(results) for _ in range(10)] == [x * x for x in range(10)]
    assert pulled < 200_000
    results.close()


def test_an_endless_generator_can_be_read_and_left(grid):
    assert list(itertools.islice(grid.map(square, itertools.count()), 100_000))[-1] == 99_999**2


def test_a_generator_that_raises_ends_the_job_with_its_error(grid):
    def numbers():
        yield 1
        raise LookupError("the source broke")

    with pytest.raises(LookupError, match="the source broke"):
        list(grid.map(square, numbers()))


def test_what_cannot_be_pickled_is_named(grid):
    lock = threading.Lock()
    with pytest.raises(PicklingFailed, match="can't be pickled.*create that inside the function"):
        grid.map(lambda x: lock, range(3))
    with pytest.raises(PicklingFailed, match="input 1, a lock, can't be pickled: .*open it in the function"):
        list(grid.map(square, [1, lock]))
    with pytest.raises(Exception, match="pickle"):
        list(grid.map(lambda x: threading.Lock(), range(2)))


def test_cancel(grid):
    job = grid.map(lambda x: time.sleep(60), range(10))
    iterator = iter(job)
    threading.Timer(0.2, job.cancel).start()
    with pytest.raises(JobCancelled):
        next(iterator)
    assert grid.submit(square, 3).result(60) == 9


def test_retries(grid, tmp_path):
    def flaky(x):
        path = tmp_path / str(x)
        count = int(path.read_text()) if path.exists() else 0
        path.write_text(str(count + 1))
        if count < 2:
            raise ValueError(f"attempt {count + 1}")
        return count

    assert list(grid.map(flaky, range(4), retries=2)) == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="attempt 1"):
        list(grid.map(flaky, [10]))
    assert not [error for _, error in grid.map(flaky, [11], retries=5).errors()]


def test_timeout_kills_the_task_and_others_go_on(grid):
    def task(x):
        if x == 1:
            time.sleep(60)
        return x

    found = grid.map(task, range(4), timeout=2).result(60, return_exceptions=True)
    assert [found[0], found[2], found[3]] == [0, 2, 3]
    assert isinstance(found[1], TaskTimeout)
    assert isinstance(found[1], TimeoutError)


def test_a_slot_that_dies_costs_its_task_alone(grid):
    import os

    def task(x):
        if x == 5:
            os._exit(17)
        return x

    found = grid.map(task, range(10), max_retries=1).result(60, return_exceptions=True)
    assert [value for value in found if not isinstance(value, Exception)] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert isinstance(found[5], TaskCrashed)
    assert "17" in str(found[5])


def test_logs(grid):
    def talk(x):
        print("task", x, "speaks")
        return x

    job = grid.map(talk, range(5))
    assert job.wait(60)
    deadline = time.monotonic() + 60
    while len(job.logs()) < 5 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    texts = {entry.index: entry.text for entry in job.logs()}
    assert texts == {x: f"task {x} speaks\n" for x in range(5)}


def test_put(grid):
    table = {i: i * i for i in range(10_000)}
    ref = grid.put(table)
    assert list(grid.map(lambda x, t: t[x], [1, 2, 3], [ref] * 3)) == [1, 4, 9]
    assert list(grid.map(lambda pair: pair["t"][pair["x"]], [{"x": 9, "t": ref}])) == [81]
    assert list(grid.map(lambda x: ref_length(ref), [0])) == [10_000]
    assert grid.submit(len, ref).result(60) == 10_000


def test_an_input_that_refers_to_too_much_is_an_error_of_its_job(grid):
    many = [Ref(f"{i:064x}") for i in range(16_000)]
    with pytest.raises(TooLarge, match="input 1, a list, refers to 16000 objects"):
        list(grid.map(len, [[], many]))
    with pytest.raises(TooLarge, match="the call of len refers to 16000 objects"):
        grid.submit(len, many)
    assert grid.submit(square, 3).result(60) == 9


def test_calls_that_refer_to_much_travel_in_more_pages(grid, monkeypatch):
    monkeypatch.setattr("fallow.client.stream.MAX_PAGE_REFS", 12)
    widths = []
    add_input = ClientSession.add_input

    def recording(self, feed, page):
        widths.append(len(page.refs))
        add_input(self, feed, page)

    monkeypatch.setattr(ClientSession, "add_input", recording)
    refs = [grid.put([number]) for number in range(60)]
    futures = [grid.submit(sum, refs[at : at + 5], start=[]) for at in range(0, 60, 5)]
    assert [future.result(60) for future in futures] == [list(range(at, at + 5)) for at in range(0, 60, 5)]
    assert sum(widths) == 60
    assert max(widths) <= 12


def ref_length(table):
    return len(table)


def test_arrays_arrive_writable_and_unchanged(grid):
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full(400_000, i, dtype=numpy.float64) for i in range(4)]

    def double(array):
        array *= 2
        return array

    for i, found in enumerate(grid.map(double, arrays)):
        assert found.shape == (400_000,)
        assert (found == 2 * i).all()
        found += 1  # ours to change
    assert arrays[1][0] == 1
    shared = grid.put(arrays[3])
    assert list(grid.map(lambda x, a: float(a.sum()) + x, [0, 1], [shared] * 2)) == [1_200_000.0, 1_200_001.0]

    def write(array):
        array[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        grid.submit(write, shared).result(60)


def test_options_are_checked_at_the_call(grid):
    with pytest.raises(BadRequest, match="timeout=-1"):
        grid.map(square, range(3), timeout=-1)
    with pytest.raises(BadRequest, match="can't be iterated"):
        grid.map(square, 5)
    with pytest.raises(PicklingFailed, match="not a function"):
        grid.map(5, range(3))


def test_priorities_and_views(grid):
    urgent = grid.options(priority=10)
    assert urgent.submit(square, 4).result(60) == 16
    assert list(urgent.map(square, range(5))) == [0, 1, 4, 9, 16]


def test_requirements_that_nothing_meets_are_explained(grid):
    job = grid.map(square, range(3), requires={"memory": "900TB"})
    job._demand()
    reasons = " ".join(job.explain())
    assert "900 TB" in reasons
    job.cancel()


def test_two_core_tasks_leave_the_other_slot_idle(grid, tmp_path):
    def overlap(x):
        mine = tmp_path / f"running-{x}"
        mine.touch()
        time.sleep(0.05)
        running = len(list(tmp_path.glob("running-*")))
        mine.unlink()
        return running

    assert list(grid.map(overlap, range(6), requires={"cores": 2})) == [1] * 6


def test_a_job_needs_no_reader_to_run(grid, tmp_path):
    job = grid.map(lambda x: (tmp_path / str(x)).touch(), range(10))
    assert job.wait(60)
    assert len(list(tmp_path.iterdir())) == 10


def test_the_iterator_of_a_chained_job_can_be_read_once(grid, monkeypatch):
    monkeypatch.setattr("fallow.client.job.START_DELAY_S", 60)  # on a busy machine 2 ms can pass between two calls
    parent = grid.map(square, iter(range(5)))
    child = parent.map(str)
    assert list(child) == ["0", "1", "4", "9", "16"]
    with pytest.raises(BadRequest, match="can't be read twice"):
        list(parent)


def test_closing_with_work_in_progress_is_quick_and_leaves_nothing(no_orphans, tmp_path):
    def run(path):
        path.touch()
        time.sleep(600)

    began = 0.0
    with Grid(slots=2) as grid:
        job = grid.map(run, [tmp_path / str(number) for number in range(100)])
        job._demand()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < deadline
        assert grid.submit(square, 2) is not None
        began = time.monotonic()
    assert time.monotonic() - began < 60  # it hung, or waited for the tasks
