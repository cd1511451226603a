"""Where a job's inputs come from, cut into pages."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from threading import Condition
from typing import Any

import msgspec

from fallow.model.errors import PicklingFailed, TooLarge
from fallow.model.ids import Digest
from fallow.model.page import INLINE_BYTES, MAX_PAGE_REFS, REF_BYTES
from fallow.slot import pages, refs

PAGE_ITEMS = 4096
"""Most items of an input page: so many that a page's cost is shared, so few that leases can be small."""
PAGE_BYTES = 256 * 1024
"""What a page aims at."""
PAGE_GROWTH = 16
"""By how much a page may hold more items than the one before, as later items may be larger than the first."""
PAGE_AGE_S = 0.005
"""An iterator that yields slowly has what it yielded so far sent after this long."""
WINDOW_ITEMS = 16 * PAGE_ITEMS
"""How far an iterator of unknown length is pulled ahead of who reads the results."""
IN_FLIGHT_BYTES = 32 << 20
"""Input bytes sent and not acknowledged; more wait in the feeder."""

UNPICKLED = (
    "It holds something that can't travel, such as an open file, a lock or a connection; pass what that is made from "
    "(a path, an address), and open it in the function"
)


class Page(msgspec.Struct):
    """A page's bytes, in pieces, and what it refers to."""

    start: int
    stop: int
    pieces: list[pages.Piece]
    refs: tuple[str, ...]
    blobs: Mapping[Digest, "Path | bytes"] = {}
    """Those of them that the hub may lack yet."""

    @property
    def size_bytes(self) -> int:
        return pages.size_bytes(self.pieces)

    @property
    def fits_inline(self) -> bool:
        """Whether the page and the digests of what it refers to fit a frame."""
        count = len(self.refs)
        return count <= MAX_PAGE_REFS and self.size_bytes + REF_BYTES * count <= INLINE_BYTES


def known_length(items: Iterable[Any]) -> int | None:
    """Return how many items there are, None for an iterator."""
    return len(items) if isinstance(items, Sized) else None


Encode = Callable[[Sequence[Any]], list[pages.Piece]]


def cut(items: Iterable[Any], length: int | None, encode: Encode = pages.encode_list) -> Iterator[Page]:
    """Cut items into pages of about PAGE_BYTES; one large item is a page of its own. Raises PicklingFailed."""
    start = 0
    count = 1  # the first item tells how large they are; and its task starts at once
    source = iter(items)
    while True:
        chunk = list(islice(source, count)) if length is not None else _pull(source, count)
        if not chunk:
            return
        for page in _pages(chunk, start, encode):
            yield page
            item_bytes = page.size_bytes / (page.stop - page.start)
        start += len(chunk)
        count = max(1, min(PAGE_ITEMS, count * PAGE_GROWTH, int(PAGE_BYTES / item_bytes)))


def _pull(source: Iterator[Any], count: int) -> list[Any]:
    """Take up to `count` items, fewer if they come slowly."""
    chunk: list[Any] = []
    deadline = 0.0
    for item in source:
        chunk.append(item)
        if len(chunk) >= count:
            break
        now = time.monotonic()
        if not deadline:
            deadline = now + PAGE_AGE_S
        elif now > deadline:
            break
    return chunk


def _pages(chunk: Sequence[Any], start: int, encode: Encode) -> Iterator[Page]:
    with refs.collecting() as digests:
        try:
            pieces = encode(chunk)
        except Exception as error:  # whatever an item's own pickling raises
            raise _blame(chunk, start, error) from error
    page = Page(start, start + len(chunk), pieces, tuple(digests))
    if len(chunk) > 1 and not page.fits_inline:
        half = len(chunk) // 2
        yield from _pages(chunk[:half], start, encode)
        yield from _pages(chunk[half:], start + half, encode)
    else:
        check_refs(len(page.refs), f"input {start}, a {type(chunk[0]).__name__},")
        yield page


def check_refs(count: int, what: str) -> None:
    """Raise TooLarge if one item refers to more objects than a page may."""
    if count > MAX_PAGE_REFS:
        raise TooLarge(
            f"{what} refers to {count} objects of grid.put, over the limit of {MAX_PAGE_REFS}; put one list of them all"
        )


def _blame(chunk: Sequence[Any], start: int, error: Exception) -> PicklingFailed:
    for at, item in enumerate(chunk):
        try:
            pages.encode_list([item])
        except Exception as own:
            return PicklingFailed(f"input {start + at}, a {type(item).__name__}, can't be pickled: {own}. {UNPICKLED}")
    return PicklingFailed(f"inputs from {start} on can't be pickled together: {error}. {UNPICKLED}")


class Gate:
    """Holds a feeder back: by bytes not acknowledged yet, and for iterators by how far the reader is."""

    def __init__(self, *, is_windowed: bool) -> None:
        self._condition = Condition()
        self._in_flight: deque[tuple[int, int]] = deque()
        self._bytes = 0
        self._consumed = 0
        self._is_windowed = is_windowed
        self._is_closed = False

    def passed(self, stop: int, size_bytes: int) -> bool:
        """Wait until a page that ends at `stop` may be sent; return False if the job is over."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed or self._is_open(stop))
            self._in_flight.append((stop, size_bytes))
            self._bytes += size_bytes
            return not self._is_closed

    def _is_open(self, stop: int) -> bool:
        if self._in_flight and self._bytes >= IN_FLIGHT_BYTES:
            return False
        return not self._is_windowed or stop - self._consumed <= WINDOW_ITEMS

    def accepted(self, stop: int) -> None:
        """Inputs below `stop` are durable."""
        with self._condition:
            while self._in_flight and self._in_flight[0][0] <= stop:
                self._bytes -= self._in_flight.popleft()[1]
            self._condition.notify_all()

    def emptied(self) -> None:
        """Wait until all that was sent is durable, or the job is over."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_closed or not self._in_flight)

    def consumed(self, index: int) -> None:
        """The reader has come to `index`."""
        if self._is_windowed:
            with self._condition:
                self._consumed = max(self._consumed, index)
                self._condition.notify_all()

    def open_wide(self) -> None:
        """Somebody waits for the whole job: nothing needs to be held back for a reader."""
        with self._condition:
            self._is_windowed = False
            self._condition.notify_all()

    def close(self) -> None:
        """The job is over: nothing more is fed."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
