"""Reads result pages in order of start from rows that hold several pages each and may overlap.

Rows are walked by their headers; pages are read only from rows that count for what is wanted, a batch at a time.
"""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, select, tuple_

from fallow.model.ids import JobId
from fallow.model.page import StoredPage
from fallow.state import schema
from fallow.state.packing import Wanted, page_bytes, unpack_ranges

_HEADERS = 512
"""Headers read at a time: a few tens of KB."""

_decode_pages = msgspec.msgpack.Decoder(tuple[StoredPage, ...]).decode

_jobs, _results = schema.jobs.c, schema.results.c
_find = select(_jobs.number, _jobs.span).where(_jobs.id == bindparam("id"))
_headers = (
    select(_results.seq, _results.start, _results.first, _results.bytes, _results.counts)
    .where(
        _results.job == bindparam("number"),
        _results.start < bindparam("stop"),
        tuple_(_results.start, _results.first) > tuple_(bindparam("start"), bindparam("first")),
    )
    .order_by(_results.start, _results.first)
    .limit(_HEADERS)
)
_pages = select(_results.seq, _results.pages).where(_results.seq.in_(bindparam("seqs", expanding=True)))


def read_result_pages(
    connection: Connection, job: JobId, wanted: Wanted, after: int, limit_bytes: int
) -> tuple[list[StoredPage], int | None]:
    """Return pages and where to go on, as `State.result_pages` says."""
    found = connection.execute(_find, {"id": job}).first()
    if found is None:
        return [], None
    chosen = _Chosen(limit_bytes)
    waiting: list[tuple[int, int, StoredPage]] = []  # a heap: pages of rows read, until no row can start before them
    number = count()
    for row in _walk(connection, found.number, max(after, wanted.first) - found.span, wanted, limit_bytes):
        while waiting and waiting[0][0] < row.start:
            if not chosen.add(waiting[0][2]):
                return chosen.pages, waiting[0][0]
            heappop(waiting)
        if not waiting and chosen.is_full(row.start):
            return chosen.pages, row.start
        for stored in row.load():
            if stored.page.start >= after and wanted.touches(stored.counts):
                heappush(waiting, (stored.page.start, next(number), stored))
    while waiting:
        if not chosen.add(waiting[0][2]):
            return chosen.pages, waiting[0][0]
        heappop(waiting)
    return chosen.pages, None


class _Chosen:
    """Pages for the answer, until they are over the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.pages: list[StoredPage] = []
        self._room = limit_bytes
        self._last_start = -1

    def is_full(self, start: int) -> bool:
        """Return whether a page of this start must wait. Pages of one start are not parted: one goes on from a start."""
        return self._room <= 0 and bool(self.pages) and start != self._last_start

    def add(self, stored: StoredPage) -> bool:
        if self.is_full(stored.page.start):
            return False
        self.pages.append(stored)
        self._last_start = stored.page.start
        self._room -= page_bytes(stored.page)
        return True


class _Row:
    """One row's place in the order; its pages are read together with those of the rows after it."""

    def __init__(self, batch: "_Batch", at: int, start: int) -> None:
        self.start = start
        self._batch = batch
        self._at = at

    def load(self) -> Sequence[StoredPage]:
        return self._batch.load(self._at)


class _Batch:
    """Rows of one run of headers, loaded up to a number of bytes at a time."""

    def __init__(self, connection: Connection, headers: Sequence[Any], batch_bytes: int) -> None:
        self._connection = connection
        self._headers = headers
        self._batch_bytes = batch_bytes
        self._loaded: dict[int, bytes] = {}
        self._loaded_to = 0

    def load(self, at: int) -> Sequence[StoredPage]:
        if at >= self._loaded_to:
            seqs: list[int] = []
            room = self._batch_bytes
            for header in self._headers[at:]:
                if room <= 0 and seqs:
                    break
                seqs.append(header.seq)
                room -= header.bytes
            self._loaded_to = at + len(seqs)
            self._loaded = {row.seq: row.pages for row in self._connection.execute(_pages, {"seqs": seqs})}
        # The job may have been deleted since its headers were read.
        pages = self._loaded.pop(self._headers[at].seq, None)
        return _decode_pages(pages) if pages is not None else ()


def _walk(connection: Connection, number: int, low: int, wanted: Wanted, batch_bytes: int) -> Iterator[_Row]:
    """Yield the rows from start `low` on that count for what is wanted, in order of start."""
    start, first = low - 1, 2**62
    while True:
        parameters = {"number": number, "stop": wanted.stop, "start": start, "first": first}
        headers = connection.execute(_headers, parameters).all()
        counting = [header for header in headers if wanted.touches(unpack_ranges(header.counts))]
        batch = _Batch(connection, counting, batch_bytes)
        for at, header in enumerate(counting):
            yield _Row(batch, at, header.start)
        if len(headers) < _HEADERS:
            return
        start, first = headers[-1].start, headers[-1].first
