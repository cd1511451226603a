"""Readers: what takes a job's result pages from the session's thread and hands them to whoever waits."""

import time
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING

from fallow.client.result_page import Present, ResultValues
from fallow.model.errors import InputEnded, JobCancelled
from fallow.model.ids import Digest, JobId
from fallow.model.job import JobProgress
from fallow.model.page import StoredPage
from fallow.model.ranges import RangeSet

if TYPE_CHECKING:
    from fallow.client.job_state import JobState

CREDIT_BYTES = 64 << 20
"""Result bytes that may be on their way to or waiting in one reader."""
WHOLE_JOB = 1 << 48
"""An index after every job's last."""

Entry = tuple[ResultValues, int, int]
"""Part of a result page: the indices `[start, stop)` of it that count."""


class TimeIsUp(TimeoutError):
    """Nothing came in time; who waits knows for how long."""


class _Reader(ABC):
    """Takes each index once: of a page that overlaps what came before, only the rest.

    Pages may overlap if a hub crashed after it handed a value out early: the task runs again, and its new page may have
    other bounds.
    """

    def __init__(self, state: "JobState", number: int) -> None:
        self.job: JobId = state.job
        self.number = number
        self.state = state
        self._condition: Condition = state.condition
        self._seen = RangeSet()
        self._error: BaseException | None = None

    @abstractmethod
    def _keep(self, entry: Entry) -> None:
        """Hold what came until it is taken."""

    def on_pages(self, pages: tuple[StoredPage, ...], blobs: dict[Digest, Path | bytes]) -> None:
        with self._condition:
            for page in pages:
                values = _values(page, blobs, self.state.present)
                for start, stop in zip(page.counts[::2], page.counts[1::2], strict=True):
                    for a, b in self._seen.add(start, stop):
                        self._keep((values, a, b))
            self._condition.notify_all()

    def on_error(self, error: BaseException) -> None:
        with self._condition:
            self._error = error
            self._condition.notify_all()

    def closing(self) -> None:
        """The jobs go: what nobody has taken can't be read any more, as `on_error` will say."""
        return

    def missing(self) -> list[tuple[int, int]]:
        """Return what has neither been handed out nor come."""
        with self._condition:
            return self._seen.missing(0, WHOLE_JOB)

    def credit_bytes(self) -> int:
        return CREDIT_BYTES


class OrderedReader(_Reader):
    """Hands out results in order of index; holds what came early."""

    def __init__(self, state: "JobState", number: int) -> None:
        super().__init__(state, number)
        self._early: dict[int, Entry] = {}
        self._next = 0

    def _keep(self, entry: Entry) -> None:
        self._early[entry[1]] = entry

    def take(self, timeout: float | None = None) -> Entry | None:
        """Return the next part of a page, None at the end of the job; raises what ended the job otherwise.

        timeout: seconds; raises TimeIsUp.
        """
        with self._condition:
            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                entry = self._early.pop(self._next, None)
                if entry is not None:
                    self._next = entry[2]
                    return entry
                if self._error is not None:
                    raise self._error
                if self.state.is_over(self._next):
                    return None
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeIsUp
                self._condition.wait(left)


class CompletionReader(_Reader):
    """Hands out results in the order in which they come."""

    def __init__(self, state: "JobState", number: int) -> None:
        super().__init__(state, number)
        self._waiting: deque[Entry] = deque()

    def _keep(self, entry: Entry) -> None:
        self._waiting.append(entry)

    def take(self, timeout: float | None = None) -> Entry | None:
        """Return part of a page as it comes, None at the end of the job; raises what ended the job otherwise."""
        with self._condition:
            while not self._waiting:
                if self._error is not None:
                    raise self._error
                if self.state.is_over(len(self._seen)):
                    return None
                if not self._condition.wait(timeout):
                    raise TimeIsUp
            return self._waiting.popleft()


def _values(page: StoredPage, blobs: dict[Digest, Path | bytes], present: Present | None) -> ResultValues:
    blob = page.page.blob
    return ResultValues(page, blobs[blob] if blob is not None else page.page.data, present)


def end_error(progress: JobProgress, name: str) -> BaseException | None:
    """Return the error with which reading a job ends, None for a job that is done."""
    if progress.state == "cancelled":
        return JobCancelled(f"job {name} was cancelled after {progress.settled} of its tasks")
    if progress.input_ended:
        return InputEnded(
            f"job {name}: the client that fed it went away after {progress.accepted} inputs; their results are complete"
        )
    return None
