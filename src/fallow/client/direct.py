"""Lone calls of an embedded grid: they go straight to an idle slot, past the hub, which takes less than half the time.

Only where the hub would make nothing durable (a grid without a state folder), nothing else waits, and the call asks for nothing
(no timeout, no retries, …). What can't go this way, and what comes back because its slot has died, goes the usual one.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from fallow.client.future import Future
from fallow.client.mapping import map_file
from fallow.client.result_page import ResultValues
from fallow.model.ids import JobId
from fallow.model.page import ResultPage, StoredPage

FIRST_INDEX = 1 << 40
"""Direct calls are no tasks of the job that the hub knows: their indices are beyond any of its."""
MAX_BYTES = 64 * 1024
"""Larger calls go the usual way, where their bytes are counted."""


class DirectCall:
    """One call on this way. `done` and `lost` are called on the loop's thread, once one of them."""

    __slots__ = ("_on_end", "_on_lost", "data", "future", "index")

    def __init__(
        self,
        data: bytes,
        future: "Future[Any]",
        on_end: "Callable[[DirectCall], bool]",
        on_lost: "Callable[[DirectCall], int | None]",
    ) -> None:
        """on_end: told first, says whether somebody still waits. on_lost: has the call go the usual way, returns its index there."""
        self.data = data
        self.future = future
        self.index = future._index
        self._on_end = on_end
        self._on_lost = on_lost

    def done(self, page: ResultPage, path: Path | None) -> None:
        """It has run. path: the file with the page's bytes, if they are many."""
        try:
            data = page.data if path is None else _map(path)
        except (OSError, ValueError):  # its task has meddled with the slot's folder: the usual way knows what to say
            self.lost()
            return
        if self._on_end(self):
            self.future._arrived(ResultValues(StoredPage(page, ()), data))

    def lost(self) -> int | None:
        """It has not run to its end: return the index with which it goes the usual way now, None if nobody waits for it."""
        return self._on_lost(self) if self._on_end(self) else None


class DirectCalls(Protocol):
    """Who runs them: the embedded node. To be called on the loop's thread, but for `run_at_once`."""

    slots: int

    def run_directly(self, job_id: JobId, index: int, data: bytes, call: DirectCall) -> bool:
        """Hand a call to an idle slot; return whether that could be done. data: an input page of this one call."""
        ...

    def run_at_once(self, job_id: JobId, index: int, data: bytes, call: DirectCall) -> bool:
        """Do the same from any thread, which is possible when the job's last direct call has left its slot idle."""
        ...

    def stop_directly(self, call: DirectCall) -> None:
        """End it, and its slot if it is not over in a moment."""
        ...


def _map(path: Path) -> memoryview:
    mapped = map_file(path)
    with contextlib.suppress(PermissionError):  # Windows removes no file that is mapped; its slot's folder goes later
        path.unlink()
    return mapped
