"""One slot as its agent sees it: its messages, its output and its shared counter. Knows nothing of leases or links."""

import contextlib
import mmap
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cloudpickle
import msgspec

import fallow.slot
from fallow.model.page import INLINE_BYTES
from fallow.node import environment, platform
from fallow.node.channel import Channel
from fallow.node.given_files import GivenFiles, Holder
from fallow.node.limits import Guard
from fallow.node.sandbox import Launch, Sandbox
from fallow.node.settings import NodeSettings
from fallow.node.slot_kind import SlotKind
from fallow.slot.protocol import (
    COUNTER_BYTES,
    CUT,
    DONE,
    GAVE,
    HEADER,
    LAST,
    MAX_BODY_BYTES,
    PRINTED,
    PRINTED_ENTRY,
    PROGRESS,
    READY,
    RUNNING,
    SAVED,
    STARTED_NS,
)
from fallow.slot.removing import remove_tree

TAIL_BYTES = 4 * 1024
"""Output of the running task that is kept for the report of its crash."""

SLOTS = "slots"
"""Folder of the slots' own ones, in the agent's folder and in its folder in memory."""

_decode_progress = msgspec.json.Decoder(tuple[float | None, str]).decode

SLOT_PROGRAM = Path(fallow.slot.__file__).with_name("__main__.py")
PROGRAM_FOLDERS = (SLOT_PROGRAM.parent.parent, Path(cloudpickle.__file__).parent)


class SlotOwner(Protocol):
    """Who is told what a slot says. All calls come on the event loop's thread."""

    def slot_ready(self, slot: "SlotProcess") -> None: ...

    def slot_done(
        self, slot: "SlotProcess", key: int, numbers: tuple[int, int, int, int], body: memoryview
    ) -> None: ...

    def slot_gave(self, slot: "SlotProcess", number: int, at: int, cut: int) -> None:
        """Answer to `cut`: run `number`, the last that has begun, ends at index `at`; what was sent later, up to run `cut`, is
        dropped.
        """
        ...

    def slot_printed(self, slot: "SlotProcess", entries: Sequence[tuple[int, bytes]]) -> None: ...

    def slot_saved(self, slot: "SlotProcess", index: int, path: Path) -> None:
        """A task has left a checkpoint, in a file of the slot's folder."""
        ...

    def slot_progressed(self, slot: "SlotProcess") -> None:
        """`progress` is another."""
        ...

    def slot_faulty(self, slot: "SlotProcess") -> None:
        """A task has written into our pipe: nothing in it can be trusted any more."""
        ...

    def slot_died(self, slot: "SlotProcess", exit_code: int | None, signal_name: str | None) -> None:
        """Called once, after everything that the slot had written was handled."""
        ...


class SlotProcess:
    """A worker process."""

    def __init__(self, owner: SlotOwner, number: int, kind: SlotKind, folder: Path) -> None:
        """folder: its own, which it makes: the only place that it may write to."""
        self.number = number
        self.kind = kind
        self.folder = folder
        self.memory_folder: Path | None = None
        """Where it puts large results beside that, if it may."""
        self.is_ready = False
        self.is_dead = False
        self.is_killed = False
        self.peak_memory_bytes: int | None = None
        self.progress: tuple[int, float | None, str] = (-1, None, "")
        """What a task has said last: its index, the part that is done, and words."""
        self.guard: Guard | None = None
        """Its limits, if it has any."""
        self._owner = owner
        self._given = None if kind.sandbox == "process" else GivenFiles(folder.with_name(f"{folder.name}-given"))
        self._channel: Channel
        self._mapped: mmap.mmap | None = None
        self._counter = memoryview(bytes(COUNTER_BYTES)).cast("Q")
        self._counter_path: Path
        self._inbox = bytearray()
        self._tail = b""
        self._tail_index = -1

    @property
    def pid(self) -> int:
        return self._channel.pid

    # --- life ---

    def start(self, python: str, sandbox: Sandbox, settings: NodeSettings) -> None:
        """Start the process; raises OSError if it can't be started. python: the interpreter that it runs in."""
        self.folder.mkdir(parents=True)
        if self._given is not None:
            self._given.open()
        if settings.memory_folder is not None and self.kind.sandbox == "process" and self.guard is None:
            folder = settings.memory_folder / SLOTS / self.folder.name
            with contextlib.suppress(OSError):  # it is full
                folder.mkdir(parents=True)
                self.memory_folder = folder
        self._counter_path = self.folder / "counter"
        self._counter_path.write_bytes(bytes(COUNTER_BYTES))
        with self._counter_path.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), COUNTER_BYTES)
        self._counter = memoryview(self._mapped).cast("Q")
        command = [
            python,
            "-P",
            str(SLOT_PROGRAM),
            str(self._counter_path),
            str(self.folder),
            "" if self.memory_folder is None else str(self.memory_folder),
            str(INLINE_BYTES),
            str(Path(cloudpickle.__file__).parent.parent),
        ]
        variables = environment.of_slot(os.environ, self.kind.cores, settings.name)
        if self.kind.environment is not None:
            variables = environment.within(python, variables)
        launch = Launch(
            command=command,
            environment=variables,
            folder=self.folder,
            home=settings.folder,
            containment=self.kind.containment,
            prefix=() if self.guard is None else self.guard.prefix(),
            accounts=None if self.guard is None else self.guard.accounts,
            readable=PROGRAM_FOLDERS if self._given is None else (*PROGRAM_FOLDERS, self._given.folder),
            work_folder=settings.work_folder,
            channel=settings.channel,
        )
        try:
            self._channel = sandbox.start(launch, self)
            if self.guard is not None:
                self.guard.started(self.pid)
        except OSError:
            self._release()
            raise

    def clear(self) -> None:
        """Remove what it leaves, after its end. Blocks."""
        for folder in (self.folder, self.memory_folder):
            if folder is not None:
                remove_tree(str(folder))
        if self._given is not None:
            shutil.rmtree(self._given.folder, ignore_errors=True)

    def give(self, path: Path, holder: Holder | None) -> str:
        """Return where it finds a file or folder of the agent's: see `GivenFiles.give`. Without a sandbox that is where it lies."""
        return str(path if self._given is None else self._given.give(path, holder))

    def take_back(self, holder: Holder) -> None:
        """What it was given for a job or a page is not needed any more."""
        if self._given is not None:
            self._given.take_back(holder)

    def kill(self) -> None:
        """End the process and everything it started. `slot_died` follows."""
        if not self.is_dead and not self.is_killed:
            self.is_killed = True
            self._channel.kill()

    def close(self) -> None:
        """End it without telling the owner: the agent stops."""
        if not self.is_dead:
            self._channel.close()
            self._release()

    def channel_ended(self, status: int, peak_memory_bytes: int) -> None:
        if self.guard is not None:
            self.guard.see()
            peak_memory_bytes = max(peak_memory_bytes, self.guard.peak_memory_bytes or 0)
        self.peak_memory_bytes = peak_memory_bytes or None
        self._release()
        self._owner.slot_died(self, *platform.describe_exit(status))

    def _release(self) -> None:
        self.is_dead = True
        if self._mapped is not None:
            last = self._counter
            self._counter = memoryview(bytes(last)).cast("Q")  # it tells still which task it died of
            last.release()
            with contextlib.suppress(BufferError):
                self._mapped.close()
            self._mapped = None
        platform.remove_mapped(self._counter_path)

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
        self._channel.write(data)

    def cut(self, number: int) -> None:
        """Ask for all tasks back that have not begun, of the runs up to this number; `slot_gave` follows."""
        self._channel.write_control(HEADER.pack(CUT, 0, 0, number, 0, 0, 0))

    # --- reading ---

    def channel_data(self, data: bytes) -> None:
        if self._inbox:
            self._inbox += data
            if not self._is_complete():
                return
            data = bytes(self._inbox)
            self._inbox.clear()
        used = self._handle(memoryview(data))
        if used < len(data):
            self._inbox += data[used:]

    def _is_complete(self) -> bool:
        """Whether the inbox has at least one whole message, so that it is not copied in vain."""
        if len(self._inbox) < HEADER.size:
            return False
        return len(self._inbox) >= HEADER.size + int(HEADER.unpack_from(self._inbox)[2])

    def _handle(self, data: memoryview) -> int:
        at, end = 0, data.nbytes
        while end - at >= HEADER.size:
            kind, key, length, a, b, c, d = HEADER.unpack_from(data, at)
            if length > MAX_BODY_BYTES or kind not in {READY, DONE, PRINTED, GAVE, SAVED, PROGRESS}:
                self._owner.slot_faulty(self)
                return end
            stop = at + HEADER.size + length
            if stop > end:
                break
            body = data[at + HEADER.size : stop]
            at = stop
            if kind == DONE:
                self._channel.drain_noise()
                if a <= self._tail_index < b:  # a task of another job may have the same index
                    self._tail, self._tail_index = b"", -1
                self._owner.slot_done(self, key, (a, b, c, d), body)
            elif kind == PRINTED:
                self._printed(body)
            elif kind == GAVE:
                self._owner.slot_gave(self, a, b, c)
            elif kind in {SAVED, PROGRESS}:
                self._told(kind, a, bytes(body))
            else:
                self.is_ready = True
                platform.remove_mapped(self._counter_path)  # both ends have it
                self._owner.slot_ready(self)
        return at

    def _told(self, kind: int, index: int, body: bytes) -> None:
        try:
            if kind == SAVED:
                path = Path(os.fsdecode(body))
                if path.parent != self.folder:
                    raise ValueError("a checkpoint outside of the slot's folder")
                self._owner.slot_saved(self, index, path)
            else:
                self.progress = (index, *_decode_progress(body))
                self._owner.slot_progressed(self)
        except ValueError:  # msgspec's are of this kind
            self._owner.slot_faulty(self)

    def _printed(self, body: memoryview) -> None:
        entries = []
        at = 0
        while at + PRINTED_ENTRY.size <= body.nbytes:
            index, length = PRINTED_ENTRY.unpack_from(body, at)
            at += PRINTED_ENTRY.size
            text = bytes(body[at : at + length])
            at += length
            self._keep_tail(index, text)
            entries.append((index, text))
        self._owner.slot_printed(self, entries)

    def channel_noise(self, text: bytes) -> None:
        """Take it as output of the running task."""
        index = self.running_index
        if index < 0:  # it comes late
            index = self._counter[LAST] - 1
        self._keep_tail(index, text)  # at -1: why it can't start, perhaps
        if index >= 0:
            self._owner.slot_printed(self, [(index, text)])

    def _keep_tail(self, index: int, text: bytes) -> None:
        if index != self._tail_index:
            self._tail, self._tail_index = b"", index
        self._tail = (self._tail + text)[-TAIL_BYTES:]
