"""The node's slots: started together, kept warm, replaced when they die or can't serve a job. Knows nothing of links."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from fallow.log import Logger
from fallow.model.ids import Digest
from fallow.model.levels import Level
from fallow.node import platform
from fallow.node.accounts import Accounts
from fallow.node.lending import Lending
from fallow.node.limits import Guard, LimitKeeper
from fallow.node.node_job import NodeJob
from fallow.node.off_loop import OffLoop
from fallow.node.sandbox import Sandbox, open_sandbox
from fallow.node.settings import NodeSettings
from fallow.node.slot import Slot
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_process import SLOTS, SlotProcess
from fallow.slot.removing import remove_tree

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 30.0
FAILED_STARTS = 3
"""After so many slots in a row that died before they were ready the node takes no more leases, until one starts."""

_log = Logger("fallow.node")


class PoolOwner(Protocol):
    """Who uses the slots."""

    def slot_ready(self) -> None: ...

    def slot_done(self, slot: Slot, key: int, numbers: tuple[int, int, int, int], body: memoryview) -> None: ...

    def slot_gave(self, slot: Slot, number: int, at: int, cut: int) -> None: ...

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

    def __init__(self, settings: NodeSettings, off_loop: OffLoop) -> None:
        self.levels: tuple[Level, ...] = ("process",)
        """Sandboxes that work here."""
        self.default: Level = "process"
        """What tasks have if they ask for nothing stronger."""
        self._sandboxes: dict[Level, Sandbox] = {}
        self.lending = Lending()
        self._settings = settings
        self._owner: PoolOwner
        self._off_loop = off_loop
        self.limits = LimitKeeper(settings.folder, self._over_limit)
        self._folder = settings.folder / SLOTS
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

    def open(self, owner: PoolOwner) -> None:
        """End what an earlier agent left behind, and start all slots. owner: who is told what they say."""
        self._owner = owner
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

    @property
    def is_busy(self) -> bool:
        """Whether any is on a task."""
        for slot in self._slots.values():  # noqa: SIM110 - a generator costs more than the rest, for every batch
            if slot.batches and not slot.batches[0].is_lent:
                return True
        return False

    def choose(self, job: NodeJob, cores: int, memory_bytes: int) -> Slot | None:
        """Return a slot for tasks of a job that need so much each; None if none is free, or the node has too little left.

        If no idle slot can serve the job, one is replaced: None until then.
        """
        free_cores, free_bytes = self._settings.cores, self._settings.memory_bytes
        idle: list[Slot] = []
        for slot in self._slots.values():
            if slot.batches:
                free_cores -= slot.batches[0].cores
                free_bytes -= slot.batches[0].memory_bytes
            elif slot.is_idle:
                idle.append(slot)
        if idle:
            if free_cores < cores or free_bytes < memory_bytes:
                return None
            for slot in idle:
                if job.number in slot.jobs:
                    return slot
            for slot in idle:
                if slot.suits(job):
                    return slot
            self.recycle(idle[0], job.kind)
            return None
        if job.sizer.may_send_early():
            for slot in self._slots.values():
                if slot.takes_early(job):
                    return slot
        return None

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

    def slot_gave(self, process: SlotProcess, number: int, at: int, cut: int) -> None:
        self._owner.slot_gave(self._slots[process], number, at, cut)

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
        self.lending.take_back()
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
