"""How long simulated tasks are, in seconds on a node of speed 1."""

from collections.abc import Callable
from random import Random

ALPHA = 1.5
"""Tail index of the heavy-tailed durations."""

CLIP_MEDIANS = 200.0
"""The longest of them, in medians."""


def constant(random: Random, median_s: float) -> float:
    return median_s


def uniform(random: Random, median_s: float) -> float:
    return random.uniform(0.0, 2.0) * median_s


def exponential(random: Random, median_s: float) -> float:
    return random.expovariate(0.6931471805599453) * median_s


def pareto(random: Random, median_s: float) -> float:
    """Pareto with tail index ALPHA, clipped at CLIP_MEDIANS medians."""
    scale: float = 2.0 ** (1.0 / ALPHA)
    return min(random.paretovariate(ALPHA) / scale, CLIP_MEDIANS) * median_s


KINDS: dict[str, Callable[[Random, float], float]] = {
    "constant": constant,
    "uniform": uniform,
    "exponential": exponential,
    "pareto": pareto,
}
"""Distributions by name."""


def draw(kind: str, count: int, median_s: float, seed: int) -> list[float]:
    """Return the durations of `count` tasks; the same for the same seed."""
    random, one = Random(f"durations {seed}"), KINDS[kind]
    return [one(random, median_s) for _ in range(count)]
