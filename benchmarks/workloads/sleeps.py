"""Tasks of very unequal length: how well slots are kept busy until the end."""

import heapq
import random
import time

import tasks
from systems import WORKERS, System

LEAST_S, MOST_S = 0.002, 0.5
HEAVINESS = 0.55
"""Exponent of the bounded Pareto distribution; 400 draws then sum to 11 s."""
SEED = 20


def durations(count: int, ascending: bool) -> list[float]:
    """Return the lengths, in seconds: quantiles of a heavy tail, shuffled with the longest last, or sorted."""
    ratio = (LEAST_S / MOST_S) ** HEAVINESS
    ranks = [number / (count - 1) for number in range(count)]
    found = [LEAST_S / (1 - rank * (1 - ratio)) ** (1 / HEAVINESS) for rank in ranks]
    if not ascending:
        longest = found.pop()
        random.Random(SEED).shuffle(found)
        found.append(longest)
    return found


def lower_bound(lengths: list[float]) -> float:
    return max(*lengths, sum(lengths) / WORKERS)


def first_come(lengths: list[float]) -> float:
    """Return the makespan of first come, first served, where handing out costs nothing."""
    free = [0.0] * WORKERS
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def sleeps(system: System, count: int, ascending: bool) -> dict[str, float]:
    lengths = durations(count, ascending)
    system.spread(tasks.pause, lengths[:2])
    began = time.perf_counter()
    results = system.spread(tasks.pause, lengths)
    seconds = time.perf_counter() - began
    assert results == lengths
    return {
        "seconds": seconds,
        "of bound": seconds / lower_bound(lengths),
        "of first come": seconds / first_come(lengths),
    }
