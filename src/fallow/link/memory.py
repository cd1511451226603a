"""A link inside one process: the embedded grid's, and the tests'. Frames are handed over, not encoded."""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Any

from fallow.link.link import OnClosed, OnFrame


class MemoryLink:
    """One end of a pair made by `memory_pair`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: str) -> None:
        self.peer = peer
        self._loop = loop
        self._other: MemoryLink | None = None
        self._inbox: deque[Any] = deque()
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None
        self._is_scheduled = False
        self._closing: str | None = None
        self._is_closed = False

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        self._on_frame, self._on_closed = on_frame, on_closed
        self._schedule()

    def send(self, frame: Any, *, bulk: bool = False) -> None:
        other = self._other
        if other is None or self._closing is not None or other._is_closed:
            return
        other._inbox.append(frame)
        if not other._is_scheduled:
            other._schedule()

    def send_later(self, key: Hashable, frame: Any) -> None:
        self.send(frame)  # it wakes nobody

    async def drained(self) -> None:
        other = self._other
        while other is not None and other._inbox and not other._is_closed:  # noqa: ASYNC110 -- it empties in the loop's next turn
            await asyncio.sleep(0)

    def close(self, reason: str = "") -> None:
        for end in (self, self._other):
            if end is not None and end._closing is None:
                end._closing = reason or "closed"
                end._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and self._on_frame is not None and not self._loop.is_closed():
            self._is_scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        inbox, on_frame = self._inbox, self._on_frame
        assert on_frame is not None
        while inbox and not self._is_closed:
            on_frame(inbox.popleft())
        if self._closing is not None and not self._is_closed:
            self._is_closed = True
            assert self._on_closed is not None
            self._on_closed(self._closing)


def memory_pair(loop: asyncio.AbstractEventLoop, *, peer: str = "embedded") -> tuple[MemoryLink, MemoryLink]:
    """Return the two ends of a new link on `loop`."""
    one, two = MemoryLink(loop, peer), MemoryLink(loop, peer)
    one._other, two._other = two, one
    return one, two
