"""One slot as its agent sees it: the process, its pipe and its shared counter. Knows nothing of leases or links.

The slot's pipe is watched directly by the event loop and what arrives is handled where it is read: a result is on its
way to the hub before the loop turns again.
"""

import asyncio
import contextlib
import mmap
import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cloudpickle

import fallow.slot
from fallow.model.page import INLINE_BYTES
from fallow.node import environment, platform
from fallow.slot.protocol import (
    COUNTER_BYTES,
    DONE,
    HEADER,
    MAX_BODY_BYTES,
    MAX_PRINTED_BYTES,
    PRINTED,
    PRINTED_ENTRY,
    READY,
    RUNNING,
    STARTED_NS,
)

READ_BYTES = 1 << 18
NOISE_BYTES = 1 << 16
CLOSE_WAIT_S = 2.0
TAIL_BYTES = 4 * 1024
"""Output of the running task that is kept for the report of its crash."""

SLOT_PROGRAM = Path(fallow.slot.__file__).with_name("__main__.py")


class SlotOwner(Protocol):
    """Who is told what a slot says. All calls come on the event loop's thread."""

    def slot_ready(self, slot: "SlotProcess") -> None: ...

    def slot_done(
        self, slot: "SlotProcess", key: int, numbers: tuple[int, int, int, int], body: memoryview
    ) -> None: ...

    def slot_printed(self, slot: "SlotProcess", entries: Sequence[tuple[int, str]]) -> None: ...

    def slot_faulty(self, slot: "SlotProcess") -> None:
        """A task has written into our pipe: nothing in it can be trusted any more."""
        ...

    def slot_died(self, slot: "SlotProcess", exit_code: int | None, signal_name: str | None) -> None:
        """Called once, after everything that the slot had written was handled."""
        ...


class SlotProcess:
    """A worker process."""

    def __init__(self, owner: SlotOwner, number: int, cores: int) -> None:
        self.number = number
        self.cores = cores
        self.pid = 0
        self.is_ready = False
        self.is_dead = False
        self.is_killed = False
        self.peak_memory_bytes: int | None = None
        self.last_index = -1
        """The task last seen running: output that comes late is its."""
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: socket.socket
        self._noise = -1
        self._exit_fd: int | None = None
        self._counter: memoryview
        self._counter_path: Path
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._tail = b""
        self._tail_index = -1
        self._noise_bytes = 0
        self._memory_floor = 0

    # --- life ---

    def start(self, python: str, folder: Path, work_folder: Path | None) -> None:
        """Start the process. folder: where it puts large results. Raises OSError if it can't be started."""
        self._loop = asyncio.get_running_loop()
        self._counter_path = folder / f"counter-{self.number}"
        self._counter_path.write_bytes(bytes(COUNTER_BYTES))
        with self._counter_path.open("r+b") as file:
            self._counter = memoryview(mmap.mmap(file.fileno(), COUNTER_BYTES)).cast("Q")
        ours, theirs = socket.socketpair()
        noise, noise_end = os.pipe()
        self._memory_floor = platform.own_peak_memory()
        try:
            self._process = subprocess.Popen(
                [
                    python,
                    "-P",
                    str(SLOT_PROGRAM),
                    str(self._counter_path),
                    str(folder),
                    str(INLINE_BYTES),
                    str(Path(cloudpickle.__file__).parent.parent),
                    str(os.getpid()),
                ],
                stdin=theirs,
                stdout=theirs,
                stderr=noise_end,
                cwd=work_folder,
                env=environment.of_slot(os.environ, self.cores),
                **platform.group_arguments(),  # type: ignore[call-overload, unused-ignore]
            )
        except OSError:
            ours.close()
            os.close(noise)
            self._counter_path.unlink(missing_ok=True)
            raise
        finally:
            theirs.close()
            os.close(noise_end)
        self.pid = self._process.pid
        self._pipe, self._noise = ours, noise
        ours.setblocking(False)
        os.set_blocking(noise, False)
        self._loop.add_reader(ours.fileno(), self._readable)
        self._loop.add_reader(noise, self._drain_noise)
        self._watch_exit()

    def _watch_exit(self) -> None:
        self._exit_fd = platform.open_exit_fd(self.pid)
        if self._exit_fd is not None:
            self._loop.add_reader(self._exit_fd, self._exited)
            return
        loop, process = self._loop, self._process
        assert process is not None

        def wait() -> None:
            process.wait()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._exited)

        threading.Thread(target=wait, name=f"fallow-slot-{self.number}", daemon=True).start()

    def kill(self) -> None:
        """End the process and everything it started. `slot_died` follows."""
        if not self.is_dead and not self.is_killed:
            self.is_killed = True
            platform.kill_tree(self.pid)

    def close(self) -> None:
        """End it without telling the owner: the agent stops."""
        if self.is_dead or self._process is None:
            return
        if not self.is_killed:
            platform.kill_tree(self.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel dies when that lets it
            self._process.wait(CLOSE_WAIT_S)
        self._release()

    def _exited(self) -> None:
        if self.is_dead or self._process is None:
            return
        ended = platform.reap(self._process)
        if ended is None:
            return
        status, peak = ended
        if peak > self._memory_floor:
            self.peak_memory_bytes = peak
        platform.kill_group(self.pid)  # what the task had started
        while self._readable():
            pass
        self._drain_noise()
        self._release()
        self._owner.slot_died(self, *platform.describe_exit(status))

    def _release(self) -> None:
        self.is_dead = True
        self._loop.remove_reader(self._pipe.fileno())
        self._loop.remove_writer(self._pipe.fileno())
        self._loop.remove_reader(self._noise)
        self._pipe.close()
        os.close(self._noise)
        if self._exit_fd is not None:
            self._loop.remove_reader(self._exit_fd)
            os.close(self._exit_fd)
        self._counter_path.unlink(missing_ok=True)

    # --- the counter ---

    @property
    def running_index(self) -> int:
        """The task that runs now, -1 if none does."""
        return self._counter[RUNNING] - 1

    @property
    def started_ns(self) -> int:
        """When it began (monotonic clock), for jobs with a timeout; 0 if the slot is still loading it."""
        return self._counter[STARTED_NS]

    def tail(self, index: int) -> str:
        """Return the last output of a task."""
        return self._tail.decode("utf-8", "replace") if index == self._tail_index else ""

    # --- writing ---

    def write(self, data: bytes) -> None:
        """Send messages; never blocks."""
        if self.is_dead:
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
            self._loop.add_writer(self._pipe.fileno(), self._writable)

    def _writable(self) -> None:
        try:
            sent = self._pipe.send(self._outbox)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outbox)
        del self._outbox[:sent]
        if not self._outbox:
            self._loop.remove_writer(self._pipe.fileno())

    # --- reading ---

    def _readable(self) -> bool:
        """Handle all messages that have come; return whether there may be more."""
        if self.is_dead:
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
        if self._inbox:
            self._inbox += data
            if not self._is_complete():
                return True
            data = bytes(self._inbox)
            self._inbox.clear()
        used = self._handle(memoryview(data))
        if used < len(data):
            self._inbox += data[used:]
        return True

    def _is_complete(self) -> bool:
        """Whether the inbox has at least one whole message, so that it is not copied in vain."""
        if len(self._inbox) < HEADER.size:
            return False
        return len(self._inbox) >= HEADER.size + int(HEADER.unpack_from(self._inbox)[2])

    def _handle(self, data: memoryview) -> int:
        at, end = 0, data.nbytes
        while end - at >= HEADER.size:
            kind, key, length, a, b, c, d = HEADER.unpack_from(data, at)
            if length > MAX_BODY_BYTES or kind not in {READY, DONE, PRINTED}:
                self._owner.slot_faulty(self)
                return end
            stop = at + HEADER.size + length
            if stop > end:
                break
            body = data[at + HEADER.size : stop]
            at = stop
            if kind == DONE:
                self._drain_noise()
                self.last_index = b - 1
                self._owner.slot_done(self, key, (a, b, c, d), body)
            elif kind == PRINTED:
                self._printed(body)
            else:
                self.is_ready = True
                self._counter_path.unlink(missing_ok=True)  # both ends have it mapped
                self._owner.slot_ready(self)
        return at

    def _printed(self, body: memoryview) -> None:
        entries = []
        at = 0
        while at + PRINTED_ENTRY.size <= body.nbytes:
            index, length = PRINTED_ENTRY.unpack_from(body, at)
            at += PRINTED_ENTRY.size
            text = bytes(body[at : at + length])
            at += length
            self._keep_tail(index, text)
            entries.append((index, text.decode("utf-8", "replace")))
        self._owner.slot_printed(self, entries)

    def _drain_noise(self) -> None:
        """Take what was written to fd 1 and 2, by the task's children or C code, as output of the running task."""
        if self.is_dead:
            return
        try:
            text = os.read(self._noise, NOISE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            text = b""
        if not text:
            self._loop.remove_reader(self._noise)
            return
        index = self.running_index
        if index < 0:
            index = self.last_index
        if index < 0:
            self._keep_tail(-1, text)  # why it can't start, perhaps
            return
        if index != self._tail_index:
            self._noise_bytes = 0
        self._keep_tail(index, text)
        self._noise_bytes += len(text)
        if self._noise_bytes <= MAX_PRINTED_BYTES:
            self._owner.slot_printed(self, [(index, text.decode("utf-8", "replace"))])

    def _keep_tail(self, index: int, text: bytes) -> None:
        if index != self._tail_index:
            self._tail, self._tail_index, self._noise_bytes = b"", index, 0
        self._tail = (self._tail + text)[-TAIL_BYTES:]
