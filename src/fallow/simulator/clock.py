"""Virtual time: a heap of what happens when. Jumps from one event to the next."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """Runs callbacks in order of time; those of one instant in the order in which they were posted."""

    __slots__ = ("_count", "_heap", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def post(self, delay_s: float, callback: Callable[..., None], *args: Any) -> None:
        """Have `callback(*args)` called after `delay_s` seconds."""
        self._count += 1
        heappush(self._heap, (self.now + delay_s, self._count, callback, args))

    def step(self) -> bool:
        """Run the next event; False if there is none."""
        if not self._heap:
            return False
        self.now, _, callback, args = heappop(self._heap)
        callback(*args)
        return True
