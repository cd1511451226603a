"""What Fallow wants to reach, as ratios within one run, and whether a run reached it."""

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from plan import ROWS

DISTRIBUTED = ("ray", "dask", "parsl", "celery", "hyperqueue")
PEERS = ("pool", "joblib", *DISTRIBUTED)
MORE_IS_BETTER = {row.key: row.more_is_better for row in ROWS}


class Goal(NamedTuple):
    """system's figure in a row, over `against`: a system, several of which the best counts, a floor, or nothing."""

    text: str
    row: str
    system: str
    limit: float
    against: tuple[str, ...] = ()
    other_rows: tuple[str, ...] = ()
    at_most: bool = False


class Verdict(NamedTuple):
    text: str
    measured: float | None
    is_met: bool | None


GOALS = (
    Goal("submit and wait: embedded, of a process pool's time", "wait", "embedded", 0.85, ("pool",), at_most=True),
    Goal("submit and wait: hub, of the best distributed peer's", "wait", "hub", 0.25, DISTRIBUTED, at_most=True),
    Goal("10,000 submits: embedded, times a process pool", "singles", "embedded", 15, ("pool",)),
    Goal("10,000 submits: hub, times the best distributed peer", "singles", "hub", 30, DISTRIBUTED),
    Goal("100,000 submits: embedded, times a process pool", "many singles", "embedded", 15, ("pool",)),
    Goal("100,000 submits: hub, times the best distributed peer", "many singles", "hub", 30, DISTRIBUTED, ("singles",)),
    Goal("map: embedded, times a process pool's best chunk", "map", "embedded", 1.7, ("pool",), ("chunks",)),
    Goal("map: hub, times a process pool's best chunk", "map", "hub", 1.0, ("pool",), ("chunks",)),
    Goal("map: embedded, times the best peer without chunks", "map", "embedded", 5, PEERS, ("map", "bag")),
    Goal("map: hub, times the best peer without chunks", "map", "hub", 5, PEERS, ("map", "bag")),
    Goal("heavy tail: embedded, of ideal first-come order", "tail", "embedded", 1.03, at_most=True),
    Goal("heavy tail, sorted: embedded, the same", "sorted", "embedded", 1.03, at_most=True),
    Goal("heavy tail: hub, the same", "tail", "hub", 1.06, at_most=True),
    Goal("heavy tail, sorted: hub, the same", "sorted", "hub", 1.06, at_most=True),
    Goal("arrays in: embedded, times the best peer", "arrays in", "embedded", 1, PEERS),
    Goal("arrays out: embedded, times the best peer", "arrays out", "embedded", 1, PEERS),
    Goal("broadcast: embedded, of the best peer's time", "broadcast", "embedded", 1, PEERS, at_most=True),
    Goal("arrays in: hub, of the disk's fsynced rate", "arrays in", "hub", 0.8, ("fsynced writes, MB/s",)),
    Goal("arrays out: hub, of the disk's fsynced rate", "arrays out", "hub", 0.8, ("fsynced writes, MB/s",)),
    Goal("cold start: embedded, s", "cold", "embedded", 0.4, at_most=True),
    Goal("cold start: hub, two nodes, client, s", "cold", "hub", 2, at_most=True),
    Goal("idle: embedded, MB", "idle", "embedded", 60, at_most=True),
    Goal("idle: hub, two nodes, client, MB", "idle", "hub", 150, at_most=True),
    Goal("queued task: bytes in the hub", "queued in hub", "hub", 100, at_most=True),
    Goal("queued task: bytes in the client", "queued in client", "hub", 400, at_most=True),
    Goal("urgent task through a hub, ms", "urgent", "hub", 10, at_most=True),
)
PI_SPEEDUP = 1.9


def verdicts(results: dict[str, Any]) -> Iterator[Verdict]:
    """Compare medians; what was not measured has no verdict."""
    for goal in GOALS:
        ours = _median(results, goal.row, goal.system)
        theirs = _best(results, goal)
        sign = "at most" if goal.at_most else "at least"
        text = f"{goal.text}: {sign} {goal.limit:g}"
        if ours is None or (goal.against and theirs is None):
            yield Verdict(text, None, None)
            continue
        measured = ours / theirs if theirs is not None else ours
        yield Verdict(text, measured, measured <= goal.limit if goal.at_most else measured >= goal.limit)
    pi = results["pi"]
    text = f"Pi, {pi.get('digits', 3000):,} digits: two nodes, times one process: at least {PI_SPEEDUP}"
    yield Verdict(text, pi.get("speedup"), pi["speedup"] >= PI_SPEEDUP if pi else None)


def _median(results: dict[str, Any], row: str, system: str) -> float | None:
    samples = results["samples"].get(row, {}).get(system) or results["floor"].get(system)
    return median(samples) if samples else None


def _best(results: dict[str, Any], goal: Goal) -> float | None:
    rows = goal.other_rows or (goal.row,)
    found = [each for row in rows for name in goal.against if (each := _median(results, row, name)) is not None]
    if not found:
        return None
    return max(found) if MORE_IS_BETTER[goal.row] else min(found)
