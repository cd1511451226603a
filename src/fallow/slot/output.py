"""What tasks print. Python-level output travels as messages tagged with the task; what is written to fd 1 or 2 goes to a
pipe that the agent drains, so that nothing can get between the protocol's messages.
"""

import io
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from fallow.slot.protocol import CUT_NOTE, MAX_PRINTED_BYTES, PRINTED_ENTRY, RUNNING

FLUSH_BYTES = 8 * 1024
"""Unsent output is sent from this size on, even without a line's end."""
FREE_FLUSHES = 20
"""Lines sent at once (so that they are there if the task crashes the slot), until a task proves to be talkative …"""
FLUSHES_PER_S = 200.0
"""… then this many a second; the rest is grouped. A print in each of a million tasks stays cheap."""


class Output:
    """Collects what is printed, by task, and sends it in few messages."""

    def __init__(self, send: Callable[[bytes], None], counter: memoryview) -> None:
        self._send = send
        self._counter = counter
        self._lock = threading.RLock()
        self._entries: list[tuple[int, list[bytes]]] = []
        self._unsent_bytes = 0
        self._index = -1
        self._task_bytes = 0
        self._tokens = float(FREE_FLUSHES)
        self._refilled_at = 0.0

    def add(self, data: bytes) -> None:
        """Take output of whichever task runs now. Safe from any thread."""
        with self._lock:
            index = self._counter[RUNNING] - 1
            if index < 0:
                index = self._index  # a thread that outlives its task
            if index != self._index:
                self._index, self._task_bytes = index, 0
            room = MAX_PRINTED_BYTES - self._task_bytes
            self._task_bytes += len(data)
            if index < 0 or room <= 0:
                return
            if len(data) > room:
                data = data[:room] + CUT_NOTE
            if self._entries and self._entries[-1][0] == index:
                self._entries[-1][1].append(data)
            else:
                self._entries.append((index, [data]))
            self._unsent_bytes += len(data)
            if self._unsent_bytes >= FLUSH_BYTES:
                self.flush()

    def begin(self) -> None:
        """A run begins: its first task may have the index of the last one, in another job."""
        self._task_bytes = 0

    def line_ended(self) -> None:
        """Send, unless that was done too often lately."""
        now = time.monotonic()
        with self._lock:
            self._tokens = min(FREE_FLUSHES, self._tokens + (now - self._refilled_at) * FLUSHES_PER_S)
            self._refilled_at = now
            if self._tokens >= 1 and self._entries:
                self._tokens -= 1
                self.flush()

    def flush(self) -> None:
        """Send everything that was printed up to now."""
        if not self._entries:
            return
        with self._lock:
            texts = [(index, b"".join(parts)) for index, parts in self._entries]
            body = b"".join(PRINTED_ENTRY.pack(index, len(text)) + text for index, text in texts)
            self._entries.clear()
            self._unsent_bytes = 0
            if body:
                self._send(body)

    def forked(self) -> None:
        """Start afresh in a process that a task forked: another thread may have held the lock."""
        self._lock = threading.RLock()
        self._entries.clear()
        self._unsent_bytes = 0

    def install(self) -> None:
        """Become sys.stdout and sys.stderr."""
        for name, fd in (("stdout", 1), ("stderr", 2)):
            sink: Any = _Sink(self, fd)
            stream = io.TextIOWrapper(
                sink, encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True
            )
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class _Sink(io.BufferedIOBase):
    """The binary layer below sys.stdout: `print`, `sys.stdout.buffer` and `subprocess` each find what they need."""

    def __init__(self, output: Output, fd: int) -> None:
        self._output = output
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        taken = bytes(data)
        self._output.add(taken)
        return len(taken)

    def flush(self) -> None:
        self._output.line_ended()
