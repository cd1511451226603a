"""Input pages in memory, so that granting a lease rarely reads the database."""

from bisect import bisect_right
from collections import OrderedDict

from fallow.model.ids import Digest, JobId
from fallow.model.page import InputPage
from fallow.model.ranges import RangeSet

PAGE_OVERHEAD_BYTES = 200
"""What a page costs in memory beside its bytes."""


class PageCache:
    """Least recently used pages go first, except those that are not committed yet: the database lacks them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._pages: OrderedDict[tuple[JobId, int], InputPage] = OrderedDict()
        self._starts: dict[JobId, list[int]] = {}
        self._pinned: set[tuple[JobId, int]] = set()

    def put(self, page: InputPage, *, pinned: bool) -> None:
        """Keep a page. pinned: until `unpin`, it is not dropped."""
        key = (page.job, page.start)
        if key in self._pages:
            return
        self._pages[key] = page
        self._bytes += _size(page)
        starts = self._starts.setdefault(page.job, [])
        if not starts or starts[-1] < page.start:
            starts.append(page.start)
        else:
            starts.insert(bisect_right(starts, page.start), page.start)
        if pinned:
            self._pinned.add(key)
        if self._bytes > self._limit_bytes:
            self._shrink()

    def unpin(self, job: JobId, start: int) -> None:
        """The page is in the database now."""
        self._pinned.discard((job, start))

    def covering(self, job: JobId, start: int, stop: int) -> list[InputPage] | None:
        """Return the pages that together cover `[start, stop)`; None if one is missing."""
        starts = self._starts.get(job)
        if starts is None:
            return None
        at = bisect_right(starts, start) - 1
        pages: list[InputPage] = []
        reached = start
        while reached < stop:
            if not 0 <= at < len(starts):
                return None
            key = (job, starts[at])
            page = self._pages[key]
            if not page.start <= reached < page.stop:
                return None
            self._pages.move_to_end(key)
            pages.append(page)
            reached = page.stop
            at += 1
        return pages

    def forget(self, job: JobId) -> list[Digest]:
        """Drop the job's pages, pinned ones too; return the blobs that they are in."""
        blobs = []
        for start in self._starts.pop(job, ()):
            key = (job, start)
            page = self._pages.pop(key)
            self._bytes -= _size(page)
            self._pinned.discard(key)
            if page.blob is not None:
                blobs.append(page.blob)
        return blobs

    def drop_settled(self, job: JobId, settled: RangeSet) -> list[Digest]:
        """Drop the job's first pages, as far as all of their tasks have results: they are not granted again.

        Returns the blobs that they are in.
        """
        starts = self._starts.get(job)
        blobs: list[Digest] = []
        if not starts:
            return blobs
        count = 0
        for start in starts:
            key = (job, start)
            page = self._pages[key]
            if key in self._pinned or not settled.covers(page.start, page.stop):
                break
            del self._pages[key]
            self._bytes -= _size(page)
            if page.blob is not None:
                blobs.append(page.blob)
            count += 1
        del starts[:count]
        return blobs

    def _shrink(self) -> None:
        victims = []
        for key, page in self._pages.items():
            if self._bytes <= self._limit_bytes:
                break
            if key not in self._pinned:
                self._bytes -= _size(page)
                victims.append(key)
        for key in victims:
            del self._pages[key]
            starts = self._starts[key[0]]
            starts.pop(bisect_right(starts, key[1]) - 1)


def _size(page: InputPage) -> int:
    return PAGE_OVERHEAD_BYTES + (len(page.data) if page.data is not None else 0)
