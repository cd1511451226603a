"""What the main thread may still run: all that it was sent, unless the agent has taken it back meanwhile.

The agent takes back what waits behind a slow task (CUT, which the lifeline's thread reads). The main thread iterates in
C over a list or a range; taking the rest is one call, `list(iterator)`, which another thread can make between any two
tasks: each item goes to one of them, so what is given back is exact, and the loop pays nothing for it.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

CUTTABLE: tuple[type, ...] = (type(iter([])), type(iter(())), type(iter(range(0))), type(iter(range(1 << 70))))
"""Iterators that run no Python code, so that taking all that they have is atomic."""


class Turn:
    """The run in progress, or the last one. All but `cut` is for the main thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given_to = 0
        self._number = 0
        self._at = 0
        """Where a cut may begin, unless a segment is being iterated over."""
        self._stop = 0
        self._end = 0
        self._left: Iterator[Any] | None = None

    def begin(self, number: int, start: int, stop: int) -> bool:
        """Begin run `number`, the tasks [start, stop); return False if it was given back."""
        with self._lock:
            if number <= self._given_to:
                return False
            # While function and inputs are loaded the first task counts as begun: loading is its part.
            self._number, self._at, self._stop, self._left = number, start + 1, stop, None
            return True

    def enter(self, first: int, items: Sequence[Any]) -> Iterator[Any] | None:
        """Begin to iterate over the items of consecutive tasks; None if they were given back."""
        with self._lock:
            if first >= self._stop:
                return None
            self._end = min(first + len(items), self._stop)
            self._left = iter(items if self._end - first == len(items) else items[: self._end - first])
            return self._left

    def leave(self) -> int:
        """End what `enter` began; return the index behind the last task that was run."""
        with self._lock:
            self._left = None
            self._at = self._end
            return self._end

    def end(self) -> int:
        """End the run; return the index behind its last task."""
        with self._lock:
            self._left = None
            self._at = self._stop
            return self._stop

    def cut(self, number: int) -> tuple[int, int]:
        """Give back what has not begun of all runs up to `number`.

        Returns the number of the last run that has begun, and the index from which on its tasks are given back: its end
        if none are. Later runs, up to `number`, are given back whole.
        """
        with self._lock:
            self._given_to = max(self._given_to, number)
            if self._number <= number:
                if self._left is None:
                    self._stop = min(self._stop, self._at)
                elif isinstance(self._left, CUTTABLE):
                    self._stop = self._end = self._end - len(list(self._left))
            return self._number, self._stop
