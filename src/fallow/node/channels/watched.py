"""A channel whose descriptors the event loop watches: what arrives is handled where it is read, so a result is on its way
to the hub before the loop turns again. The process's end is a descriptor too (pidfd).
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fallow.node import platform
from fallow.node.channel import ChannelOwner

READ_BYTES = 1 << 16
"""At a time: for more, the C library would have the system map memory anew for each read, however little comes."""
NOISE_BYTES = 1 << 16
CLOSE_WAIT_S = 2.0


class WatchedChannel:
    """See `Channel`."""

    def __init__(self, owner: ChannelOwner) -> None:
        self.pid = 0
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop
        self._process: subprocess.Popen[bytes]
        self._tree: platform.ProcessTree
        self._pipe: socket.socket
        self._noise = self._control = self._exit_fd = -1
        self._outbox = bytearray()
        self._writing = threading.Lock()
        """Held while the pipe is written to, from whichever thread, and while it is closed."""
        self._memory_floor = 0
        self._is_closed = False

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._memory_floor = platform.own_peak_memory()
        with ExitStack() as on_failure, ExitStack() as theirs:
            ours, their_pipe = socket.socketpair()
            on_failure.callback(ours.close)
            theirs.callback(their_pipe.close)
            noise, their_noise = os.pipe()
            on_failure.callback(os.close, noise)
            theirs.callback(os.close, their_noise)
            their_control, control = os.pipe()
            on_failure.callback(os.close, control)
            theirs.callback(os.close, their_control)
            pipes = (their_pipe.fileno(), their_pipe.fileno(), their_noise, their_control)
            self._process = platform.spawn(command, pipes, environment, folder)
            self.pid = self._process.pid
            self._tree = platform.ProcessTree(self._process)
            self._exit_fd = platform.open_exit_fd(self.pid)
            on_failure.pop_all()
        self._pipe, self._noise, self._control = ours, noise, control
        ours.setblocking(False)
        os.set_blocking(noise, False)
        os.set_blocking(control, False)
        self._loop.add_reader(ours.fileno(), self._readable)
        self._loop.add_reader(noise, self.drain_noise)
        self._loop.add_reader(self._exit_fd, self._exited)

    def kill(self) -> None:
        if not self._is_closed:
            self._tree.kill()

    def close(self) -> None:
        if self._is_closed:
            return
        self._tree.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel dies when that lets it
            self._process.wait(CLOSE_WAIT_S)
        self._release()

    def _exited(self) -> None:
        if self._is_closed:
            return
        ended = platform.reap(self._process)
        if ended is None:
            return
        self._tree.kill_rest()
        while self._readable():
            pass
        self.drain_noise()
        self._release()
        status, peak = ended
        # The peak of a child begins with that of the parent that it was forked from.
        self._owner.channel_ended(status, peak if peak > self._memory_floor else 0)

    def _release(self) -> None:
        with self._writing:
            self._is_closed = True
            self._loop.remove_writer(self._pipe.fileno())
            for fd in (self._pipe.fileno(), self._noise, self._exit_fd):
                self._loop.remove_reader(fd)
            self._pipe.close()
        for fd in (self._noise, self._control, self._exit_fd):
            os.close(fd)
        self._tree.close()

    # --- writing ---

    def write(self, data: bytes) -> None:
        with self._writing:
            if self._is_closed:
                return
            if self._outbox:
                self._outbox += data
                return
            try:
                sent = self._pipe.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # it has died; that is noticed elsewhere
            if sent < len(data):
                self._outbox += data[sent:]
                self._loop.call_soon_threadsafe(self._watch_writable)

    def _watch_writable(self) -> None:
        if not self._is_closed:
            self._loop.add_writer(self._pipe.fileno(), self._writable)

    def _writable(self) -> None:
        with self._writing:
            try:
                sent = self._pipe.send(self._outbox)
            except BlockingIOError:
                return
            except OSError:
                sent = len(self._outbox)
            del self._outbox[:sent]
            if not self._outbox:
                self._loop.remove_writer(self._pipe.fileno())

    def write_control(self, message: bytes) -> None:
        if not self._is_closed:
            with contextlib.suppress(OSError):
                os.write(self._control, message)

    # --- reading ---

    def _readable(self) -> bool:
        """Handle what has come; return whether there may be more."""
        if self._is_closed:
            return False
        try:
            data = self._pipe.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._pipe.fileno())  # its end shows in `_exited`
            return False
        self._owner.channel_data(data)
        return True

    def drain_noise(self) -> None:
        if self._is_closed:
            return
        try:
            text = os.read(self._noise, NOISE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            text = b""
        if text:
            self._owner.channel_noise(text)
        else:
            self._loop.remove_reader(self._noise)
