"""The standard library's executor interface over a grid, for programs and libraries that take an Executor."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

from fallow.client.grid import Grid

R = TypeVar("R")


class GridExecutor(Executor):
    """`concurrent.futures.Executor` on a grid; behaves as the standard ones do, `shutdown` included.

    grid: an open grid, which stays open; None opens an embedded one, which `shutdown` closes.
    """

    def __init__(self, grid: Grid | None = None) -> None:
        self._grid = grid if grid is not None else Grid()
        self._is_own = grid is None
        self._pending: set[Future[Any]] = set()
        self._is_shut_down = False

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = self._grid.submit(fn, *args, **kwargs)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def map(
        self, fn: Callable[..., R], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[R]:
        """Apply `fn` as the built-in map does; `chunksize` is ignored: the grid chooses."""
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        deadline = None if timeout is None else time.monotonic() + timeout
        inputs = [list(each) for each in iterables]  # pulled at once, as Executor.map does
        job = self._grid.map(fn, *inputs)
        job._demand()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return job.results(timeout=left)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._is_shut_down = True
        if cancel_futures:
            for future in list(self._pending):
                future.cancel()
        if wait:
            _wait_for(list(self._pending))
        if self._is_own and wait:
            self._grid.close()


def _wait_for(futures: list[Future[Any]]) -> None:
    wait(futures)
