"""The design's rules on jobs and their lives that the other files here do not cover, one test each."""

import itertools
import logging
import threading
import time

import pytest

from fallow import Grid, InputEnded
from fallow.client import readers, stream
from fallow.client.session import ClientSession
from fallow.model.job import ResultsOf

pytestmark = pytest.mark.slow


def square(x):
    return x * x


def wait_for(condition, what=lambda: "", deadline_s=60.0):
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        threading.Event().wait(0.01)
    return found


def test_a_chain_made_before_its_job_starts_is_one_job(grid, monkeypatch):
    monkeypatch.setattr("fallow.client.job.START_DELAY_S", 60)  # on a busy machine 2 ms can pass between two calls
    before = {info.spec.id for info in grid.jobs()}
    job = grid.map(square, range(100)).filter(lambda x: x % 2).map(str)
    assert job.result(60) == [str(x * x) for x in range(100) if x % 2]
    fresh = [info for info in grid.jobs() if info.spec.id not in before]
    assert [info.spec.stages for info in fresh] == [("map", "filter", "map")]


def test_a_job_starts_by_itself(grid):
    job = grid.map(square, range(10))
    wait_for(lambda: job._started)  # nobody demands it
    wait_for(lambda: job.progress.state == "done")


def test_one_function_has_one_open_job_per_set_of_options(grid):
    before = {info.spec.id for info in grid.jobs()}
    futures = [grid.submit(square, i) for i in range(50)]
    futures += [grid.options(priority=3).submit(square, i) for i in range(50)]
    assert [future.result(60) for future in futures] == [i * i for i in range(50)] * 2
    fresh = [info.spec for info in grid.jobs() if info.spec.id not in before]
    assert sorted(spec.priority for spec in fresh) == [0, 3]
    assert {spec.stages for spec in fresh} == {("call",)}


def test_a_lambda_that_is_submitted_again_has_one_open_job():
    negate = lambda x: -x  # noqa: E731 -- the same object each time
    with Grid(slots=2) as grid:
        asking = grid.options(timeout=600)  # else those that come while a slot is idle go past the hub
        futures = [asking.submit(negate, i) for i in range(50)]
        assert [future.result(60) for future in futures] == [-i for i in range(50)]
        found = [(info.spec.stages, info.progress.accepted) for info in grid.jobs()]
    assert sorted(found) == [(("apply",), 1), (("call",), 49)]  # the first might have been the only one


def test_the_inputs_of_a_later_chain_are_its_parents_results(grid):
    parent = grid.map(square, range(10))
    assert parent.wait(60)
    child = parent.map(str)
    assert child.result(60) == [str(x * x) for x in range(10)]
    assert child.info().spec.inputs == ResultsOf(parent.id)


def test_threads_are_woken_once_for_each_page(grid):
    pages, woken = [], []
    job = grid.map(square, range(20_000))
    job._demand()
    state = job._state
    job.wait(60)
    on_pages = readers.OrderedReader.on_pages
    notify_all = state.condition.notify_all

    class Reader(readers.OrderedReader):
        def on_pages(self, found, blobs):
            before = len(woken)
            on_pages(self, found, blobs)
            pages.append((len(found), len(woken) - before))

    state.condition.notify_all = lambda: woken.append(1) or notify_all()
    assert [value for chunk in job._chunks(Reader, return_exceptions=False, deadline=None) for value in chunk] == [
        x * x for x in range(20_000)
    ]
    assert pages
    assert {count for _, count in pages} == {1}


def test_functions_without_a_name_share_one_job(grid):
    before = {info.spec.id for info in grid.jobs()}
    futures = [grid.submit(lambda i=i: i) for i in range(20)]
    assert [future.result(60) for future in futures] == list(range(20))
    assert [info.spec.stages for info in grid.jobs() if info.spec.id not in before] == [("apply",)]


@pytest.fixture
def seals(monkeypatch):
    """The sizes at which streams are sealed, as they are."""
    sizes = []
    seal = ClientSession.seal

    def recording(self, feed, size):
        sizes.append(size)
        seal(self, feed, size)

    monkeypatch.setattr(ClientSession, "seal", recording)
    return sizes


def test_streams_end_at_a_million_tasks_or_after_a_minute():
    assert (stream.MAX_TASKS, stream.IDLE_S) == (1_000_000, 60.0)


def test_a_stream_is_sealed_when_it_is_full(monkeypatch, seals):
    monkeypatch.setattr(stream, "MAX_TASKS", 100)
    with Grid(slots=2) as grid:
        asking = grid.options(timeout=600)  # else those that come while a slot is idle go past the hub
        futures = [asking.submit(square, i) for i in range(250)]
        assert [future.result(60) for future in futures] == [i * i for i in range(250)]
        wait_for(lambda: len(seals) == 2, lambda: seals)
        assert seals == [100, 100]


def test_the_seal_of_a_full_stream_follows_a_page_that_is_being_uploaded(monkeypatch, seals):
    monkeypatch.setattr(stream, "MAX_TASKS", 3)
    ends = []
    add_input = ClientSession.add_input

    def recording(self, feed, page):
        ends.append((page.stop, len(seals)))
        add_input(self, feed, page)

    monkeypatch.setattr(ClientSession, "add_input", recording)
    with Grid(slots=2) as grid:
        futures = [grid.submit(len, bytes(2_000_000)) for _ in range(3)]
        assert [future.result(60) for future in futures] == [2_000_000] * 3
        wait_for(lambda: not grid.jobs(), grid.jobs)
    assert seals == [3]
    assert ends == [(1, 0), (2, 0), (3, 0)]


def test_a_stream_is_sealed_when_it_is_idle_and_its_job_goes(monkeypatch, seals):
    monkeypatch.setattr(stream, "IDLE_S", 0.05)
    with Grid(slots=2) as grid:
        assert grid.submit(square, 3).result(60) == 9
        wait_for(lambda: not grid.jobs(), grid.jobs)
        assert grid.submit(square, 4).result(60) == 16
        wait_for(lambda: not grid.jobs(), grid.jobs)
    assert seals == [1, 1]


def test_the_job_of_a_sealed_stream_goes_when_its_last_future_is_cancelled(monkeypatch):
    monkeypatch.setattr(stream, "IDLE_S", 0.05)
    with Grid(slots=2) as grid:
        future = grid.submit(time.sleep, 600)
        wait_for(lambda: any(info.progress.size == 1 for info in grid.jobs()), grid.jobs)
        assert future.cancel()
        wait_for(lambda: not grid.jobs(), grid.jobs)


def test_an_iterator_whose_client_leaves_ends_early_for_its_readers(tmp_path):
    with Grid(state=tmp_path, slots=2) as grid:
        job = grid.map(square, itertools.count(), name="endless")
        wait_for(lambda: job.progress.settled > 10, lambda: job.progress)
    with Grid(state=tmp_path, slots=2) as grid:
        job = grid.job("endless")
        seen = []
        with pytest.raises(InputEnded, match="went away after"):
            for value in job:
                seen.append(value)
        assert seen == [x * x for x in range(len(seen))]
        assert len(seen) == job.progress.accepted > 10
        assert job.progress.input_ended


def test_a_job_waiting_for_a_node_that_never_comes_says_why(grid, caplog):
    job = grid.map(square, range(3), requires={"python": "3.99"})
    job._demand()
    with caplog.at_level(logging.WARNING, logger="fallow"):
        wait_for(lambda: any("3.99" in record.getMessage() for record in caplog.records), lambda: caplog.text)
    job.cancel()


def test_a_call_waiting_for_a_python_that_no_node_has_says_why(grid, caplog):
    with caplog.at_level(logging.WARNING, logger="fallow"):
        future = grid.options(requires={"python": "3.99"}).submit(square, 1)
        wait_for(
            lambda: any("square is waiting" in record.getMessage() for record in caplog.records), lambda: caplog.text
        )
    assert "3.99" in caplog.text
    assert future.cancel()


def test_results_of_a_job_can_be_read_by_many_threads(grid):
    job = grid.map(square, range(5000))
    found = []
    threads = [threading.Thread(target=lambda: found.append(sum(job))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [sum(x * x for x in range(5000))] * 4


def test_more_results_than_a_readers_credit(grid, monkeypatch):
    monkeypatch.setattr(readers, "CREDIT_BYTES", 100_000)
    monkeypatch.setattr("fallow.client.job.CREDIT_BYTES", 100_000)
    job = grid.map(lambda x: bytes(10_000) + bytes([x % 256]), range(300))
    assert [value[-1] for value in job] == [x % 256 for x in range(300)]
    assert sorted(index for index, _ in job.as_completed()) == list(range(300))


def test_the_same_blob_again_after_its_job_is_gone(grid):
    data = bytes(range(256)) * 8000
    for _ in range(3):
        assert grid.map(len, [data]).result(60) == [len(data)]
    ref = grid.put(data)
    assert grid.submit(len, ref).result(60) == len(data)


class Gate:
    """A job's lock that lets the engine's thread wait at it."""

    def __init__(self, lock):
        self.lock = lock
        self.arrived, self.go = threading.Event(), threading.Event()

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            self.arrived.set()
            self.go.wait(60)
        return self.lock.__enter__()

    def __exit__(self, *error):
        return self.lock.__exit__(*error)


def test_a_job_whose_stages_are_taken_just_as_it_starts_by_itself_does_not_run_too(monkeypatch):
    """Or all of its tasks would be executed twice."""
    monkeypatch.setattr("fallow.client.job.START_DELAY_S", 60)
    with Grid(slots=1) as grid:
        first = grid.map(abs, range(3))
        gate = first._lock = Gate(first._lock)
        grid._core.engine.post(lambda: first._demand(unasked=True))  # the delay is over
        assert gate.arrived.wait(60)
        chained = first.filter(bool)
        gate.go.set()
        assert list(chained) == [1, 2]
        assert [info.spec.function_name for info in grid.jobs()] == ["map(abs).filter(bool)"]
