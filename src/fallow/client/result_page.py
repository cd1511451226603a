"""A result page on the client: decoded when first asked, then shared by all who hold part of it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fallow.client.failures import exception_of
from fallow.client.mapping import can_map, map_file
from fallow.model.failure import Failure
from fallow.model.page import ResultPage, StoredPage
from fallow.slot.pages import decode

Present = Callable[[Sequence[Any], Sequence[int], ResultPage], list[Any]]
"""From values and their indices to what users see."""


class FilteredOut(Exception):
    """The index was filtered out: it has neither a value nor a failure."""


class ResultValues:
    """The values and failures of one stored page."""

    __slots__ = (
        "__weakref__",
        "_data",
        "_failures",
        "_kept",
        "_offsets",
        "_plain",
        "_present",
        "_start",
        "_values",
        "page",
    )

    def __init__(
        self, page: StoredPage, data: bytes | memoryview | Path | None, present: Present | None = None
    ) -> None:
        """data: the page's bytes, or a file with them. present: makes what users see of the values."""
        self._present = present
        self.page = page.page
        self._data = data
        self._values: Sequence[Any] | None = None
        self._failures: dict[int, Failure] | None = None
        self._kept: list[tuple[int, int]] | None = None
        self._offsets: list[int] = []
        self._start = self.page.start
        self._plain: Sequence[Any] | None = None
        """The values, once it is known that each index has one."""

    @property
    def is_in_file(self) -> bool:
        """Whether its values lie in a file that may go with their job: nobody has asked for them yet."""
        return isinstance(self._data, Path)

    def take_along(self) -> None:
        """Its job goes: keep hold of its file, if one more can be held."""
        if isinstance(self._data, Path) and can_map():
            with contextlib.suppress(OSError, ValueError):
                self._data = map_file(self._data)

    @property
    def values(self) -> Sequence[Any]:
        """The values of the kept indices, in order; unpickled on first use."""
        if self._values is None:
            self._values = [] if self._data is None else _decode(self._data)
            self._data = None
            if self._present is not None:
                indices = [index for a, b in self._index() for index in range(a, b)]
                self._values = self._present(self._values, indices, self.page)
        return self._values

    def _index(self) -> list[tuple[int, int]]:
        if self._kept is None:
            page = self.page
            if page.kept is not None:
                flat = page.kept
                self._kept = list(zip(flat[::2], flat[1::2], strict=True))
            else:
                self._kept = _without(page.start, page.stop, sorted(f.index for f in page.failures))
            self._offsets = [0, *accumulate(b - a for a, b in self._kept)]
            self._failures = {failure.index: failure for failure in page.failures}
            if self._present is not None:  # it may be another user's: what was pickled stays so
                self._failures = {i: replace(failure, exception=None) for i, failure in self._failures.items()}
        return self._kept

    @property
    def is_plain(self) -> bool:
        """Whether every index of the page has a value."""
        return self.page.kept is None and not self.page.failures

    def value(self, index: int) -> Any:
        """Return the value of one index; raises the task's exception, or FilteredOut."""
        plain = self._plain
        if plain is not None:
            return plain[index - self._start]
        if self.is_plain:
            plain = self._plain = self.values
            return plain[index - self._start]
        self._index()
        assert self._failures is not None
        failure = self._failures.get(index)
        if failure is not None:
            raise exception_of(failure)
        for (a, b), offset in zip(self._index(), self._offsets, strict=False):
            if a <= index < b:
                return self.values[offset + index - a]
        raise FilteredOut

    def outcomes(self, start: int, stop: int) -> Iterator[tuple[int, Any, Failure | None]]:
        """Yield (index, value, failure) of `[start, stop)` in order, leaving out what was filtered out."""
        self._index()
        assert self._failures is not None
        failures = sorted((i, f) for i, f in self._failures.items() if start <= i < stop)
        at = 0
        for (a, b), offset in zip(self._index(), self._offsets, strict=False):
            low, high = max(a, start), min(b, stop)
            if low >= high:
                continue
            while at < len(failures) and failures[at][0] < low:
                yield failures[at][0], None, failures[at][1]
                at += 1
            values = self.values
            for index in range(low, high):
                yield index, values[offset + index - a], None
        for index, failure in failures[at:]:
            yield index, None, failure


def _without(start: int, stop: int, indices: list[int]) -> list[tuple[int, int]]:
    kept = []
    at = start
    for index in indices:
        if at < index:
            kept.append((at, index))
        at = index + 1
    if at < stop:
        kept.append((at, stop))
    return kept


def _decode(data: bytes | memoryview | Path) -> Sequence[Any]:
    return decode(map_file(data) if isinstance(data, Path) else data)
