"""The node's slots: started together, kept warm, replaced when they die or can't serve a job. Knows nothing of links."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from fallow.log import Logger
from fallow.model.ids import Digest, JobId, LeaseId
from fallow.model.levels import Level
from fallow.model.page import ResultPage
from fallow.node import platform
from fallow.node.accounts import Accounts
from fallow.node.limits import Guard, LimitKeeper
from fallow.node.off_loop import OffLoop
from fallow.node.sandbox import Sandbox, open_sandbox
from fallow.node.settings import NodeSettings
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_process import SlotProcess
from fallow.slot.protocol import CUT_NOTE, MAX_PRINTED_BYTES
from fallow.slot.removing import remove_tree

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 30.0
FAILED_STARTS = 3
"""After so many slots in a row that died before they were ready the node takes no more leases, until one starts."""

_log = Logger("fallow.node")

EndReason = Literal["timeout", "cancelled", "recycled", "faulty", "limit"]


NO_LEASE = LeaseId(-1)


class DirectCall(Protocol):
    """A task that came straight from the client whose process the node runs in: the hub knows nothing of it.

    Its job is one that the hub has leased tasks of before, so that function and environment are here.
    """

    def done(self, page: ResultPage, path: Path | None) -> None:
        """It has run. path: the file with the page's bytes, if they are many; the slot's, for the moment."""
        ...

    def lost(self) -> None:
        """Its slot has ended before it did."""
        ...


class Batch:
    """Tasks [start, stop) of a lease, in a slot; those before `next` are done."""

    def __init__(self, number: int, lease: LeaseId, job: JobId, job_number: int, start: int, stop: int) -> None:
        """number: of the run in its slot, from 1 on."""
        self.number = number
        self.lease = lease
        self.job = job
        self.job_number = job_number
        self.start = start
        self.stop = stop
        self.next = start
        self.cores = 1
        self.memory_bytes = 0
        self.timeout_s: float | None = None
        self.is_first = False
        self.expected_s = 0.0
        self.since = 0.0
        self.ran_s = 0.0
        self.result_bytes = 0
        self.last_of_page = -1
        """Number of the input page, if it is a large one that this batch ends."""
        self.cancelled = False
        """Some of its tasks were cancelled: the slot is killed if it comes to one."""
        self.direct: DirectCall | None = None
        """What it is, if it is of no lease."""
        self.is_lent = False
        """It is what the next direct call will be: see `Lending`."""
        self._output_bytes: dict[int, int] = {}

    @property
    def is_direct(self) -> bool:
        return self.lease == NO_LEASE

    def bounded_output(self, index: int, data: bytes) -> bytes:
        """Return what is kept of a task's output, whichever way it came, with a note where it is cut."""
        used = self._output_bytes.get(index, 0)
        self._output_bytes[index] = used + len(data)
        room = MAX_PRINTED_BYTES - used
        if len(data) <= room:
            return data
        return data[:room] + CUT_NOTE if room >= 0 else b""


class Slot:
    """A slot with what was sent to it."""

    def __init__(self, process: SlotProcess) -> None:
        self.process = process
        self.batches: deque[Batch] = deque()
        self.owner: str | None = None
        """Whose tasks it runs, once it has run one and is sandboxed: it never runs another user's then."""
        self.runs = 0
        """Batches that it was ever sent."""
        self.cut_to = 0
        """It was asked to give back what had not begun of its batches up to this number."""
        self.jobs: set[int] = set()
        self.pages: set[int] = set()
        self.sources: dict[str, Digest] = {}
        self.messages: list[bytes] = []
        """Messages that go with the next batch."""
        self.printing: Batch | None = None
        """What output belongs to, also if it comes late."""
        self.end_reason: EndReason | None = None
        self.end_index = -1
        self.last_words = ""
        """What its task failed with, if that was of a limit."""
        self.next_kind: SlotKind | None = None
        """What takes its place when it has ended, if that is another kind."""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        return self.process.is_ready and not self.batches and self.end_reason is None and not self.process.is_dead

    @property
    def is_cut(self) -> bool:
        """Whether it runs a batch that overstays: nothing more is put behind that."""
        return bool(self.batches) and self.batches[0].number <= self.cut_to

    def cut(self) -> None:
        """Ask for everything back that it has not begun."""
        self.cut_to = self.runs
        self.process.cut(self.runs)

    def end(self, reason: EndReason, index: int = -1) -> None:
        """Kill the process; the owner hears of its death soon. index: the task that is to blame."""
        if self.end_reason is None and not self.process.is_dead:
            self.end_reason, self.end_index = reason, index
            self.process.kill()


class PoolOwner(Protocol):
    """Who uses the slots."""

    def slot_ready(self) -> None: ...

    def slot_done(self, slot: Slot, key: int, numbers: tuple[int, int, int, int], body: memoryview) -> None: ...

    def slot_gave(self, slot: Slot, number: int, at: int) -> None: ...

    def slot_printed(self, slot: Slot, entries: Sequence[tuple[int, bytes]]) -> None: ...

    def slot_saved(self, slot: Slot, index: int, path: Path) -> None: ...

    def slot_progressed(self) -> None: ...

    def slot_died(self, slot: Slot, exit_code: int | None, signal_name: str | None) -> None: ...

    def slots_unavailable(self, reason: str | None) -> None:
        """No slot can be started, for this reason; None: again they can."""
        ...

    def kind_unusable(self, kind: SlotKind, reason: str) -> None:
        """No slot of that environment or image can be started."""
        ...


class SlotPool:
    """Keeps `settings.slots` processes alive."""

    def __init__(self, settings: NodeSettings, owner: PoolOwner, off_loop: OffLoop) -> None:
        self.levels: tuple[Level, ...] = ("process",)
        """Sandboxes that work here."""
        self.default: Level = "process"
        """What tasks have if they ask for nothing stronger."""
        self._sandboxes: dict[Level, Sandbox] = {}
        self._settings = settings
        self._owner = owner
        self._off_loop = off_loop
        self.limits = LimitKeeper(settings.folder, self._over_limit)
        self._folder = settings.folder / "slots"
        self._pid_file = settings.folder / "pids"
        self._clearing: set[asyncio.Task[None]] = set()
        self._slots: dict[SlotProcess, Slot] = {}
        self._started: dict[int, float] = {}
        self._numbers = 0
        self.pythons: dict[Digest, str] = {}
        """Interpreters of the environments that are built."""
        self._unusable: Counter[SlotKind] = Counter()
        """Slots in a row that could not start in an environment."""
        self._failures = 0
        self._timers: set[asyncio.TimerHandle] = set()
        self._is_closed = False

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def open(self) -> None:
        """End what an earlier agent left behind, and start all slots."""
        if self._pid_file.exists():
            ended = platform.end_leftovers(_read_pids(self._pid_file))
            if ended:
                _log.info("ended slots of an earlier agent", slots=ended)
        remove_tree(str(self._folder))
        self._folder.mkdir(parents=True)
        self.limits.open(may_move=self._settings.is_alone)
        for _ in range(self._settings.slots):
            self._start(SlotKind(sandbox=self.default))

    def close(self) -> None:
        """Kill all slots and everything that they started; returns when they are gone."""
        self._is_closed = True
        for timer in self._timers:
            timer.cancel()
        slots = list(self._slots.values())
        self._slots.clear()
        for slot in slots:
            if slot.timer is not None:
                slot.timer.cancel()
        for slot in slots:
            slot.process.kill()  # all, before one is waited for
        for slot in slots:
            slot.process.close()
        for sandbox in self._sandboxes.values():
            sandbox.close()
        self.limits.close()
        for task in self._clearing:
            task.cancel()
        self._pid_file.unlink(missing_ok=True)
        remove_tree(str(self._folder))

    def sandbox(self, level: Level) -> Sandbox:
        """Return the sandbox of a level, opened when it is first asked for."""
        if level not in self._sandboxes:
            self._sandboxes[level] = open_sandbox(level, self._settings.folder)
        return self._sandboxes[level]

    def use(self, level: Level) -> None:
        """Have the slots in this level from now on, if tasks ask for nothing stronger. For before there are leases."""
        self.default = level
        for slot in self:
            if slot.process.kind.sandbox != level:
                self.recycle(slot, SlotKind(sandbox=level))

    def recycle(self, slot: Slot, kind: SlotKind) -> None:
        """Replace an idle slot by one of a kind that has loaded nothing."""
        slot.next_kind = kind
        slot.end("recycled")

    def _start(self, kind: SlotKind) -> None:
        if self._is_closed:
            return
        self._numbers += 1
        folder = self._folder / str(self._numbers)
        process = SlotProcess(self, self._numbers, kind, folder)
        sandbox = self.sandbox(kind.sandbox)
        try:
            accounts = Accounts() if sandbox.limits else None
            needs_peak = kind.sandbox == "bubblewrap"
            process.guard = self.limits.guard(kind.containment.limits, folder, accounts, needs_peak=needs_peak)
            python = self._settings.python if kind.environment is None else self.pythons[kind.environment]
            process.start(python, sandbox, self._settings)
        except OSError as error:
            self._release(process)
            self._clear(process)
            self._start_failed(kind, str(error))
            return
        self._slots[process] = Slot(process)
        self._started[process.pid] = platform.start_time(process.pid) or 0.0
        self._write_pids()

    def _start_failed(self, kind: SlotKind, reason: str) -> None:
        if kind.environment is not None or kind.containment.image is not None:
            self._unusable[kind] += 1
            if self._unusable[kind] >= FAILED_STARTS:
                del self._unusable[kind]
                self._owner.kind_unusable(kind, f"no slot can start in it: {reason}")
                kind = SlotKind(sandbox=self.default)
        self._failures += 1
        if self._failures >= FAILED_STARTS:
            self._owner.slots_unavailable(f"slots can't start: {reason}")
        wait = min(FIRST_BACKOFF_S * 2 ** (self._failures - 1), MAX_BACKOFF_S)
        timer: asyncio.TimerHandle

        def again() -> None:
            self._timers.discard(timer)
            self._start(kind if kind.sandbox in self.levels else SlotKind(sandbox=self.default))

        timer = asyncio.get_running_loop().call_later(wait, again)
        self._timers.add(timer)

    def _clear(self, process: SlotProcess) -> None:
        """Remove the folders of a slot that has ended, with all that its tasks left there."""

        async def clear() -> None:
            await self._off_loop(process.clear)

        task = asyncio.get_running_loop().create_task(clear())
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    def _release(self, process: SlotProcess) -> None:
        if process.guard is not None:
            self.limits.release(process.guard)

    def _over_limit(self, guard: Guard) -> None:
        for slot in self._slots.values():
            if slot.process.guard is guard:
                slot.end("limit", slot.process.running_index)

    def _write_pids(self) -> None:
        self._pid_file.write_text("".join(f"{pid} {started}\n" for pid, started in self._started.items()))

    # --- what slots say ---

    def slot_ready(self, process: SlotProcess) -> None:
        if self._failures >= FAILED_STARTS:
            self._owner.slots_unavailable(None)
        self._failures = 0
        if process.kind.environment is not None:
            self._unusable.pop(process.kind, None)
        self._owner.slot_ready()

    def slot_done(self, process: SlotProcess, key: int, numbers: tuple[int, int, int, int], body: memoryview) -> None:
        self._owner.slot_done(self._slots[process], key, numbers, body)

    def slot_gave(self, process: SlotProcess, number: int, at: int) -> None:
        self._owner.slot_gave(self._slots[process], number, at)

    def slot_printed(self, process: SlotProcess, entries: Sequence[tuple[int, bytes]]) -> None:
        self._owner.slot_printed(self._slots[process], entries)

    def slot_saved(self, process: SlotProcess, index: int, path: Path) -> None:
        self._owner.slot_saved(self._slots[process], index, path)

    def slot_progressed(self, process: SlotProcess) -> None:
        self._owner.slot_progressed()

    def slot_faulty(self, process: SlotProcess) -> None:
        self._slots[process].end("faulty", process.running_index)

    def slot_died(self, process: SlotProcess, exit_code: int | None, signal_name: str | None) -> None:
        slot = self._slots.pop(process, None)
        if slot is None:
            return
        if slot.timer is not None:
            slot.timer.cancel()
        if self._started.pop(process.pid, None) is not None:
            self._write_pids()
        self._release(process)
        self._clear(process)
        kind = slot.next_kind or process.kind
        if process.is_ready:
            self._start(kind)
        else:
            how = f"signal {signal_name}" if signal_name else f"exit code {exit_code}"
            self._start_failed(kind, f"{how}: {process.tail(-1).strip()[-500:] or 'no output'}")
        self._owner.slot_died(slot, exit_code, signal_name)


def _read_pids(path: Path) -> list[tuple[int, float]]:
    out = []
    for line in path.read_text().splitlines():
        pid, _, started = line.partition(" ")
        try:
            out.append((int(pid), float(started)))
        except ValueError:
            continue  # a torn line
    return out
