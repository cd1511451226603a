"""Lone calls of an embedded grid, which go past the hub: nobody may notice but by the time."""

import os
import os.path
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import psutil
import pytest
from tests.programs import slots_of, wait_until

import fallow
from fallow import Grid, TaskCrashed
from fallow.client import direct, stream


def double(x):
    return 2 * x


@pytest.fixture(scope="module")
def shared_grid():
    with Grid(slots=2) as grid:
        yield grid


@pytest.fixture
def grid(shared_grid):
    """A grid of two slots, one at least of which has loaded `double`."""
    warm(shared_grid, double, 1)
    return shared_grid


def stays_direct(future):
    """Whether it was not sent the usual way, at once or after all."""
    return future._index >= direct.FIRST_INDEX


def goes_directly(future):
    future.result(60)
    return stays_direct(future)


def told(path, text=""):
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


def tell_and_wait(path, go):
    told(path, str(os.getpid()))
    while not go.exists():
        time.sleep(0.005)
    return str(path)


def test_lone_calls_go_past_the_hub(grid):
    futures = []
    for n in range(50):
        futures.append(grid.submit(double, n))
        assert futures[-1].result(60) == 2 * n
    assert all(stays_direct(each) for each in futures)


def test_more_calls_than_slots_do_not(grid, tmp_path):
    go = tmp_path / "go"
    go.touch()
    warm(grid, tell_and_wait, tmp_path / "warm", go)
    go.unlink()
    busy = [grid.submit(tell_and_wait, tmp_path / name, go) for name in ("first", "second")]
    more = [grid.submit(tell_and_wait, tmp_path / str(n), go) for n in range(100)]  # several of them at a time
    assert not any(stays_direct(each) for each in more)
    go.touch()
    names = ("first", "second", *range(100))
    assert [each.result(60) for each in (*busy, *more)] == [str(tmp_path / str(name)) for name in names]


def test_a_durable_grid_and_calls_that_ask_for_something_go_through_the_hub(tmp_path, grid):
    asking = grid.options(timeout=60)
    for _ in range(5):
        assert not goes_directly(asking.submit(double, 1))
    with Grid(state=tmp_path, slots=1) as durable:
        for _ in range(5):
            assert not goes_directly(durable.submit(double, 1))


def fail(x):
    if x:
        raise KeyError(x)


def warm(grid, function, *args):
    """Call until calls of the function go directly."""
    wait_until(lambda: goes_directly(grid.submit(function, *args)), "a call that goes directly")


def test_an_exception_has_its_type_and_the_remote_traceback(grid):
    warm(grid, fail, 0)
    future = grid.submit(fail, "nothing here")
    with pytest.raises(KeyError, match="nothing here") as caught:
        future.result(60)
    assert stays_direct(future)
    assert "raise KeyError(x)" in str(caught.value.__cause__)


def zeros(count):
    return np.zeros(count)


def test_large_results_come_whole_and_leave_no_file(grid):
    warm(grid, zeros, 1)
    future = grid.submit(zeros, 4_000_000)
    assert future.result(60).shape == (4_000_000,)
    assert stays_direct(future)
    slots = wait_until(lambda: len(found := slots_of(psutil.Process())) == 2 and found, "both slots")
    assert [os.listdir(process.cmdline()[4]) for process in slots] == [[], []]


def unpicklable(x):
    return threading.Lock() if x else None


def test_a_result_that_cannot_be_pickled_fails_its_call_alone(grid):
    warm(grid, unpicklable, 0)
    future = grid.submit(unpicklable, 1)
    assert future.exception(60) is not None
    assert stays_direct(future)
    assert goes_directly(grid.submit(double, 1))


def note_and_die(path):
    if path is not None:
        with open(path, "ab") as file:
            file.write(b"x")
        os._exit(5)


def test_a_call_that_ends_its_slot_is_retried_as_any_other(grid, tmp_path):
    warm(grid, note_and_die, None)
    future = grid.submit(note_and_die, tmp_path / "tries")
    with pytest.raises(TaskCrashed, match="exit code 5"):
        future.result(60)
    assert not stays_direct(future)
    assert len((tmp_path / "tries").read_bytes()) == 5  # once directly, and max_retries=3 means four times
    assert grid.submit(double, 4).result(60) == 8


def die_once(path):
    if path is not None and not path.exists():
        path.touch()
        os._exit(5)
    return 7


def test_a_call_whose_slot_dies_under_it_runs_again(grid, tmp_path):
    warm(grid, die_once, None)
    assert grid.submit(die_once, tmp_path / "died").result(60) == 7


def test_a_running_call_can_be_cancelled_and_others_go_on(grid, tmp_path):
    go = tmp_path / "go"
    go.touch()
    warm(grid, tell_and_wait, tmp_path / "warm", go)
    go.unlink()
    first = grid.submit(tell_and_wait, tmp_path / "first", go)
    second = grid.submit(tell_and_wait, tmp_path / "second", go)
    for path in (tmp_path / "first", tmp_path / "second"):
        wait_until(path.exists)
    slots = [psutil.Process(int((tmp_path / name).read_text())) for name in ("first", "second")]
    assert first.cancel()
    slots[0].wait(60)
    assert slots[1].is_running()
    go.touch()
    assert second.result(60) == str(tmp_path / "second")
    assert grid.submit(double, 2).result(60) == 4


def test_a_call_that_its_slot_has_not_begun_when_it_is_cut_goes_the_usual_way(grid, monkeypatch):
    for limit in ("EARLY_TASK_S", "EARLY_SLOWEST_S"):  # the next task is sent early, however slow this machine is
        monkeypatch.setattr(f"fallow.node.batch_sizer.{limit}", 10)
    for future in [grid.submit(double, n) for n in range(100)]:
        future.result(60)
    slots = list(grid._core.direct.pool)
    for _ in range(20):
        for slot in slots:
            os.kill(slot.process.pid, signal.SIGSTOP)
        futures = [grid.submit(double, n) for n in range(10)]
        try:
            wait_until(lambda: any(slot.is_cut for slot in slots), "a slot that holds tasks up")
        finally:
            for slot in slots:
                os.kill(slot.process.pid, signal.SIGCONT)
        assert [each.result(60) for each in futures] == list(range(0, 20, 2))


def test_cancelling_a_task_of_the_same_function_leaves_a_direct_call_alone(grid, tmp_path):
    go = tmp_path / "go"
    go.touch()
    warm(grid, tell_and_wait, tmp_path / "warm", go)
    go.unlink()
    alone = grid.submit(tell_and_wait, tmp_path / "alone", go)
    wait_until((tmp_path / "alone").exists)
    rest = [grid.submit(tell_and_wait, tmp_path / str(n), go) for n in range(6)]
    for each in rest:
        assert each.cancel()
    go.touch()
    assert alone.result(60) == str(tmp_path / "alone")
    assert stays_direct(alone)


def test_a_map_gets_the_other_slot_while_a_direct_call_runs(grid, tmp_path):
    go = tmp_path / "go"
    go.touch()
    warm(grid, tell_and_wait, tmp_path / "warm", go)
    go.unlink()
    long = grid.submit(tell_and_wait, tmp_path / "long", go)
    wait_until((tmp_path / "long").exists)
    assert list(grid.map(double, range(1000))) == list(range(0, 2000, 2))
    both = grid.map(double, range(2), requires={"cores": 2})
    assert both.progress.settled == 0
    go.touch()
    assert list(both) == [0, 2]
    assert long.result(60) == str(tmp_path / "long")


def test_calls_of_many_threads(grid):
    def calls(seed):
        return [grid.submit(double, seed + n).result(60) for n in range(200)]

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(calls, range(6)))
    assert found == [[2 * (seed + n) for n in range(200)] for seed in range(6)]


def test_the_waits_and_callbacks_of_the_standard_library(grid):
    called = []
    for n in range(20):
        future = grid.submit(double, n)
        future.add_done_callback(lambda future: called.append(future.result()))
        assert wait([future], 60).done == {future}
    assert called == list(range(0, 40, 2))


def test_a_grid_that_closes_fails_the_call_that_runs(tmp_path, no_orphans):
    go = tmp_path / "go"
    go.touch()
    with Grid(slots=1) as grid:
        warm(grid, tell_and_wait, tmp_path / "warm", go)
        go.unlink()
        future = grid.submit(tell_and_wait, tmp_path / "long", go)
        wait_until((tmp_path / "long").exists)
        assert stays_direct(future)
    assert "closed" in str(future.exception(60))


def test_a_call_that_ends_while_it_is_cancelled_leaves_nothing_behind(grid, tmp_path):
    go = tmp_path / "go"
    go.touch()
    warm(grid, tell_and_wait, tmp_path / "warm", go)
    future = grid.submit(tell_and_wait, tmp_path / "ended", go)
    opened = future._stream
    assert goes_directly(future)
    opened.cancel_task(future._index)  # as `cancel` does when the result comes at that moment
    go.unlink()
    busy = [grid.submit(tell_and_wait, tmp_path / str(n), go) for n in range(2)]
    for n in range(2):
        wait_until((tmp_path / str(n)).exists)
    waiting = grid.submit(tell_and_wait, tmp_path / "waiting", go)
    assert waiting.cancel()
    wait_until(lambda: not opened._cancelled, "the hub to be told")
    go.touch()
    assert [each.result(60) for each in busy] == [str(tmp_path / str(n)) for n in range(2)]


def meddle(x):
    if x:
        from fallow.slot import main

        def write(slot, *_):
            return os.path.join(slot._results_folder, "nowhere")

        main.Slot._write_file = write
        return b"x" * 3_000_000
    return None


def test_a_large_result_whose_file_is_gone_is_an_error_not_a_wait(grid):
    warm(grid, meddle, 0)
    assert grid.submit(meddle, 1).exception(60) is not None
    for slot in slots_of(psutil.Process()):
        slot.kill()  # what was meddled with serves no other test


def test_a_stream_in_use_is_not_sealed(grid, monkeypatch):
    warm(grid, pow, 2, 3)
    [opened] = [each for (_, each) in grid._streams._streams.values() if each._name == "pow"]

    async def look():
        opened._seal_if_idle()

    grid._core.engine.run(look())
    assert not opened.is_sealed
    monkeypatch.setattr(stream, "IDLE_S", -1.0)
    grid._core.engine.run(look())
    assert opened.is_sealed
    assert grid.submit(pow, 2, 10).result(60) == 1024


def test_the_caller_itself_writes_to_the_slot_of_the_call_before(grid, monkeypatch):
    posted = []
    warm(grid, double, 1)
    future = grid.submit(double, 1)
    opened = future._stream
    future.result(60)
    post = opened._run_directly
    monkeypatch.setattr(opened, "_run_directly", lambda *call: (posted.append(call), post(*call)))
    for n in range(20):
        assert grid.submit(double, n).result(60) == 2 * n
    lent = len(posted)
    assert lent < 5  # jobs of other tests may just be going, and each takes the slots back
    assert list(grid.map(double, range(1000))) == list(range(0, 2000, 2))  # takes the slot back
    for n in range(20):
        assert grid.submit(double, n).result(60) == 2 * n
    assert lent < len(posted) < lent + 5


def test_slots_on_loan_serve_whatever_comes(grid):
    for n in range(3):
        for function in (double, abs, len, sum):  # each leaves a slot lent to its own job
            warm(grid, function, 1 if function in (double, abs) else [1, 2])
        both = grid.map(double, range(n + 1), requires={"cores": 2})
        assert list(both) == [2 * i for i in range(n + 1)]


def test_a_slot_on_loan_that_dies_is_no_loss(grid):
    for _ in range(10):
        warm(grid, os.getpid)
        slot = psutil.Process(grid.submit(os.getpid).result(60))
        slot.kill()
        assert grid.submit(os.getpid).result(60) > 0  # written to it, or to another
    assert grid.submit(double, 3).result(60) == 6


def test_lone_calls_maps_cancellations_and_deaths_at_once(grid, tmp_path):
    def calls(seed):
        return [grid.submit(double, seed + n).result(120) for n in range(300)]

    def maps(_):
        return [list(grid.map(double, range(n))) for n in range(1, 40)]

    def cancels():
        for _ in range(300):
            grid.submit(double, 1).cancel()

    def deaths():
        for n in range(5):
            assert grid.submit(die_once, tmp_path / str(n)).result(120) == 7

    with ThreadPoolExecutor(6) as threads:
        endless = threads.submit(cancels)
        killing = threads.submit(deaths)
        mapped = threads.submit(maps, 0)
        found = list(threads.map(calls, range(3)))
        assert found == [[2 * (seed + n) for n in range(300)] for seed in range(3)]
        assert mapped.result(120) == [list(range(0, 2 * n, 2)) for n in range(1, 40)]
        assert killing.result(120) is None
        assert endless.result(120) is None


def halves(path):
    if path is None:
        return None
    saved = fallow.checkpoint() / "state"
    if not saved.exists():
        saved.write_text(str(path))
        fallow.save_checkpoint()
        os._exit(5)
    return saved.read_text(), sorted(each.name for each in saved.parent.iterdir())


def test_a_call_whose_slot_dies_goes_on_from_its_checkpoint(grid, tmp_path):
    for n in range(3):
        warm(grid, halves, None)
        future = grid.submit(halves, tmp_path / str(n))
        assert future.result(60) == (str(tmp_path / str(n)), ["state"])
        assert not stays_direct(future)


def leave(path):
    if path is not None:
        (fallow.checkpoint() / "state").write_text("left")
        fallow.save_checkpoint()
    return path


def test_the_checkpoint_of_a_call_that_ends_is_forgotten(grid, tmp_path):
    warm(grid, leave, None)
    assert grid.submit(leave, tmp_path).result(60) == tmp_path
    assert goes_directly(grid.submit(leave, tmp_path))
    checkpoints = grid._core.direct._checkpoints
    wait_until(lambda: not checkpoints._tasks and not any(checkpoints._latest.values()), "checkpoints to be forgotten")
