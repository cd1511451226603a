"""Futures that cost little: a real `concurrent.futures.Future`, but its lock is built only when somebody waits.

The standard one builds a condition (1,600 bytes) for each; a million queued submits would be gigabytes. Here the
condition, the list of waiters and the list of callbacks come into being on first use, and the result stays in
the page that it arrived in until it is asked for.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import Future as StandardFuture
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any, Generic, TypeVar

from fallow.client.result_page import ResultValues

T = TypeVar("T")


class _Lazy(Generic[T]):
    """An attribute that is made on first use; atomic, so that two threads get the same one."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        value: T = instance.__dict__.setdefault(self._name, self._make())
        instance._is_watched = True
        return value


class Future(StandardFuture[T]):
    """The pending result of `Grid.submit`. Cancelling it stops the task even while it runs."""

    # Class attributes stand for the initial state, so that a fresh future holds two references and nothing else.
    _condition = _Lazy(threading.Condition)
    _waiters: _Lazy[list[Any]] = _Lazy(list)
    _done_callbacks: _Lazy[list[Any]] = _Lazy(list)
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _page: ResultValues | None = None
    _is_watched = False
    """Whether somebody has got the condition, which is before looking at the state. To look for it in `__dict__` would build one."""

    def __init__(self, stream: Any, index: int) -> None:
        # the base class's __init__ is left out: it would build what _Lazy defers
        self._stream = stream
        self._index = index

    # --- the client's side: called on the event loop's thread ---

    def _arrived(self, page: ResultValues) -> None:
        """The task is settled by this page."""
        if self._state is not PENDING:
            return  # cancelled meanwhile
        self._page = page
        self._state = FINISHED  # before looking for waiters: one who comes later sees the state
        if self._is_watched:
            self._notify()

    def _failed(self, error: BaseException) -> None:
        """The task will not be settled: the grid was closed or its job is gone."""
        if self._state is not PENDING:
            return
        self._exception = error
        self._state = FINISHED
        if self._is_watched:
            self._notify()

    def _notify(self) -> None:
        with self._condition:
            for waiter in self._waiters:
                if self._holds_exception():
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def _holds_exception(self) -> bool:
        self._unpack()
        return self._exception is not None

    def _unpack(self) -> None:
        page = self._page
        if page is None:
            return
        try:
            self._result = page.value(self._index)
        except BaseException as error:  # whatever the task raised
            self._exception = error
        self._page = None
        self._stream = None

    # --- the user's side ---

    def result(self, timeout: float | None = None) -> T:
        """Return the task's value, or raise what it raised, with the remote traceback as its cause.

        timeout: seconds to wait. Raises TimeoutError, CancelledError. Ctrl-C while waiting cancels the task.
        """
        if self._state is not FINISHED:
            try:
                self._wait(timeout)
            except KeyboardInterrupt:
                self.cancel()
                raise
            if self._state in {CANCELLED, CANCELLED_AND_NOTIFIED}:
                raise CancelledError
        if self._page is not None:
            self._unpack()
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642 -- no reference cycle through the traceback
        value: T = self._result
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, None if it returned. timeout: seconds. Raises TimeoutError, CancelledError."""
        if self._state is PENDING:
            self._wait(timeout)
        if self._state in {CANCELLED, CANCELLED_AND_NOTIFIED}:
            raise CancelledError
        self._unpack()
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        with self._condition:
            if self._state is PENDING and not self._condition.wait_for(lambda: self._state is not PENDING, timeout):
                raise TimeoutError(f"no result within {timeout:g} s")

    def cancel(self) -> bool:
        """Cancel the task, stopping it if it runs; return False if it was settled before."""
        with self._condition:
            if self._state in {CANCELLED, CANCELLED_AND_NOTIFIED}:
                return True
            if self._state is not PENDING:
                return False
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        stream, self._stream = self._stream, None
        stream.cancel_task(self._index)
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True
