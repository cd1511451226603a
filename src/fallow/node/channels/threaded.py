"""A channel of plain pipes, each served by a thread, for systems whose event loop can't watch descriptors or processes:
Windows (the Proactor loop) and macOS. It costs two hops between threads per batch.

Each thread closes its own pipe when it is done with it, so that no descriptor is closed under a thread that uses it.
"""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fallow.node import platform
from fallow.node.channel import ChannelOwner

READ_BYTES = 1 << 16
"""At a time: for more, the C library would have the system map memory anew for each read, however little comes."""
NOISE_BYTES = 1 << 16
MAX_NOISES = 64
"""Noise that waits for the loop, in reads; more is dropped, oldest first."""
CLOSE_WAIT_S = 2.0
DRAIN_S = 1.0
"""How long the end of a dead slot's pipes is waited for: a process that left its group may hold them open."""


class ThreadedChannel:
    """See `Channel`."""

    def __init__(self, owner: ChannelOwner) -> None:
        self.pid = 0
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop
        self._process: subprocess.Popen[bytes]
        self._tree: platform.ProcessTree
        self._control = self._noise = -1
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._noises: deque[bytes] = deque(maxlen=MAX_NOISES)
        self._reading_noise = threading.Lock()
        self._readers: list[threading.Thread] = []
        self._waiter: threading.Thread
        self._memory_floor = 0
        self._is_closed = False

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._memory_floor = platform.own_peak_memory()
        ours: list[int] = []
        theirs: list[int] = []
        with ExitStack() as on_failure, ExitStack() as on_end:
            for at in range(4):  # messages in, messages out, noise, control
                read, write = os.pipe()
                mine, other = (read, write) if at in {1, 2} else (write, read)
                ours.append(mine)
                theirs.append(other)
                on_failure.callback(os.close, mine)
                on_end.callback(os.close, other)
            inward, outward, noise, control = theirs
            self._process = platform.spawn(command, (inward, outward, noise, control), environment, folder)
            self.pid = self._process.pid
            self._tree = platform.ProcessTree(self._process)
            on_failure.pop_all()
        inward, outward, self._noise, self._control = ours
        self._readers = [self._thread("reader", self._read, outward), self._thread("noise", self._read_noise)]
        self._thread("writer", self._write, inward)
        self._waiter = self._thread("waiter", self._wait)

    def _thread(self, name: str, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, name=f"fallow-slot-{self.pid}-{name}", daemon=True)
        thread.start()
        return thread

    def kill(self) -> None:
        if not self._is_closed:
            self._tree.kill()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._tree.kill()
        self._waiter.join(CLOSE_WAIT_S)
        self._release()

    def write(self, data: bytes) -> None:
        if not self._is_closed:
            self._outbox.put(data)

    def write_control(self, message: bytes) -> None:
        # A few per second at most, which the slot reads at once: it can't fill the pipe while the slot lives.
        if not self._is_closed:
            with contextlib.suppress(OSError):
                os.write(self._control, message)

    def drain_noise(self) -> None:
        self._take_noise()  # what its thread has not come to yet
        while self._noises:
            text = self._noises.popleft()
            if not self._is_closed:
                self._owner.channel_noise(text)

    def _ended(self, status: int, peak: int) -> None:
        if self._is_closed:
            return
        self.drain_noise()
        self._is_closed = True
        self._release()
        self._owner.channel_ended(status, peak if peak > self._memory_floor else 0)

    def _release(self) -> None:
        os.close(self._control)
        self._tree.close()

    def _data(self, data: bytes) -> None:
        if not self._is_closed:
            self._owner.channel_data(data)

    # --- in threads ---

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)

    def _read(self, fd: int) -> None:
        try:
            while data := os.read(fd, READ_BYTES):
                self._post(self._data, data)
        except OSError:
            pass  # it has died; the waiter tells
        finally:
            os.close(fd)

    def _read_noise(self) -> None:
        fd = self._noise
        try:
            while True:
                platform.wait_readable(fd)
                if not self._take_noise():
                    break
                self._post(self.drain_noise)
        except OSError:
            pass
        finally:
            with self._reading_noise:
                self._noise = -1
            os.close(fd)

    def _take_noise(self) -> bool:
        """Read what lies in the pipe. From any thread. Return False at its end."""
        with self._reading_noise:
            text = b"" if self._noise < 0 else platform.read_waiting(self._noise, NOISE_BYTES)
            if text:
                self._noises.append(text)
        return text != b""

    def _write(self, fd: int) -> None:
        try:
            while (data := self._outbox.get()) is not None:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
        except OSError:
            pass
        finally:
            os.close(fd)

    def _wait(self) -> None:
        status, peak = platform.wait(self._process)
        self._tree.kill_rest()
        self._outbox.put(None)
        for reader in self._readers:
            reader.join(DRAIN_S)
        self._post(self._ended, status, peak)
