"""Sets of task indices held as sorted, disjoint, half-open ranges.

The cost of every operation is in the number of ranges, never in the number of indices:
a million finished tasks of one job are one pair of integers.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise

Range = tuple[int, int]
"""A half-open interval `[start, stop)` of task indices."""


class RangeSet:
    """A mutable set of non-negative integers, held as ranges that neither touch nor overlap."""

    __slots__ = ("_count", "_starts", "_stops")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._count = 0
        for start, stop in ranges:
            self.add(start, stop)

    def __len__(self) -> int:
        """Return how many indices are in the set."""
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def ranges(self) -> Iterator[Range]:
        """Yield the ranges in order.

        The set itself is not iterable: its length counts indices, and `list` would make room for that many items.
        """
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def lowest(self, limit: int) -> list[int]:
        """Return the lowest indices, up to `limit`."""
        ranges = zip(self._starts, self._stops, strict=True)
        return list(islice((index for start, stop in ranges for index in range(start, stop)), limit))

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self._starts, index) - 1
        return at >= 0 and index < self._stops[at]

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of `[start, stop)` is in the set."""
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and stop <= self._stops[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._starts == other._starts and self._stops == other._stops

    def __hash__(self) -> int:
        raise TypeError("a RangeSet is mutable and can't be hashed")

    def __repr__(self) -> str:
        return f"RangeSet({list(self.ranges())})"

    @property
    def run_count(self) -> int:
        """How many ranges the set consists of."""
        return len(self._starts)

    @property
    def first(self) -> int:
        """The lowest index; IndexError if the set is empty."""
        return self._starts[0]

    @property
    def last(self) -> Range:
        """The highest range; IndexError if the set is empty."""
        return self._starts[-1], self._stops[-1]

    @property
    def end(self) -> int:
        """One more than the highest index; 0 if the set is empty."""
        return self._stops[-1] if self._stops else 0

    def copy(self) -> "RangeSet":
        twin = RangeSet()
        twin._starts, twin._stops, twin._count = self._starts.copy(), self._stops.copy(), self._count
        return twin

    def clear(self) -> None:
        self._starts.clear()
        self._stops.clear()
        self._count = 0

    def add(self, start: int, stop: int) -> list[Range]:
        """Add `[start, stop)` and return the parts of it that were not in the set before."""
        if start >= stop:
            return []
        starts, stops = self._starts, self._stops
        if starts and start == stops[-1]:  # the common case: results and pages come in order
            stops[-1] = stop
            self._count += stop - start
            return [(start, stop)]
        low = bisect_left(stops, start)
        high = bisect_right(starts, stop)
        fresh = self._gaps(low, high, start, stop)
        if low < high:
            new_start, new_stop = min(start, starts[low]), max(stop, stops[high - 1])
        else:
            new_start, new_stop = start, stop
        starts[low:high] = [new_start]
        stops[low:high] = [new_stop]
        self._count += sum(b - a for a, b in fresh)
        return fresh

    def discard(self, start: int, stop: int) -> list[Range]:
        """Remove `[start, stop)` and return the parts of it that were in the set."""
        if start >= stop:
            return []
        starts, stops = self._starts, self._stops
        low = bisect_right(stops, start)
        high = bisect_left(starts, stop)
        if low >= high:
            return []
        removed = [(max(a, start), min(b, stop)) for a, b in zip(starts[low:high], stops[low:high], strict=True)]
        left = [(starts[low], start)] if starts[low] < start else []
        right = [(stop, stops[high - 1])] if stops[high - 1] > stop else []
        keep = left + right
        starts[low:high] = [a for a, _ in keep]
        stops[low:high] = [b for _, b in keep]
        self._count -= sum(b - a for a, b in removed)
        return removed

    def take(self, count: int) -> Range | None:
        """Remove and return up to `count` indices from the front, as one range; None if the set is empty."""
        if not self._starts:
            return None
        start = self._starts[0]
        stop = min(self._stops[0], start + count)
        self.discard(start, stop)
        return start, stop

    def within(self, start: int, stop: int) -> list[Range]:
        """Return the parts of `[start, stop)` that are in the set."""
        low = bisect_right(self._stops, start)
        high = bisect_left(self._starts, stop)
        pairs = zip(self._starts[low:high], self._stops[low:high], strict=True)
        return [(max(a, start), min(b, stop)) for a, b in pairs]

    def missing(self, start: int, stop: int) -> list[Range]:
        """Return the parts of `[start, stop)` that are not in the set."""
        if start >= stop:
            return []
        return self._gaps(bisect_left(self._stops, start), bisect_right(self._starts, stop), start, stop)

    def _gaps(self, low: int, high: int, start: int, stop: int) -> list[Range]:
        gaps = []
        at = start
        for a, b in zip(self._starts[low:high], self._stops[low:high], strict=True):
            if at < a:
                gaps.append((at, min(a, stop)))
            at = max(at, b)
        if at < stop:
            gaps.append((at, stop))
        return gaps

    def flat(self) -> list[int]:
        """Return `[start, stop, start, stop, …]`: the compact form that goes into rows and frames."""
        return list(chain.from_iterable(zip(self._starts, self._stops, strict=True)))

    @classmethod
    def from_flat(cls, numbers: Iterable[int]) -> "RangeSet":
        """Read what `flat` wrote; raises ValueError if the numbers do not come in pairs."""
        each = iter(numbers)
        return cls(zip(each, each, strict=True))

    def check_invariants(self) -> None:
        """Raise AssertionError unless the ranges are non-empty, sorted, apart, and counted right."""
        edges = self.flat()
        assert all(a < b for a, b in pairwise(edges)), f"ranges touch or are unsorted: {edges}"
        assert self._count == sum(b - a for a, b in self.ranges()), f"count {self._count} of {self}"
