"""A parameter sweep: how many people an epidemic reaches, for many infectiousnesses and many throws of the dice.

Owns the model, the table and the plot; knows nothing of the grid.

Source: the stochastic SIR model (W. Kermack and A. McKendrick, 1927), run event by event (D. Gillespie, 1976). In a
large population the share that a major outbreak reaches solves z = 1 - exp(-R0 z), which the results are checked by.
"""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import product
from math import exp
from random import Random
from typing import NamedTuple

POPULATION = 10_000
WELL_ABOVE_ONE = 1.5
"""From this R0 on, major outbreaks are told from minor ones without doubt, and come close to the limit."""
TOLERANCE = 0.02
"""How far the mean of some 20 or more major outbreaks may be from the large-population limit (4 sigma at 1.5)."""
MAJOR_OUTBREAK = 0.1
"""Share of the population from which on an outbreak is major: below it, chance ended it early."""


class Point(NamedTuple):
    """One setting of the sweep."""

    r0: float
    """How many people the first case infects on average."""
    seed: int


class Outbreak(NamedTuple):
    """What one setting came to."""

    r0: float
    seed: int
    reached: float
    """Share of the population that was infected, 0 to 1."""


def points(values: int = 25, seeds: int = 20) -> list[Point]:
    """Return the sweep: `values` settings of R0 from 0.5 to 4, `seeds` throws of each."""
    spacing = 3.5 / max(values - 1, 1)
    return [Point(round(0.5 + spacing * i, 4), seed) for i, seed in product(range(values), range(seeds))]


def outbreak(point: Point) -> Outbreak:
    """Run one epidemic to its end. Only the order of events matters to the share reached, so no times are drawn."""
    draw = Random(f"{point.r0}/{point.seed}")
    susceptible, infected = POPULATION - 1, 1
    while infected:
        infection = point.r0 * susceptible / POPULATION
        if draw.random() * (infection + 1) < infection:
            susceptible -= 1
            infected += 1
        else:
            infected -= 1
    return Outbreak(point.r0, point.seed, (POPULATION - susceptible) / POPULATION)


def expected_share(r0: float) -> float:
    """Return the share that a major outbreak reaches in a large population: the root of z = 1 - exp(-r0 z)."""
    if r0 <= 1:
        return 0.0
    share = 1.0
    for _ in range(200):  # a contraction: near r0 = 1 it is slow, but these are plenty for the r0 of a sweep
        share = 1 - exp(-r0 * share)
    return share


def mean_major(outbreaks: Iterable[Outbreak]) -> dict[float, float]:
    """Return the mean share reached by the major outbreaks of each R0 that had any."""
    major: dict[float, list[float]] = {}
    for each in outbreaks:
        if each.reached >= MAJOR_OUTBREAK:
            major.setdefault(each.r0, []).append(each.reached)
    return {r0: sum(shares) / len(shares) for r0, shares in major.items()}


def as_csv(outbreaks: Iterable[Outbreak]) -> str:
    """Return the table, one line per setting."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Outbreak._fields)
    table.writerows(outbreaks)
    return text.getvalue()


def as_svg(outbreaks: Sequence[Outbreak], width: int = 640, height: int = 400) -> str:
    """Return a plot of every outbreak as a dot over its R0, with the large-population curve behind them."""
    left, bottom, right, top = 50, height - 40, width - 15, 15
    low, high = min(each.r0 for each in outbreaks), max(each.r0 for each in outbreaks)

    def at(r0: float, share: float) -> tuple[float, float]:
        across = (r0 - low) / (high - low or 1)
        return round(left + across * (right - left), 1), round(bottom - share * (bottom - top), 1)

    curve = [at(low + (high - low) * i / 200, expected_share(low + (high - low) * i / 200)) for i in range(201)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#333"/>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = at(low, share)[1]
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    for i in range(8):
        r0 = low + (high - low) * i / 7
        parts.append(f'<text x="{at(r0, 0)[0]}" y="{bottom + 16}" text-anchor="middle">{r0:.1f}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle">R0</text>')
    parts.append('<g fill="#1565c0" fill-opacity="0.35">')
    for each in outbreaks:
        x, y = at(each.r0, each.reached)
        parts.append(f'<circle cx="{x}" cy="{y}" r="2.5"/>')
    parts.append("</g>")
    line = " ".join(f"{x},{y}" for x, y in curve)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#c62828" stroke-width="1.5"/>')
    parts.append("</svg>\n")
    return "\n".join(parts)
