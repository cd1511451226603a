"""What both ends of a link over WebSocket share: frames wait here for the end of the loop's turn.

One message carries all control frames that are waiting; bulk frames (blob chunks) go only when no control frame waits.
"""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Any

from fallow.link.codec import MAX_MESSAGE_BYTES, FrameDecoder, encode_frame, join_frames
from fallow.link.link import OnClosed, OnFrame

BULK_HIGH_WATER = 8
"""Bulk frames of 256 KiB that may wait in a link before `drained` holds their sender back: 2 MiB."""
LATER_S = 0.010
"""How long a frame that nobody waits for waits for another one to go with: to write to a socket wakes the process at its
other end, which costs both of them more than what the frame says."""


class QueueingLink:
    """What both ends share: the queues and delivery."""

    def __init__(self, peer: str, decoder: FrameDecoder) -> None:
        self.peer = peer
        self._is_woken = False
        self._decoder = decoder
        self._control: list[bytes] = []
        self._bulk: deque[bytes] = deque()
        self._later: dict[Hashable, Any] = {}
        self._later_timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._closing: str | None = None
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        self._on_frame, self._on_closed = on_frame, on_closed

    def send(self, frame: Any, *, bulk: bool = False) -> None:
        if self._closing is not None:
            return
        self._gather_later()
        data = encode_frame(frame)
        if bulk:
            self._bulk.append(data)
            if len(self._bulk) >= BULK_HIGH_WATER:
                self._room.clear()
        else:
            self._control.append(data)
        self._wake()

    def send_later(self, key: Hashable, frame: Any) -> None:
        if self._closing is not None:
            return
        self._later[key] = frame
        if self._later_timer is None and not self._is_woken:
            self._later_timer = asyncio.get_running_loop().call_later(LATER_S, self._send_later)

    def _send_later(self) -> None:
        self._later_timer = None
        if self._later:
            self._wake()

    def _gather_later(self) -> None:
        """Put what was to go later before what comes now."""
        if self._later:
            self._control += map(encode_frame, self._later.values())
            self._later.clear()

    async def drained(self) -> None:
        await self._room.wait()

    def close(self, reason: str = "") -> None:
        if self._closing is None:
            self._closing = reason or "closed"
            self._wake()
            self._room.set()

    def _wake(self) -> None:
        """Have what is queued written, and the end noticed, in the loop's next turn."""
        if not self._is_woken:
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._is_woken = False
        self._gather_later()
        self._flush()

    def _flush(self) -> None:
        """Write what is queued, as far as the socket takes it; then end if `_closing` says so."""
        raise NotImplementedError

    def _next_message(self) -> bytes | None:
        """Take what goes into the next message: waiting control frames, else one bulk frame, else None."""
        control = self._control
        if control:
            size = count = 0
            while count < len(control) and count < 65_535 and size + len(control[count]) <= MAX_MESSAGE_BYTES - 8:
                size += len(control[count])
                count += 1
            message = join_frames(control[:count])
            del control[:count]
            return message
        if self._bulk:
            data = self._bulk.popleft()
            if len(self._bulk) < BULK_HIGH_WATER:
                self._room.set()
            return join_frames([data])
        return None

    def _take(self, message: bytes) -> None:
        """Hand on the frames of a message; raises BadRequest if it is none."""
        assert self._on_frame is not None
        for frame in self._decoder.decode(message):
            self._on_frame(frame)

    def _closed(self, reason: str) -> None:
        assert self._on_closed is not None
        self._on_closed(reason)
