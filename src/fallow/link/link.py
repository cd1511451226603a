"""The seam between a shell (hub, node, client) and what carries its frames. Implementations: `memory.py`, `websocket.py`."""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

OnFrame = Callable[[Any], None]
"""Called with each frame that arrives, in order, on the event loop's thread. Must not block."""

OnClosed = Callable[[str], None]
"""Called once when the link is gone, with the reason in plain words."""


class Link(Protocol):
    """One end of an open connection. All calls are made on the event loop's thread."""

    peer: str
    """Who is at the other end, for logs: an address or "embedded"."""

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        """Begin to deliver frames. Frames that came before are delivered first."""
        ...

    def send(self, frame: Any, *, bulk: bool = False) -> None:
        """Queue a frame; never blocks. Bulk frames (blob chunks) go behind all others. After close: dropped."""
        ...

    def send_later(self, key: Hashable, frame: Any) -> None:
        """Queue a frame that nobody waits for, in place of an earlier one of this key: it goes with the next frame that is
        sent, or by itself after some milliseconds.
        """
        ...

    async def drained(self) -> None:
        """Wait until the bulk queue is short; what sends many frames waits here between them (backpressure)."""
        ...

    def close(self, reason: str = "") -> None:
        """Send what is queued, then close. The other end's `on_closed` and this one's are called."""
        ...
