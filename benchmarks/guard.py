"""`make guard`: the few speeds that must not get far worse, as ratios against a process pool in this same process.

Each repetition runs both, one after the other, so that a slow machine is slow for both. A limit is far beyond what was
measured, twice over the worst of many noisy runs, so that only a real loss fails; and one that fails is measured once more.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import tasks
from systems import System
from systems.embedded import Embedded
from systems.pool import Pool

RUNS = 5
CHUNK = 50_000
"""The process pool's best for the map, or near it."""


class Check(NamedTuple):
    """work: returns seconds, of (system, count). limit: the most that Fallow may take of the pool's time."""

    title: str
    work: Callable[[System, int], float]
    count: int
    goal: float
    limit: float


def wait(system: System, count: int) -> float:
    return _timed(lambda: [system.submit(tasks.nothing).result() for _ in range(count)])


def singles(system: System, count: int) -> float:
    return _timed(lambda: system.gather([system.submit(tasks.square, n) for n in range(count)]))


def big_map(system: System, count: int) -> float:
    """The pool is given its best chunk size, Fallow none."""
    if isinstance(system, Pool):
        return _timed(lambda: system.map_by_hand(count, CHUNK))
    return _timed(lambda: sum(system.map(tasks.square, range(count))))


# Fallow's time as a part of the pool's:       goal   fails above
CHECKS = (
    Check("submit one and wait", wait, 200, 0.85, 6.0),
    Check("10,000 single submits", singles, 10_000, 1 / 15, 0.5),
    Check("map of 1,000,000", big_map, 1_000_000, 1 / 1.7, 1.2),
)


def main(argv: list[str] | None = None) -> int:
    """Return 1 if a ratio is beyond its limit twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args(argv).runs
    began = time.perf_counter()
    systems: tuple[System, System] = (Embedded(), Pool())
    for system in systems:
        system.start()
    try:
        print("speed of the embedded grid, as a part of a process pool's time (medians; least to greatest)")
        print(f"{'':22} {'measured':>8}  {'goal':>6}  {'limit':>6}")
        is_good = sum(is_within(check, systems, runs) for check in CHECKS) == len(CHECKS)
    finally:
        for system in systems:
            system.stop()
    print(f"{'good' if is_good else 'FAR TOO SLOW'}; took {time.perf_counter() - began:.0f} s")
    return 0 if is_good else 1


def is_within(check: Check, systems: tuple[System, System], runs: int) -> bool:
    return any(measure(check, systems, runs) <= check.limit for _ in range(2))


def measure(check: Check, systems: tuple[System, System], runs: int) -> float:
    """Return the median ratio of interleaved repetitions, and print it."""
    for system in systems:
        check.work(system, check.count // 10)
    ratios = []
    for _ in range(runs):
        ours, theirs = (check.work(system, check.count) for system in systems)
        ratios.append(ours / theirs)
    found = median(ratios)
    spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"{check.title:22} {found:8.3f}  {check.goal:6.3f}  {check.limit:6.3f}  {spread}", flush=True)
    return found


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
