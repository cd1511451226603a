"""Server-sent events (WHATWG HTML, section 9.2): pacing, framing, and an end when the hub drains."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator

from litestar.response import Stream

from fallow.model.events import Stamped

EVENT_STREAM = "text/event-stream"
RETRY_MS = 2000
"""How long a browser waits before it connects again."""


class Streams:
    """What all event streams of one web app share."""

    def __init__(self) -> None:
        self.boot = secrets.token_hex(4)
        """Events are numbered from 1 at each start of the hub, so their ids on the wire begin with this."""
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End every stream: the hub drains."""
        self._closing.set()

    def number_after(self, last_event_id: str | None) -> int | None:
        """Return the number to resume after: None means from now on, 0 (an id from before a restart) all that is kept."""
        if last_event_id is None:
            return None
        boot, _, number = last_event_id.partition("-")
        return int(number) if boot == self.boot and number.isdecimal() and len(number) < 19 else 0

    async def paced(self, events: AsyncIterator[Stamped], every_s: float) -> AsyncGenerator[Stamped | None, None]:
        """Yield the events as they come, and None whenever `every_s` seconds passed without one; end when closing."""
        closed = asyncio.ensure_future(self._closing.wait())
        upcoming = asyncio.ensure_future(anext(events))
        try:
            while True:
                await asyncio.wait({closed, upcoming}, timeout=every_s, return_when=asyncio.FIRST_COMPLETED)
                if closed.done():
                    return
                if not upcoming.done():
                    yield None
                    continue
                try:
                    event = upcoming.result()
                except StopAsyncIteration:
                    return
                upcoming = asyncio.ensure_future(anext(events))
                yield event
        finally:
            closed.cancel()
            upcoming.cancel()
            await asyncio.gather(closed, upcoming, return_exceptions=True)

    async def wait(self, seconds: float) -> bool:
        """Wait that long, or until closing; return whether to go on."""
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return True
        return False

    async def either(self, changed: asyncio.Event, seconds: float) -> None:
        """Wait for the event, for closing, or that long."""
        waits = [asyncio.ensure_future(each.wait()) for each in (changed, self._closing)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def sse(data: str, *, event: str | None = None, number: str | None = None) -> bytes:
    """Frame one server-sent event."""
    lines = [f"id: {number}"] if number is not None else []
    lines += [f"event: {event}"] if event is not None else []
    lines += [f"data: {line}" for line in data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def event_stream(chunks: AsyncIterator[bytes]) -> Stream:
    """Answer with a stream of framed events. The header keeps nginx from buffering it."""
    return Stream(chunks, media_type=EVENT_STREAM, headers={"X-Accel-Buffering": "no"})
