"""The standard library's executor interface over a grid, for programs and libraries that take an Executor."""

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

from fallow.client.engine import at_exit
from fallow.client.grid import Grid

R = TypeVar("R")


class GridExecutor(Executor):
    """`concurrent.futures.Executor` on a grid; behaves as the standard ones do, but that cancelling stops running tasks too.

    What was submitted is finished, whether `shutdown` waits for it or not, and before the interpreter exits.
    grid: an open grid, which stays open; None opens an embedded one, which is closed after `shutdown`.
    """

    def __init__(self, grid: Grid | None = None) -> None:
        self._grid = grid if grid is not None else Grid()
        self._is_own = grid is None
        self._pending: set[Future[Any]] = set()
        self._is_shut_down = False
        at_exit(functools.partial(_finish, self._pending))

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = self._grid.submit(fn, *args, **kwargs)
        self._pending.add(future)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: Future[Any]) -> None:
        self._pending.discard(future)  # a method, so that a pending future keeps the executor and its grid

    def map(
        self, fn: Callable[..., R], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[R]:
        """Apply `fn` as the built-in map does; `chunksize` is ignored: the grid chooses. timeout: seconds from this call."""
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        inputs = [list(each) for each in iterables]  # pulled at once, as Executor.map does
        job = self._grid.map(fn, *inputs)
        job._demand()
        return job.results(timeout=timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. wait: return once all are done. cancel_futures: stop those that are not, running ones too."""
        self._is_shut_down = True
        if cancel_futures:
            for future in list(self._pending):
                future.cancel()
        if wait:
            self._end()
        else:  # not a daemon: the interpreter's exit waits for it
            threading.Thread(target=self._end, name="fallow-shutdown").start()

    def _end(self) -> None:
        _finish(self._pending)
        if self._is_own:
            self._grid.close()


def _finish(pending: set[Future[Any]]) -> None:
    wait(list(pending))
