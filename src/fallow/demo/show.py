"""The course of a demo: the tasks in one process, the same tasks on a grid that loses a node, the comparison."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fallow.client.grid import Grid
from fallow.client.job import Job
from fallow.demo.fleet import Fleet
from fallow.demo.programs import Program
from fallow.demo.roster import Roster, Row
from fallow.demo.screen import Screen

REDRAW_S = 0.2
KILL_AT = 0.5
"""Share of the tasks after which a node is killed."""


@dataclass
class Figures:
    """What one demo came to; all times in seconds."""

    program: str
    tasks: int
    nodes: int
    grid_s: float = 0.0
    """From handing the job to the grid to holding every result."""
    serial_s: float | None = None
    """The same tasks in one process, in the same run; None if that was not asked for."""
    away_s: float = 0.0
    """How long a node was missing."""
    is_right: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def speedup(self) -> float | None:
        return self.serial_s / self.grid_s if self.serial_s is not None else None


def run(program: Program, screen: Screen, *, nodes: int, kill: bool, compare: bool) -> Figures:
    """Run a demo and return its figures; raises FallowError where the grid itself failed.

    kill: whether one node is killed on the way and started again. compare: whether the tasks are also run in this
    process, first, while nothing else of the demo runs.
    """
    figures = Figures(program.name, len(program.inputs), nodes)
    screen.say(f"{program.title}: {figures.tasks:,} tasks")
    alone = _run_alone(program, screen, figures) if compare else None
    with _fleet(nodes, screen) as fleet, Grid(fleet.url, token=fleet.token, progress=False) as grid:
        results = _run_on(fleet, grid, program, screen, figures, kill=kill)
    verdict = program.judge(results)
    for line in verdict.lines:
        screen.say(line)
    figures.facts = verdict.facts
    figures.is_right = verdict.is_right and _is_same(results, alone, screen)
    _conclude(screen, figures)
    return figures


def _run_alone(program: Program, screen: Screen, figures: Figures) -> list[Any]:
    screen.say("first, in one plain process, to compare")
    results: list[Any] = []
    began = shown = time.perf_counter()
    for each in program.inputs:
        results.append(program.function(each))
        now = time.perf_counter()
        if now - shown > REDRAW_S:
            screen.progress("one process", len(results), figures.tasks, now - began)
            shown = now
    figures.serial_s = time.perf_counter() - began
    screen.clear()
    screen.say(f"one process took {figures.serial_s:.1f} s")
    return results


@contextmanager
def _fleet(nodes: int, screen: Screen) -> Iterator[Fleet]:
    began = time.perf_counter()
    with Fleet(nodes) as fleet:
        pids = ", ".join(f"{name} {pid}" for name, pid in fleet.pids().items())
        took = time.perf_counter() - began
        screen.say(f"a hub at {fleet.url} and {nodes} nodes of one slot each, up in {took:.1f} s (process ids: {pids})")
        yield fleet


def _run_on(fleet: Fleet, grid: Grid, program: Program, screen: Screen, figures: Figures, *, kill: bool) -> list[Any]:
    with ThreadPoolExecutor(1) as reader:
        began = time.perf_counter()
        job = grid.map(program.function, program.inputs)
        collected = reader.submit(_collect, job, began)
        roster = Roster(fleet.names, fleet.nodes)
        accident = _Accident(fleet, screen) if kill else None
        try:
            while not wait([collected], REDRAW_S).done:
                done, rows = job.progress.settled, roster.look()
                if accident is not None:
                    accident.look(done / figures.tasks, rows[-1])
                screen.progress("grid", done, figures.tasks, time.perf_counter() - began, rows)
        except BaseException:
            job.cancel()  # or the reader would wait for the rest
            raise
        results, figures.grid_s = collected.result()
        screen.clear()
        if accident is not None:
            figures.away_s = accident.away_s()
    each = ", ".join(f"{row.name} {row.finished:,}" for row in roster.look())
    screen.say(f"the grid took {figures.grid_s:.1f} s (tasks: {each})")
    return results


def _collect(job: Job[Any], began: float) -> tuple[list[Any], float]:
    results = list(job)
    return results, time.perf_counter() - began


class _Accident:
    """Kills the last node when its time has come, says when its leases went back, and starts it again."""

    def __init__(self, fleet: Fleet, screen: Screen) -> None:
        self._fleet = fleet
        self._screen = screen
        self._victim = fleet.names[-1]
        self._stage: str = "working"
        self._killed_mono = self._back_mono = 0.0

    def look(self, share: float, victim: Row) -> None:
        """Do what is due. share: of the tasks that are done. victim: the last node, as the hub sees it."""
        if self._stage == "working" and share >= KILL_AT:
            pid = self._fleet.pids()[self._victim]
            self._fleet.kill_node(self._victim)
            self._killed_mono = time.monotonic()
            self._stage = "killed"
            self._screen.say(f"killed {self._victim} (SIGKILL to {pid}), which held {victim.tasks:,} tasks on lease")
        elif self._stage == "killed" and not victim.leases and not victim.connected:
            self._screen.say(f"its leased tasks went back to the queue after {self._since():.1f} s; starting it again")
            self._fleet.start_node(self._victim)
            self._stage = "starting"
        elif self._stage == "starting" and victim.connected:
            self._back_mono = time.monotonic()
            self._stage = "back"
            self._screen.say(f"{self._victim} joined again, {self._since():.1f} s after it was killed")

    def away_s(self) -> float:
        """How long the node was missing while the job ran."""
        if self._stage == "working":
            return 0.0
        return (self._back_mono or time.monotonic()) - self._killed_mono

    def _since(self) -> float:
        return time.monotonic() - self._killed_mono


def _is_same(results: list[Any], alone: list[Any] | None, screen: Screen) -> bool:
    if alone is None:
        return True
    is_same = results == alone
    screen.say(
        "every result is the one process's result" if is_same else "WRONG: results differ from the one process's"
    )
    return is_same


def _conclude(screen: Screen, figures: Figures) -> None:
    if figures.speedup is None:
        return
    present = figures.nodes - figures.away_s / figures.grid_s
    away = f", one of them away for {figures.away_s:.1f} s: {present:.2f} nodes on average" if figures.away_s else ""
    screen.say(f"speed-up {figures.speedup:.2f} with {figures.nodes} nodes{away}")
