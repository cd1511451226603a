"""What a node says of itself when it joins."""

import msgspec


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
