"""Single submits: futures, streams, cancellation, the executor adapter, asyncio."""

import asyncio
import concurrent.futures
import functools
import operator
import os
import threading
import time
import types
import warnings

import psutil
import pytest

from fallow import AsyncGrid, Closed, Future, Grid, GridExecutor, PicklingFailed
from fallow.client import stream

pytestmark = pytest.mark.slow


def double(x, *, plus=0):
    return 2 * x + plus


def test_submit(grid):
    future = grid.submit(double, 4, plus=1)
    assert isinstance(future, Future)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(60) == 9
    assert grid.submit(pow, 2, 10).result(60) == 1024
    assert grid.submit(lambda: 5).result(60) == 5


def test_many_submits_gather_into_few_pages(grid):
    futures = [grid.submit(double, i) for i in range(20_000)]
    assert [future.result(60) for future in futures] == [2 * i for i in range(20_000)]


def test_lambdas_made_anew_each_time(grid):
    futures = [grid.submit(lambda i=i: i * 3) for i in range(200)]
    assert [future.result(60) for future in futures] == [i * 3 for i in range(200)]


def test_arguments_are_taken_at_the_call(grid):
    values = [1, 2, 3]
    future = grid.submit(sum, values)
    values.append(1000)
    assert future.result(60) == 6


def told(*args, **kwargs):
    return args, kwargs


def test_calls_of_numbers_and_texts_mix_with_others(grid):
    kinds = [lambda n: n, lambda n: [n], str, lambda n: n / 3, lambda n: "é" * (n % 300), lambda n: (n, None), bytes]
    given = [(kinds[n % 7](n % 97), n % 5 == 0) for n in range(3000)]
    futures = [grid.submit(told, x, **({"flag": flag} if flag else {})) for x, flag in given]
    assert [future.result(60) for future in futures] == [((x,), {"flag": True} if flag else {}) for x, flag in given]


def test_a_burst_makes_room_for_the_thread_that_sends_it(grid, monkeypatch):
    first = grid.submit(double, 0)
    opened = first._stream
    first.result(60)
    waiting, is_held, let_go = [], threading.Event(), threading.Event()
    names = {"sleep": lambda _: waiting.append(len(opened._calls)), "monotonic": time.monotonic, "time": time.time}
    monkeypatch.setattr(stream, "time", types.SimpleNamespace(**names))
    grid._core.engine.post(lambda: (is_held.set(), let_go.wait(60)))
    assert is_held.wait(60)
    try:
        futures = [grid.submit(double, n) for n in range(3000)]
    finally:
        let_go.set()
    assert waiting == [256, 512, 1024, 2048]
    assert [each.result(60) for each in futures] == list(range(0, 6000, 2))


def test_a_call_cannot_change_the_arguments_of_others(grid):
    def keep(*args, **kwargs):
        kwargs["seen"] = args
        return kwargs

    futures = [grid.submit(keep, n) for n in range(500)]
    assert [future.result(60) for future in futures] == [{"seen": (n,)} for n in range(500)]


def test_exceptions_and_callbacks(grid):
    def fail():
        raise KeyError("nothing here")

    future = grid.submit(fail)
    with pytest.raises(KeyError, match="nothing here"):
        future.result(60)
    assert isinstance(future.exception(), KeyError)
    called = []
    other = grid.submit(double, 1)
    other.add_done_callback(lambda f: called.append(f.result()))
    assert concurrent.futures.wait([other], 60).done
    assert called == [2]


def test_as_completed_of_the_standard_library(grid):
    futures = [grid.submit(double, i) for i in range(50)]
    found = {future.result() for future in concurrent.futures.as_completed(futures, timeout=60)}
    assert found == {2 * i for i in range(50)}


def record_pid_and_sleep(path):
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    time.sleep(600)


def running(path):
    """The process that a task runs in, once it runs."""
    wait_for(path.exists)
    return psutil.Process(int(path.read_text()))


def test_cancel_stops_a_running_task(grid, tmp_path):
    future = grid.submit(record_pid_and_sleep, tmp_path / "pid")
    slot = running(tmp_path / "pid")
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(60)
    slot.wait(60)
    futures = [grid.submit(double, i) for i in range(4)]
    assert [each.result(60) for each in futures] == [0, 2, 4, 6]


def test_what_cannot_be_pickled_is_an_error_of_the_call(grid):
    import threading

    with pytest.raises(
        PicklingFailed, match="argument 0 of double, a lock, can't be pickled: .*open it in the function"
    ):
        grid.submit(double, threading.Lock())
    with pytest.raises(PicklingFailed, match="argument plus of double, a lock,"):
        grid.submit(double, 1, plus=threading.Lock())
    lock = threading.Lock()
    with pytest.raises(PicklingFailed, match=r"a call of .*can't be pickled: .*open it in the function"):
        grid.submit(lambda: lock)
    assert grid.submit(double, 1).result(60) == 2


def test_a_large_call_warns_and_names_put(grid):
    with pytest.warns(UserWarning, match=r"grid\.put"):
        assert grid.submit(len, bytes(11_000_000)).result(60) == 11_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grid.submit(len, bytes(2_000_000)).result(60) == 2_000_000


def test_calls_after_a_large_one_keep_their_order(grid):
    futures = []
    for size in (10, 3_000_000, 20, 2_000_000, 30):
        futures.append(grid.submit(len, bytes(size)))
    assert [future.result(60) for future in futures] == [10, 3_000_000, 20, 2_000_000, 30]


def test_options_of_submits(grid):
    hurried = grid.options(timeout=0.3)
    with pytest.raises(TimeoutError):
        hurried.submit(time.sleep, 60).result(60)
    assert grid.submit(double, 2).result(60) == 4


def test_urgent_calls_overtake_queued_ones(grid):
    slow = [grid.submit(time.sleep, 0.2) for _ in range(200)]
    urgent = grid.options(priority=5).submit(double, 1)
    assert urgent.result(60) == 2
    assert not slow[-1].done()
    for future in slow:
        future.cancel()


def test_the_executor_adapter(grid):
    with GridExecutor(grid) as executor:
        assert executor.submit(double, 3).result(60) == 6
        assert list(executor.map(double, [1, 2, 3])) == [2, 4, 6]
        future = executor.submit(time.sleep, 0.1)
    assert future.done()  # shutdown waits, as the standard library's does
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(double, 1)
    assert grid.submit(double, 1).result(60) == 2  # the grid is not the executor's


def test_an_executor_that_is_shut_down_without_waiting_finishes_its_tasks(grid, tmp_path):
    executor = GridExecutor(grid)
    go = tmp_path / "go"
    futures = [executor.submit(wait_for, go.exists) for _ in range(4)]
    executor.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    go.touch()
    assert [future.result(60) for future in futures] == [None] * 4


def test_an_executor_can_cancel_what_is_left_running_tasks_too(grid, tmp_path):
    executor = GridExecutor(grid)
    futures = [executor.submit(record_pid_and_sleep, tmp_path / "pid")]
    slot = running(tmp_path / "pid")
    futures += [executor.submit(time.sleep, 600) for _ in range(8)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    slot.wait(60)


def test_the_timeout_of_an_executors_map_counts_from_the_call(grid, tmp_path):
    go = tmp_path / "go"
    results = GridExecutor(grid).map(wait_for, [go.exists], timeout=0.01)
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 0.01)
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        next(results)
    go.touch()


def test_the_async_face():
    async def main():
        async with AsyncGrid(slots=2) as grid:
            assert await grid.submit(double, 4) == 8
            assert await grid.map(double, range(5)) == [0, 2, 4, 6, 8]
            assert [value async for value in grid.filter(lambda x: x % 2, range(6))] == [1, 3, 5]
            assert await grid.reduce(operator.add, grid.map(double, range(100))) == 9900
            assert sorted([pair async for pair in grid.map(double, range(3)).as_completed()]) == [
                (0, 0),
                (1, 2),
                (2, 4),
            ]
            ref = await grid.put([1, 2, 3])
            assert await grid.submit(sum, ref) == 6
            results = await asyncio.gather(*(grid.submit(double, i) for i in range(100)))
            assert results == [2 * i for i in range(100)]
            with pytest.raises(ZeroDivisionError):
                await grid.submit(operator.truediv, 1, 0)
            job = grid.map(double, range(10))
            assert await job.wait(60)
            assert (await job.progress()).settled == 10
            assert [node.info.slots for node in await grid.nodes()] == [2]
            hurried = grid.options(timeout=0.2)
            with pytest.raises(TimeoutError):
                await hurried.submit(time.sleep, 60)
            with pytest.raises(TimeoutError):
                await hurried.map(time.sleep, [60])
            assert await hurried.options(timeout=None).submit(double, 2) == 4

    asyncio.run(main())


def test_a_closed_grid_says_so(no_orphans):
    grid = Grid(slots=1)
    assert grid.submit(double, 1).result(60) == 2
    pending = grid.submit(time.sleep, 60)
    grid.close()
    grid.close()
    with pytest.raises(Closed):
        grid.submit(double, 1)
    with pytest.raises(Closed):
        grid.map(double, [1])
    with pytest.raises(Closed):
        pending.result(60)


def test_partial_functions_and_methods(grid):
    assert grid.submit(functools.partial(double, plus=5), 1).result(60) == 7
    assert grid.submit("a-b".split, "-").result(60) == ["a", "b"]


def test_slots_run_in_other_processes(grid):
    pids = {grid.submit(os.getpid).result(60) for _ in range(4)}
    assert os.getpid() not in pids


def wait_for(condition, deadline_s=60.0):
    import threading

    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        threading.Event().wait(0.01)
