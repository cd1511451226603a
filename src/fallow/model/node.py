"""What a node says of itself when it joins."""

import math

import msgspec

from fallow.model.errors import BadRequest
from fallow.model.levels import LEVELS, Level

MAX_WORD = 255
"""Characters in the name of a node, in a tag and in each other word of it; host names have up to 253."""
MAX_WORDS = 100
"""Tags, and interpreters, that a node may name."""
MAX_NOTE = 2_000
"""Characters of a note."""
MAX_COUNT = 1 << 20
"""Cores and slots, as in what a task can ask for."""


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The capacity and kind of one computer, as its agent publishes it."""

    name: str
    cores: int
    """Cores lent to the grid; a lease reserves some of them per task."""
    slots: int
    """Worker processes: at most this many tasks run at a time."""
    memory_bytes: int
    os: str
    arch: str
    pythons: tuple[str, ...]
    """Minor versions of the interpreters that tasks can run in, such as ("3.11",)."""
    tags: tuple[str, ...] = ()
    score: float = 1.0
    """Speed of one core relative to the reference machine of docs/benchmark-score.md; 1.0 until measured."""
    version: str = ""
    """Version of Fallow on the node."""
    sandboxes: tuple[Level, ...] = ("process",)
    """Levels that work there and that its owner allows."""
    builds: bool = False
    """Whether it can build environments."""
    notes: dict[str, str] = {}
    """For people, by subject: why a level does not work, how limits are enforced."""

    @property
    def platform(self) -> str:
        """System and architecture, such as "linux-x86_64"."""
        return f"{self.os}-{self.arch}"


def check_node(info: NodeInfo) -> None:
    """Raise BadRequest unless a description from outside is one that a hub can keep: words and numbers in bounds."""
    if max(len(info.tags), len(info.pythons)) > MAX_WORDS:
        raise BadRequest(f"a node names up to {MAX_WORDS} tags and as many interpreters")
    for what, words in (
        ("name", (info.name,)),
        ("tag", info.tags),
        ("interpreter", info.pythons),
        ("system", (info.os, info.arch)),
        ("version", (info.version,)),
    ):
        for word in words:
            if len(word) > MAX_WORD or not word.isprintable():
                raise BadRequest(
                    f"the node's {what} {word[:80]!r} is not a printable text of up to {MAX_WORD} characters"
                )
    if len(info.sandboxes) > len(LEVELS) or len(info.notes) > MAX_WORDS:
        raise BadRequest(f"a node names up to {len(LEVELS)} sandboxes and {MAX_WORDS} notes")
    if any(len(subject) > MAX_WORD or len(note) > MAX_NOTE for subject, note in info.notes.items()):
        raise BadRequest(f"a node's note has a subject of up to {MAX_WORD} and a text of up to {MAX_NOTE} characters")
    if not (0 < info.slots <= MAX_COUNT and 0 < info.cores <= MAX_COUNT and 0 <= info.memory_bytes < 1 << 62):
        raise BadRequest(
            f"a node of {info.slots} slots, {info.cores} cores, {info.memory_bytes} bytes is out of bounds"
        )
    if not (info.score > 0 and math.isfinite(info.score)):
        raise BadRequest(f"the node's score {info.score} is not a finite number above 0")
