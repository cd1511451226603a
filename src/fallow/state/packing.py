"""How both states pack and merge what they keep of progress: flat ranges, counted failures, the pages that are wanted."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from operator import sub

import msgspec

from fallow.model.failure import Failure
from fallow.model.page import REF_BYTES, ResultPage, StoredPage
from fallow.model.ranges import Range

FIRST_FAILURES = 100
"""Failures kept of a job beside their count; the others are in the result pages."""

_encode = msgspec.msgpack.Encoder().encode
_decode_numbers = msgspec.msgpack.Decoder(list[int]).decode


def pack_ranges(flat: Sequence[int]) -> bytes:
    """Write flat ranges as the MessagePack array of their differences: one byte for most numbers, at C's speed."""
    return _encode([*flat[:1], *map(sub, flat[1:], flat)])


def unpack_ranges(data: bytes) -> tuple[int, ...]:
    """Read what `pack_ranges` wrote."""
    return tuple(accumulate(_decode_numbers(data)))


def merge_ranges(settled: Sequence[int], more: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the union of flat ranges, sorted and apart. Linear in `settled`, which is long and sorted already."""
    extra = [*chain.from_iterable(more)]
    if not extra:
        return tuple(settled)
    pairs = [*zip(settled[::2], settled[1::2], strict=True), *zip(extra[::2], extra[1::2], strict=True)]
    pairs.sort()
    flat: list[int] = []
    start, end = pairs[0]
    for a, b in pairs:
        if a > end:
            flat += (start, end)
            start = a
        end = max(end, b)
    flat += (start, end)
    return tuple(flat)


def counted_failures(stored: StoredPage) -> Sequence[Failure]:
    """Return the page's failures at indices that count."""
    failures, counts = stored.page.failures, stored.counts
    if not failures or (len(counts) == 2 and counts[0] <= stored.page.start and stored.page.stop <= counts[1]):
        return failures
    # An index lies inside a flat range exactly if an odd number of edges is at or below it.
    return [failure for failure in failures if bisect_right(counts, failure.index) & 1]


def page_bytes(page: ResultPage) -> int:
    """Return about how many bytes the page takes in an answer."""
    size = 100 + REF_BYTES * len(page.files) + (len(page.data) if page.data is not None else 0)
    for failure in page.failures:
        size += 100 + len(failure.traceback) + len(failure.message) + len(failure.exception or b"")
    return size


class Wanted:
    """Disjoint ascending ranges, ready to be asked many times."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._starts = [start for start, _ in ranges]
        self._stops = [stop for _, stop in ranges]

    @property
    def first(self) -> int:
        return self._starts[0]

    @property
    def stop(self) -> int:
        return self._stops[-1]

    def touches(self, flat: Sequence[int]) -> bool:
        """Return whether any of the flat ranges shares an index with these."""
        for start, stop in zip(flat[::2], flat[1::2], strict=True):
            at = bisect_right(self._stops, start)
            if at < len(self._starts) and self._starts[at] < stop:
                return True
        return False
