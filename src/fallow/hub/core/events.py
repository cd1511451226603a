"""The event board: what happened lately, numbered, for everyone who watches."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from itertools import takewhile

from fallow.hub.core.tally import Tally
from fallow.model.events import Event, Stamped

KEPT_EVENTS = 4096
"""Events kept for late or resuming readers; one who falls further behind misses some (numbers show the gap)."""


class EventBoard:
    """Bounded and lossy by design: the database is the truth, events only tell of it."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._kept: deque[Stamped] = deque(maxlen=KEPT_EVENTS)
        self._number = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def post(self, event: Event, at: float) -> None:
        """Add an event; at: Unix time in seconds."""
        self._number += 1
        self.tally.add(event)
        self._kept.append(Stamped(self._number, at, event))
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    def after(self, number: int) -> list[Stamped]:
        """Return the kept events with a higher number, oldest first."""
        fresh = list(takewhile(lambda stamped: stamped.number > number, reversed(self._kept)))
        fresh.reverse()
        return fresh

    async def subscribe(self, after: int | None = None) -> AsyncIterator[Stamped]:
        """Yield events from number `after` on (None: from now on), for ever."""
        number = self._number if after is None else after
        while True:
            fresh = self.after(number)
            for stamped in fresh:
                number = stamped.number
                yield stamped
            if not fresh:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)
