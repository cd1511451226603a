"""Input pages on the node: kept while leases touch them, and the last ones for the leases to come."""

from bisect import bisect_right
from collections import OrderedDict

from fallow.model.ids import Digest, JobId
from fallow.model.page import InputPage
from fallow.model.ranges import RangeSet

KEPT_PAGES = 64
"""Pages kept without a lease on them. The hub takes for granted that a node has the last 32 that it was sent."""


class ShelvedPage:
    """An input page under its number, by which slots know it."""

    __slots__ = ("number", "page")

    def __init__(self, number: int, page: InputPage) -> None:
        self.number = number
        self.page = page


class PageShelf:
    """All input pages that the node has. Pages of one job may overlap; each is used for the indices that it counts for."""

    def __init__(self) -> None:
        self._numbers = 0
        self._spans: dict[JobId, list[tuple[int, int, ShelvedPage]]] = {}
        self._recent: OrderedDict[tuple[JobId, int], ShelvedPage] = OrderedDict()

    def add(self, job: JobId, page: InputPage) -> None:
        """Take a page; what is there already is not taken twice."""
        spans = self._spans.setdefault(job, [])
        counts = (page.start, page.stop) if page.counts is None else page.counts
        fresh = RangeSet(zip(counts[::2], counts[1::2], strict=True))
        if spans and counts[0] < spans[-1][1]:  # mostly it is behind all others
            for start, stop, old in spans:
                if fresh.discard(start, stop):
                    self._recent.move_to_end((job, old.number))
            if not fresh:
                return
        self._numbers += 1
        shelved = ShelvedPage(self._numbers, page)
        self._recent[job, shelved.number] = shelved
        in_order = not spans or counts[0] >= spans[-1][1]
        spans += [(start, stop, shelved) for start, stop in fresh.ranges()]
        if not in_order:
            spans.sort(key=lambda span: span[0])

    def find(self, job: JobId, index: int) -> tuple[ShelvedPage, int] | None:
        """Return the page with the input of a task, and the index up to which it is the page to use."""
        spans = self._spans.get(job)
        if not spans:
            return None
        at = bisect_right(spans, index, key=lambda span: span[0]) - 1
        if at < 0 or index >= spans[at][1]:
            return None
        return spans[at][2], spans[at][1]

    def names(self, digest: Digest) -> bool:
        """Whether a page is this blob or refers to it."""
        return any(digest == each.page.blob or digest in each.page.refs for each in self._recent.values())

    def drop_job(self, job: JobId) -> list[ShelvedPage]:
        """Forget all pages of the job and return them."""
        self._spans.pop(job, None)
        return [self._recent.pop(key) for key in [key for key in self._recent if key[0] == job]]

    def trim(self, needed: dict[JobId, RangeSet]) -> list[tuple[JobId, ShelvedPage]]:
        """Drop the oldest pages over KEPT_PAGES of which no task in `needed` is unfinished; return them."""
        over = len(self._recent) - KEPT_PAGES
        dropped: list[tuple[JobId, ShelvedPage]] = []
        if over <= 0:
            return dropped
        for key, shelved in list(self._recent.items()):
            job = key[0]
            page = shelved.page
            if job in needed and needed[job].within(page.start, page.stop):
                continue
            del self._recent[key]
            self._spans[job] = [span for span in self._spans[job] if span[2] is not shelved]
            if not self._spans[job]:
                del self._spans[job]
            dropped.append((job, shelved))
            if len(dropped) == over:
                break
        return dropped

    @property
    def is_over(self) -> bool:
        """Whether `trim` may have something to do. Checked often, so it leaves a margin."""
        return len(self._recent) > KEPT_PAGES + 16
