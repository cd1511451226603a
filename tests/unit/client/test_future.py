"""Our future behaves as the standard one, and costs little until somebody waits."""

import concurrent.futures
import pickle
import sys
import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, CancelledError, as_completed, wait

import pytest

from fallow.client.future import Future
from fallow.client.result_page import ResultValues
from fallow.model.failure import Failure
from fallow.model.page import ResultPage, StoredPage
from fallow.slot.pages import encode_list


class RecordingStream:
    def __init__(self) -> None:
        self.cancelled: list[int] = []

    def cancel_task(self, index: int) -> None:
        self.cancelled.append(index)


def page(*values: object, failures: tuple[Failure, ...] = ()) -> ResultValues:
    count = len(values) + len(failures)
    data = b"".join(encode_list(list(values)))
    return ResultValues(StoredPage(ResultPage(0, count, data, failures=failures), (0, count)), data)


def failure(index: int, error: BaseException) -> Failure:
    return Failure(index=index, kind="raised", exception=pickle.dumps(error), traceback="Traceback: remote")


def test_it_is_a_standard_future():
    assert isinstance(Future(None, 0), concurrent.futures.Future)


def test_a_result_that_came_before_anybody_waited():
    future = Future(None, 1)
    future._arrived(page(10, 20))
    assert future.done()
    assert future.result() == 20
    assert future.exception() is None
    assert not future.cancel()


def test_one_who_waits_is_woken():
    future = Future(None, 0)
    got = []
    thread = threading.Thread(target=lambda: got.append(future.result(60)))
    thread.start()
    future._arrived(page("value"))
    thread.join(60)
    assert got == ["value"]


def test_an_exception_is_raised_with_the_remote_traceback():
    future = Future(None, 1)
    future._arrived(page(1, failures=(failure(1, KeyError("k")),)))
    with pytest.raises(KeyError) as caught:
        future.result()
    assert "remote" in str(caught.value.__cause__)
    assert isinstance(future.exception(), KeyError)


def test_time_out():
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        Future(None, 0).result(0.01)


def test_cancelling_stops_the_task_and_wakes_everybody():
    stream = RecordingStream()
    future = Future(stream, 7)
    called = []
    future.add_done_callback(called.append)
    assert future.cancel()
    assert future.cancel()
    assert stream.cancelled == [7]
    assert called == [future]
    assert future.cancelled()
    with pytest.raises(CancelledError):
        future.result()
    future._arrived(page(1))  # too late: it stays cancelled
    assert future.cancelled()


def test_callbacks_run_once_whether_added_before_or_after():
    future = Future(None, 0)
    called = []
    future.add_done_callback(lambda f: called.append(("before", f.result())))
    future._arrived(page(5))
    future.add_done_callback(lambda f: called.append(("after", f.result())))
    assert called == [("before", 5), ("after", 5)]


def test_wait_and_as_completed_of_the_standard_library():
    futures = [Future(None, i) for i in range(3)]
    values = page(0, 1, 2)
    futures[1]._arrived(values)
    done, pending = wait(futures, timeout=60, return_when=FIRST_COMPLETED)
    assert done == {futures[1]}
    thread = threading.Thread(target=lambda: [future._arrived(values) for future in futures])
    thread.start()
    assert {future.result() for future in as_completed(futures, timeout=60)} == {0, 1, 2}
    thread.join()
    assert not wait(futures, timeout=60, return_when=ALL_COMPLETED).not_done


def test_futures_that_nobody_waits_for_are_small():
    tracked = [Future(None, i) for i in range(1000)]
    size = sys.getsizeof(tracked[0]) + sys.getsizeof(tracked[0].__dict__)
    print(f"bytes per waiting future: {size}")
    assert size < 400
    assert "_condition" not in tracked[1].__dict__


def test_a_failed_stream_fails_its_futures():
    future = Future(None, 0)
    future._failed(ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        future.result()
