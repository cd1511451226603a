"""What the overview page shows, worked out from the hub: figures, jobs with progress, nodes. No HTML here."""

import time
from collections import deque
from collections.abc import Sequence

import msgspec

from fallow.hub.core.hub import Hub
from fallow.model.job import JobInfo
from fallow.model.node_view import NodeView
from fallow.model.requirements import format_size
from fallow.model.token import Token

SHOWN_JOBS = 50
RATE_WINDOW_S = 10.0
"""Rates are means over this time: long enough to be steady, short enough to show a lost node."""


class Bar(msgspec.Struct, frozen=True):
    """Shares of a progress bar, each 0 to 100."""

    settled: float
    failed: float
    leased: float


class JobRow(msgspec.Struct, frozen=True):
    id: str
    title: str
    subtitle: str
    state: str
    bar: Bar
    counts: str
    pace: str
    age: str
    failure: str


class NodeRow(msgspec.Struct, frozen=True):
    id: str
    name: str
    state: str
    """"working", "idle", "paused" or "away"."""
    detail: str
    machine: str
    slots: int
    tasks: int
    finished: str
    score: str


class Figure(msgspec.Struct, frozen=True):
    label: str
    value: str
    note: str


class Overview(msgspec.Struct, frozen=True):
    figures: list[Figure]
    jobs: list[JobRow]
    nodes: list[NodeRow]
    is_busy: bool
    """Whether a job is unfinished, so that figures change without an event."""


class Meter:
    """Tasks per second of each job, from the counts at the times when somebody looked."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def rates(self, jobs: Sequence[JobInfo], now_mono: float) -> dict[str, float]:
        """Take the jobs' counts and return tasks per second by job id."""
        rates: dict[str, float] = {}
        for info in jobs:
            if info.progress.ended:
                self._seen.pop(info.spec.id, None)
                continue
            counts = self._seen.setdefault(info.spec.id, deque())
            while counts and now_mono - counts[0][0] > RATE_WINDOW_S:
                counts.popleft()
            if not counts or now_mono - counts[-1][0] > 0.1:
                counts.append((now_mono, info.progress.settled))
            (then, before), (last, after) = counts[0], counts[-1]
            if last > then:
                rates[info.spec.id] = (after - before) / (last - then)
        for job in [job for job, counts in self._seen.items() if now_mono - counts[-1][0] > RATE_WINDOW_S]:
            del self._seen[job]
        return rates


async def look(hub: Hub, token: Token, meter: Meter) -> Overview:
    """Read the hub for one caller."""
    jobs = await hub.front.jobs(token, limit=SHOWN_JOBS)
    jobs.sort(key=lambda info: ("running", "waiting").index(info.progress.state) if not info.progress.ended else 2)
    nodes = sorted(hub.nodes(), key=lambda node: (not node.connected, node.info.name))
    rates = meter.rates(jobs, time.monotonic())
    now = time.time()
    return Overview(
        _figures(jobs, nodes, rates),
        [job_row(info, rates.get(info.spec.id, 0.0), now) for info in jobs],
        [node_row(node) for node in nodes],
        any(not info.progress.ended for info in jobs),
    )


def _figures(jobs: Sequence[JobInfo], nodes: Sequence[NodeView], rates: dict[str, float]) -> list[Figure]:
    here = [node for node in nodes if node.connected]
    slots = sum(node.info.slots for node in here)
    busy = sum(min(node.running_tasks, node.info.slots) for node in here)
    unfinished = [info for info in jobs if not info.progress.ended]
    running = [info for info in unfinished if info.progress.state == "running"]
    rate = sum(rates.values())
    away = len(nodes) - len(here)
    return [
        Figure("Nodes", str(len(here)), f"{away} away" if away else "all here" if here else "none has joined"),
        Figure("Slots at work", f"{busy} of {slots}", f"{sum(node.info.cores for node in here)} cores lent"),
        Figure("Jobs running", str(len(running)), f"{len(unfinished) - len(running)} waiting"),
        Figure("Tasks per second", _rate(rate) if rate else "0", f"over the last {RATE_WINDOW_S:.0f} s"),
    ]


def job_row(info: JobInfo, rate: float, now: float) -> JobRow:
    """Work out what is shown of one job. rate: its tasks per second, 0 if unknown. now: Unix time."""
    spec, progress = info.spec, info.progress
    total = progress.size if progress.size is not None else progress.accepted
    succeeded = progress.settled - progress.failed
    share = 100 / total if total else 0.0
    known = f"{total:,}" if progress.size is not None else f"{total:,} so far"
    counts = f"{progress.settled:,} of {known}"
    return JobRow(
        id=spec.id,
        title=spec.name or spec.function_name,
        subtitle=spec.function_name if spec.name else spec.id,
        state=progress.state,
        bar=Bar(succeeded * share, progress.failed * share, min(progress.leased, total - progress.settled) * share),
        counts=counts,
        pace=_pace(info, rate, total),
        age=_age(now, spec.created_at, info.ended_at),
        failure=_failure(info),
    )


def _pace(info: JobInfo, rate: float, total: int) -> str:
    if info.progress.ended:
        return ""
    if not rate:
        return f"{info.progress.leased:,} at nodes" if info.progress.leased else ""
    left = f", {_duration((total - info.progress.settled) / rate)} left" if info.progress.size is not None else ""
    return f"{_rate(rate)} tasks/s{left}"


def _failure(info: JobInfo) -> str:
    if not info.progress.failed:
        return ""
    count = f"{info.progress.failed:,} failed"
    if not info.first_failures:
        return count
    first = info.first_failures[0]
    words = ": ".join(part for part in (first.type_name or first.kind, first.message) if part)
    return f"{count}, task {first.index} with {words[:160]}"


def node_row(node: NodeView) -> NodeRow:
    info = node.info
    if not node.connected:
        state, detail = "away", "its connection is gone"
    elif not node.accepting:
        state, detail = "paused", node.reason
    else:
        state, detail = ("working" if node.leased_tasks else "idle"), ""
    return NodeRow(
        id=node.id,
        name=info.name,
        state=state,
        detail=detail or ", ".join(info.tags),
        machine=f"{info.os} {info.arch}, {info.cores} cores, {format_size(info.memory_bytes)}",
        slots=info.slots,
        tasks=node.leased_tasks,
        finished=f"{node.finished_tasks:,}",
        score=f"{info.score:.2f}",
    )


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}" if per_s >= 0.1 else f"{per_s:.2g}"


def _age(now: float, created_at: float, ended_at: float | None) -> str:
    if ended_at is None:
        return f"since {_duration(now - created_at)}"
    return f"took {_duration(ended_at - created_at)}, ended {_duration(now - ended_at)} ago"


def _duration(seconds: float) -> str:
    """Write a time for people, in its one or two largest units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} days"
