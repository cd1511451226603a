"""Result pages as REST gives them: JSON values as they are, pickled ones as bytes that only their owner opens."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from fallow.hub.core.hub import Hub
from fallow.hub.web.views import FailureView, view_failure
from fallow.model.ids import JobId
from fallow.model.page import ResultPage, StoredPage
from fallow.model.ranges import RangeSet
from fallow.model.token import Token

PAGES_BYTES = 1 << 20
"""Stored pages read at a time: what one response, or one step of a stream, holds in memory."""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one task: its value, or why there is none. A task that was filtered out has no result."""

    index: int
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: FailureView | msgspec.UnsetType = msgspec.UNSET


class ResultList(msgspec.Struct, frozen=True):
    """Results settled so far, by index."""

    results: list[Result]
    next: int | None
    """Pass as `start` for what follows; null at the end of what is settled so far."""
    state: str
    """The job's state, read before the results: after "done" or "cancelled" no more results come."""


class BytesPage(msgspec.Struct, frozen=True):
    """A page of pickled results as MessagePack has it."""

    start: int
    stop: int
    counts: tuple[int, ...]
    """Flat ranges (start, stop, start, stop, …) of the indices that this page, and no other, is to be read for."""
    kept: tuple[int, ...] | None
    """Flat ranges of the indices that have a value in `data`, in order; null means all."""
    partial: bool
    """True if `data` holds one value for the whole range: a partial result of `reduce`."""
    failures: list[tuple[int, FailureView]]
    data: bytes
    """Written by `fallow.slot.pages`; read it with `fallow.slot.pages.decode`. It contains pickles: read your own only."""


class BytesList(msgspec.Struct, frozen=True):
    """The MessagePack body of the results of a pickled job."""

    pages: list[BytesPage]
    next: int | None
    state: str


async def page_bytes(hub: Hub, page: ResultPage) -> bytes:
    """Return the bytes of a page, from its blob if it is one."""
    if page.blob is not None:
        return await asyncio.to_thread(hub.blobs.read, page.blob)
    return page.data or b""


async def read_pages(hub: Hub, job: JobId, token: Token, start: int) -> tuple[list[StoredPage], int | None]:
    """Return the pages settled so far for indices from `start` on, and the index to go on from, None at the end.

    The pages' counts are cut to what lies between the two, so that no index is met twice: a page that reaches beyond
    the second comes again with the next call.
    """
    limit_bytes = PAGES_BYTES
    pages, after = await hub.front.results(job, token, start=start, limit_bytes=limit_bytes)
    while after is not None and after <= start:  # pages that overlap, all of them begun before `start`
        limit_bytes *= 4
        pages, after = await hub.front.results(job, token, start=start, limit_bytes=limit_bytes)
    cut = (_cut(stored, start, after) for stored in pages)
    return [stored for stored in cut if stored.counts], after


def _cut(stored: StoredPage, start: int, stop: int | None) -> StoredPage:
    page = stored.page
    if page.partial:  # counts whole or not at all
        return stored if page.start >= start and (stop is None or page.start < stop) else StoredPage(page, ())
    counts = RangeSet(RangeSet.from_flat(stored.counts).within(start, page.stop if stop is None else stop))
    return StoredPage(page, tuple(counts.flat()))


def json_results(stored: StoredPage, data: bytes) -> list[Result]:
    """Return the results that this page counts for."""
    page = stored.page
    counted = RangeSet.from_flat(stored.counts)
    if page.kept is not None:
        kept = RangeSet.from_flat(page.kept)
    else:
        kept = RangeSet([(page.start, page.stop)])
        for failure in page.failures:
            kept.discard(failure.index, failure.index + 1)
    values = msgspec.json.decode(data, type=list[msgspec.Raw]) if data else []
    indices = (index for start, stop in kept.ranges() for index in range(start, stop))
    found = [Result(index, value=value) for index, value in zip(indices, values, strict=True) if index in counted]
    return found + [
        Result(failure.index, error=view_failure(failure)) for failure in page.failures if failure.index in counted
    ]


async def read_json(hub: Hub, pages: Sequence[StoredPage]) -> list[Result]:
    """Return the results of pages of a JSON job, in order of index."""
    found = [result for stored in pages for result in json_results(stored, await page_bytes(hub, stored.page))]
    return sorted(found, key=lambda result: result.index)


async def stream_json_lines(hub: Hub, job: JobId, token: Token, start: int) -> AsyncIterator[bytes]:
    """Yield everything settled from `start` on as JSON lines, a megabyte of pages at a time."""
    encoder = msgspec.json.Encoder()
    after: int | None = start
    while after is not None:
        pages, after = await read_pages(hub, job, token, after)
        if lines := await read_json(hub, pages):
            yield encoder.encode_lines(lines)


async def read_bytes(hub: Hub, pages: Sequence[StoredPage]) -> list[BytesPage]:
    """Return pages of a pickled job with their bytes."""
    return [
        BytesPage(
            start=stored.page.start,
            stop=stored.page.stop,
            counts=stored.counts,
            kept=stored.page.kept,
            partial=stored.page.partial,
            failures=[(failure.index, view_failure(failure)) for failure in stored.page.failures],
            data=await page_bytes(hub, stored.page),
        )
        for stored in pages
    ]
