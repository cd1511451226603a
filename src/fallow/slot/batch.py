"""Tasks of one run while they run, and what became of them."""

from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

from fallow.slot import failures
from fallow.slot.pipeline import Pipeline


class PageFull(Exception):
    """Enough tasks have failed for one result page."""


class Batch:
    """Tasks from `start` on while they run, and what became of them."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.began_ns = perf_counter_ns()
        self.values: list[Any] = []
        self.kept: list[int] = []
        self.failures: list[failures.Record] = []
        self.failures_bytes = 0
        self.files: list[str] = []
        """Paths of files in the slot's folder that the values refer to by position."""
        self._ran: list[tuple[int, int]] = []
        self._at = start

    def begin(self) -> None:
        """Begin to measure: loading the function is not part of the tasks' time."""
        self.began_ns = perf_counter_ns()

    def fail(self, index: int, error: BaseException) -> None:
        """Note that a task raised; raises PageFull if there is no room for more."""
        record = failures.describe(index, error, len(self.failures))
        error.__traceback__ = None  # or its frames would keep the task's variables alive
        self.failures.append(record)
        self.failures_bytes += 64 + len(record[2]) + len(record[3]) + len(record[4] or b"")
        if len(self.failures) >= failures.PAGE_FAILURES or self.failures_bytes >= failures.PAGE_BYTES:
            raise PageFull

    def enter(self, at: int) -> None:
        """Begin with tasks of consecutive indices."""
        self._at = at

    def ran(self, stop: int) -> None:
        """Note that these tasks have run, up to `stop`."""
        if self._at == stop:
            return
        start = self._at
        if self._ran and self._ran[-1][1] == start:
            start = self._ran.pop()[0]
        self._ran.append((start, stop))
        self._at = stop

    def before(self, index: int, pipeline: Pipeline) -> "Batch":
        """Return a copy of what is before the task that runs now, which may append to the lists meanwhile."""
        early = Batch(self.start)
        early.began_ns = self.began_ns
        early._ran = [(start, min(stop, index)) for start, stop in self._ran[:] if start < index]
        early.failures = [record for record in self.failures[:] if record[0] < index]
        early.failures_bytes = self.failures_bytes
        if self._at < index:
            early.enter(self._at)
            early.ran(index)
        if pipeline.filters:
            early.kept = [each for each in self.kept[:] if each < index]
            count = len(early.kept)
        else:
            count = sum(stop - start for start, stop in early._ran) - len(early.failures)
        early.values = self.values[:count]
        return early

    def drop(self, early: "Batch", index: int) -> None:
        """Go on with the task `index`: what is before it was sent."""
        del self.values[: len(early.values)]
        del self.kept[: len(early.kept)]
        del self.failures[: len(early.failures)]
        self._ran = [(max(start, index), stop) for start, stop in self._ran if stop > index]
        self.start, self._at = index, max(self._at, index)
        self.begin()

    def rest(self) -> int:
        """Return the first index that has not run."""
        return self._ran[-1][1] if self._ran else self.start

    def kept_ranges(self, stop: int, pipeline: Pipeline) -> Sequence[int] | None:
        """Return the indices below `stop` that have a value as flat ranges, None if all have."""
        if pipeline.reduces:
            return None if self.values else ()
        if pipeline.filters:
            kept = ranges_of(self.kept)
        elif not self.failures:
            kept = [edge for each in self._ran for edge in each]
        else:
            failed = {record[0] for record in self.failures}
            kept = ranges_of([i for a, b in self._ran for i in range(a, b) if i not in failed])
        return None if kept == [self.start, stop] else kept


def ranges_of(indices: Sequence[int]) -> list[int]:
    """Return ascending indices as flat ranges."""
    flat: list[int] = []
    for index in indices:
        if flat and flat[-1] == index:
            flat[-1] += 1
        else:
            flat += (index, index + 1)
    return flat


def indices_of(flat: Sequence[int]) -> list[int]:
    """Return the indices in flat ranges."""
    return [i for a, b in zip(flat[::2], flat[1::2], strict=True) for i in range(a, b)]
