"""What slots may use: their limits are set where the system can enforce them, and watched from outside where it can't.

A slot over a limit is ended, and the task that it was on fails with the limit's name: see `Excess`. Looking takes place in a
thread, so that a large folder or tree of processes stops nobody.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

import psutil

from fallow.model.containment import Limits
from fallow.model.requirements import format_size
from fallow.node import cgroups
from fallow.node.accounts import Accounts
from fallow.node.cgroups import Cgroups, Group
from fallow.node.off_loop import OffLoop

LOOK_S = 0.1
"""How often slots with limits are looked at. What is watched only may be exceeded for so long."""
CLOSE_WAIT_S = 1.0
CLOSE_POLL_S = 0.01
"""How long the last groups are waited for when the agent stops, and how often they are tried."""
OWN_PROCESSES = 8
"""Processes and threads of a slot that are not its task's: interpreter, its threads, what a sandbox puts around them."""

What = Literal["memory", "processes", "disk"]


@dataclass(frozen=True)
class Excess:
    """A slot went over a limit."""

    what: What
    limit: int
    peak: int | None

    def __str__(self) -> str:
        if self.what == "processes":
            return f"went over its limit of {self.limit} processes and threads"
        peak = "" if self.peak is None else f": it had {format_size(self.peak)}"
        place = "memory" if self.what == "memory" else "disk space in its folder"
        return f"went over its limit of {format_size(self.limit)} of {place}{peak}"


class Guard:
    """The limits of one slot."""

    def __init__(self, limits: Limits, folder: Path, group: Group | Accounts | None) -> None:
        """folder: the slot's own. group: enforces what it can."""
        self.pid = 0
        self.limits = limits
        self.peak_memory_bytes: int | None = None
        self.excess: Excess | None = None
        self._folder = folder
        self._group = group
        controls = frozenset() if group is None else group.controls
        self._watches_memory = limits.memory_bytes is not None and "memory" not in controls
        self._watches_processes = limits.processes is not None and "pids" not in controls
        self.is_watched = limits != Limits()

    @property
    def accounts(self) -> Accounts | None:
        return self._group if isinstance(self._group, Accounts) else None

    def prefix(self) -> Sequence[str]:
        return () if self._group is None else self._group.prefix()

    def started(self, pid: int) -> None:
        self.pid = pid
        cpus = self.limits.cpus
        if cpus is not None and (self._group is None or "cpu" not in self._group.controls):
            _pin(pid, cpus)

    def look(self) -> Excess | None:
        """Return what it is over now. Blocks."""
        limits, group = self.limits, self._group
        if group is not None:
            self._see_group(group)
        if self.excess is None and (self._watches_memory or self._watches_processes):
            self._see_tree()
        if self.excess is None and limits.disk_bytes is not None:
            used = _disk_bytes(self._folder)
            if used is None or used > limits.disk_bytes:
                self.excess = Excess("disk", limits.disk_bytes, used)
        return self.excess

    def see(self) -> Excess | None:
        """Return what the system has stopped it from, quickly: a task has failed, or the slot has died."""
        if self._group is not None and self.excess is None:
            self._see_group(self._group)
        return self.excess

    def remove(self) -> bool:
        """Remove what was made for the slot, after its end; return whether it is gone."""
        return self._group is None or self._group.remove()

    def _see_group(self, group: Group | Accounts) -> None:
        limits = self.limits
        self.peak_memory_bytes = group.peak_memory_bytes()
        if limits.memory_bytes is not None and group.killed_for_memory():
            self.excess = Excess("memory", limits.memory_bytes, self.peak_memory_bytes)
        elif limits.processes is not None and group.refused_processes():
            self.excess = Excess("processes", limits.processes, None)

    def _see_tree(self) -> None:
        limits = self.limits
        processes = _tree(self.pid)
        memory = _sum(processes, lambda each: each.memory_info().rss)
        if limits.memory_bytes is not None and memory > limits.memory_bytes:
            memory = _sum(processes, _fair_share)
        self.peak_memory_bytes = max(memory, self.peak_memory_bytes or 0)
        if self._watches_memory and limits.memory_bytes is not None and memory > limits.memory_bytes:
            self.excess = Excess("memory", limits.memory_bytes, memory)
        elif self._watches_processes and limits.processes is not None:
            count = _sum(processes, lambda each: each.num_threads())
            is_over = count > limits.processes + OWN_PROCESSES
            self.excess = Excess("processes", limits.processes, None) if is_over else None


class LimitKeeper:
    """All guards of a node."""

    def __init__(self, folder: Path, on_excess: Callable[[Guard], None]) -> None:
        """folder: the agent's, by which its groups are told from others'. on_excess: called once per guard."""
        self.how = ""
        """How limits are enforced here, for people."""
        self._name = f"{cgroups.PREFIX}-{sha256(os.fsencode(folder.absolute())).hexdigest()[:12]}"
        self._on_excess = on_excess
        self._groups: Cgroups | None = None
        self._guards: set[Guard] = set()
        self._leaving: set[Guard] = set()
        self._numbers = 0
        self._off_loop = OffLoop(1)
        self._timer: asyncio.Task[None] | None = None

    def open(self, *, may_move: bool) -> None:
        """Find out how limits can be enforced. may_move: see `fallow.node.cgroups.find`."""
        self._groups, how = cgroups.find(self._name, may_move=may_move)
        if self._groups is not None:
            try:
                self._groups.open()
                self._groups.make(0, Limits(1 << 30, 1.0, 100), OWN_PROCESSES).remove()
            except OSError as error:
                self._groups, how = None, f"control groups can't be made: {error.strerror or error}"
        self.how = _describe(self._groups, how)

    def guard(
        self, limits: Limits, folder: Path, accounts: Accounts | None = None, *, needs_peak: bool = False
    ) -> Guard | None:
        """Return the guard of a slot that is to start; None if it needs none. accounts: of a sandbox that enforces limits
        itself. needs_peak: its memory is not told else.
        """
        if limits == Limits() and not (needs_peak and self._groups is not None):
            return None
        self._numbers += 1
        group: Group | Accounts | None = accounts
        if group is None and self._groups is not None:
            group = self._groups.make(self._numbers, limits, OWN_PROCESSES)
        guard = Guard(limits, folder, group)
        self._guards.add(guard)
        if guard.is_watched and self._timer is None:
            self._timer = asyncio.get_running_loop().create_task(self._watch())
        return guard

    def release(self, guard: Guard) -> None:
        """Its slot has ended, or could not start."""
        self._guards.discard(guard)
        if not guard.remove():
            self._leaving.add(guard)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        """All slots have ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._off_loop.close()
        leaving = self._guards | self._leaving
        deadline = time.monotonic() + CLOSE_WAIT_S
        while (leaving := {guard for guard in leaving if not guard.remove()}) and time.monotonic() < deadline:
            time.sleep(CLOSE_POLL_S)  # what was killed is still dying

    async def _watch(self) -> None:
        while self._leaving or any(guard.is_watched for guard in self._guards):
            await asyncio.sleep(LOOK_S)
            watched = [guard for guard in self._guards if guard.is_watched and guard.excess is None]
            await self._off_loop(partial(_look_at, watched))
            for guard in [each for each in watched if each.excess is not None]:
                if guard in self._guards:
                    self._on_excess(guard)
            self._leaving = {guard for guard in self._leaving if not guard.remove()}
        self._timer = None


def _describe(groups: Cgroups | None, how: str) -> str:
    controlled = frozenset() if groups is None else frozenset(groups.parents)
    parts = [f"by {how}" if groups is not None else how]
    watched = [
        name for name, controller in (("memory", "memory"), ("processes", "pids")) if controller not in controlled
    ]
    parts.append(f"{', '.join([*watched, 'disk'])}: looked at every {LOOK_S:g} s, and ended if over")
    if "cpu" not in controlled:
        parts.append("processors: " + ("whole cores" if hasattr(os, "sched_setaffinity") else "not enforced"))
    return "; ".join(parts)


def _look_at(guards: Sequence[Guard]) -> None:
    for guard in guards:
        guard.look()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _sum(processes: Sequence[psutil.Process], measure: Callable[[psutil.Process], int]) -> int:
    total = 0
    for process in processes:
        try:
            total += measure(process)
        except psutil.Error:
            continue  # it has ended
    return total


def _fair_share(process: psutil.Process) -> int:
    """Return a process's memory, with what it shares divided among the sharers, where the system tells."""
    if psutil.LINUX:
        return int(process.memory_full_info().pss)
    return int(process.memory_info().rss)


def _disk_bytes(folder: Path) -> int | None:
    """Return what the files below a folder take; None if they are nested so deep that they have no path."""
    total = 0
    left = [os.fspath(folder)]
    while left:
        place = left.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                        continue
                    with suppress(FileNotFoundError):
                        facts = entry.stat(follow_symlinks=False)
                        total += facts.st_blocks * 512 if hasattr(facts, "st_blocks") else facts.st_size
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
    return total


def _pin(pid: int, cpus: float) -> None:
    """Let a process use so many cores, rounded up: the best there is without control groups."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        count = min(len(cores), max(1, -int(-cpus // 1)))
        first = pid % len(cores)
        os.sched_setaffinity(pid, {cores[(first + i) % len(cores)] for i in range(count)})
