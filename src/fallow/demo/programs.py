"""The programs that `fallow demo` offers: independent tasks, and how their results are checked.

Knows nothing of the grid: each program is a function, its inputs, and a verdict on the results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from heapq import nsmallest
from typing import Any

from fallow.demo import nbody, pi, search, sweep

DEFAULT_DIGITS = 1000
"""Digits of Pi that keep the whole demo at about half a minute on two idle cores, and under a minute and a half on busy ones."""

_REFERENCE = "concurrent/futures/process.py"
_DOCUMENTS = 2000
_CLUSTERS = 200
_SWEEP_SEEDS = 200


@dataclass(frozen=True)
class Verdict:
    """Whether results are right, and what there is to say about them."""

    is_right: bool
    lines: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Program:
    """Independent tasks: `function` of each of `inputs`, in any order, on any node."""

    name: str
    title: str
    function: Callable[[Any], Any]
    inputs: Sequence[Any]
    judge: Callable[[list[Any]], Verdict]
    """Takes the results in the order of the inputs."""


def pi_digits(digits: int = DEFAULT_DIGITS) -> Program:
    """Alchemi's program: the first decimal digits of Pi after the point, each group from its position."""

    def judge(groups: list[str]) -> Verdict:
        found, expected = "".join(groups)[:digits], pi.all_digits(digits)
        wrong = [at for at in range(digits) if found[at : at + 1] != expected[at]]
        checksum = sha256(found.encode()).hexdigest()
        lines = [f"Pi = 3.{found[:50]}{'…' if digits > 50 else ''}", f"sha256 of the {digits:,} digits: {checksum}"]
        if wrong:
            lines.append(f"WRONG: {len(wrong):,} digits differ from Chudnovsky's formula, the first at {wrong[0]}")
        else:
            lines.append(f"all {digits:,} digits agree with an independent computation (Chudnovsky's formula)")
        return Verdict(not wrong, lines, {"digits": digits, "sha256": checksum})

    starts = pi.starts(digits)
    title = (
        f"{digits:,} decimal digits of Pi, {pi.GROUP_DIGITS} per task, each group from its position (Bellard's formula)"
    )
    return Program(name="pi", title=title, function=pi.digits_at, inputs=starts, judge=judge)


def document_search() -> Program:
    """PageBox's use case: the texts of a folder that are nearest to a reference text."""
    documents = list(search.read_documents(search.standard_library(), limit=_DOCUMENTS))
    reference = next((each for each in documents if each.name == _REFERENCE), documents[0])
    size = sum(len(each.text) for each in documents)

    def judge(distances: list[float]) -> Verdict:
        nearest = nsmallest(10, zip(distances, (each.name for each in documents), strict=True))
        lines = [f"nearest to {reference.name}:", *(f"  {distance:.3f}  {name}" for distance, name in nearest)]
        is_right = nearest[0][1] == reference.name and all(0 <= each <= 1 for each in distances)
        lines.append("the reference itself came first" if is_right else "WRONG: the reference did not come first")
        return Verdict(is_right, lines, {"nearest": [name for _, name in nearest]})

    return Program(
        name="search",
        title=f"{len(documents):,} texts of Python's standard library ({size / 1e6:.0f} MB) by distance to {reference.name}",
        function=partial(search.distance, search.profile(reference.text)),
        inputs=documents,
        judge=judge,
    )


def star_clusters() -> Program:
    """Melody's application: many clusters of stars, by the Barnes-Hut method."""

    def judge(outcomes: list[nbody.Outcome]) -> Verdict:
        worst = max(abs(each.drift) for each in outcomes)
        radius = sum(each.half_mass_radius for each in outcomes) / len(outcomes)
        is_right = worst < nbody.MAX_DRIFT and [each.seed for each in outcomes] == list(range(len(outcomes)))
        lines = [
            f"{len(outcomes)} clusters; mean half-mass radius {radius:.3f} (Plummer's model: 1.305)",
            f"largest change of a cluster's energy: {worst:.2%} ({'within' if is_right else 'WRONG: over'} {nbody.MAX_DRIFT:.0%})",
        ]
        return Verdict(is_right, lines, {"largest_drift": worst})

    title = f"{_CLUSTERS} star clusters of 64 bodies, 50 steps each (Barnes-Hut)"
    return Program(name="nbody", title=title, function=nbody.simulate, inputs=range(_CLUSTERS), judge=judge)


def epidemic_sweep() -> Program:
    """A parameter sweep, checked against the large-population limit."""
    points = sweep.points(seeds=_SWEEP_SEEDS)

    def judge(outbreaks: list[sweep.Outbreak]) -> Verdict:
        means = sweep.mean_major(outbreaks)
        errors = {r0: abs(mean - sweep.expected_share(r0)) for r0, mean in means.items() if r0 >= sweep.WELL_ABOVE_ONE}
        worst = max(errors.values())
        is_right = worst < sweep.TOLERANCE and len(outbreaks) == len(points)
        bound = f"{'within' if is_right else 'WRONG: over'} {sweep.TOLERANCE}"
        lines = [
            f"{len(outbreaks):,} epidemics; R0 = {points[-1].r0:g} reaches {means[points[-1].r0]:.1%} of the people",
            f"largest distance of a mean from z = 1 - exp(-R0 z): {worst:.4f} ({bound})",
        ]
        return Verdict(is_right, lines, {"largest_error": worst})

    title = f"{len(points):,} epidemics, R0 from {points[0].r0:g} to {points[-1].r0:g}"
    return Program(name="sweep", title=title, function=sweep.outbreak, inputs=points, judge=judge)
