"""References to large shared objects (`grid.put`), which slots resolve while they unpickle.

A Ref pickles as a call of `resolve`, so it may stand anywhere inside arguments. What `resolve` does is a property of
the process, as unpickling has no other way to pass it in: a slot installs a loader of blobs; elsewhere a Ref comes back.
"""

import threading
from collections.abc import Callable

_collecting = threading.local()
_load: "Callable[[str], object] | None" = None


class Ref:
    """A handle on an object that lies in the grid once and that any number of tasks may take as (part of) an argument.

    Tasks receive the object itself, mapped read-only, not the handle.
    """

    __slots__ = ("__weakref__", "digest", "size_bytes")

    def __init__(self, digest: str, size_bytes: int = 0) -> None:
        self.digest = digest
        self.size_bytes = size_bytes

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        noted = getattr(_collecting, "digests", None)
        if noted is not None:
            noted[self.digest] = None
        return resolve, (self.digest,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Ref({self.digest[:12]}…)"


class collecting:  # noqa: N801 -- a generator in `contextlib`'s wrapping takes a fifth of the time of a submit
    """Collect the digests of all Refs that this thread pickles in the block, in order, each once.

    In a nested block the inner collector gets them alone.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> dict[str, None]:
        self._before = getattr(_collecting, "digests", None)
        digests: dict[str, None] = {}
        _collecting.digests = digests
        return digests

    def __exit__(self, *exception: object) -> None:
        _collecting.digests = self._before


def resolve(digest: str) -> object:
    """Return the object in a slot, a Ref elsewhere. Pickles refer to this function by name: never move it."""
    return Ref(digest) if _load is None else _load(digest)


def install(load: Callable[[str], object]) -> None:
    """Make `resolve` return what `load` returns. For slots only."""
    global _load  # noqa: PLW0603 -- see the module's docstring
    _load = load
