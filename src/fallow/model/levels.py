"""Levels of sandboxes, from the weakest to the strongest."""

from collections.abc import Iterable
from typing import Literal, get_args

from fallow.model.errors import BadRequest

Level = Literal["process", "confined", "bubblewrap", "container"]
"""process: a process group. confined: the kernel refuses what lies outside. bubblewrap: namespaces of its own. container: an
image, run by a container engine."""

LEVELS: tuple[Level, ...] = get_args(Level)
"""Weakest first."""


def weakest(levels: Iterable[Level]) -> Level:
    return min(levels, key=LEVELS.index)


def strongest(levels: Iterable[Level]) -> Level:
    return max(levels, key=LEVELS.index)


def at_least(level: Level, minimum: Level) -> bool:
    """Whether a level is as strong as another."""
    return LEVELS.index(level) >= LEVELS.index(minimum)


def parse_level(value: object, what: str = "sandbox") -> Level:
    """Return the level of that name; raises BadRequest if there is none."""
    for level in LEVELS:
        if value == level:
            return level
    raise BadRequest(f"{what}={value!r:.80} is none of {', '.join(LEVELS)}")
