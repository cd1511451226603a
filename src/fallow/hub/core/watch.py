"""What one client wants to see of one job's results, and how much more it is ready to hold."""

from collections.abc import Sequence

from fallow.model.page import INLINE_BYTES, REF_BYTES, StoredPage
from fallow.model.ranges import Range, RangeSet

PAGE_BYTES = 120
"""What a page costs beside its data, so that a flood of tiny pages uses up credit too."""
UNLIMITED = 1 << 60
"""Credit of a client that holds futures: it keeps all results anyway."""
RANGES_PER_READ = 256
"""Ranges looked up in the state at a time, so that scattered results do not make one huge query."""


class Watch:
    """A window of wanted indices and a credit of bytes."""

    __slots__ = ("credit_bytes", "is_reading", "sent", "want")

    def __init__(self) -> None:
        self.want = RangeSet()
        self.sent = RangeSet()
        self.credit_bytes = 0
        self.is_reading = False

    def extend(self, start: int, stop: int, credit_bytes: int) -> None:
        """Want `[start, stop)` too, except what was sent already, and allow more bytes."""
        for a, b in self.sent.missing(start, stop):
            self.want.add(a, b)
        self.credit_bytes = min(self.credit_bytes + credit_bytes, UNLIMITED)

    def take(self, page: StoredPage) -> bool:
        """Return whether to send the page now; if so, it is counted as sent.

        The page with the lowest wanted index goes even without credit: an ordered reader waits for just that one.
        """
        counts = page.counts
        want = self.want
        if not want:
            return False
        if len(counts) == 2 and not want.within(counts[0], counts[1]):
            return False
        ranges = list(zip(counts[::2], counts[1::2], strict=True))
        if len(ranges) > 1 and not any(want.within(a, b) for a, b in ranges):
            return False
        if self.credit_bytes <= 0:
            first = want.first
            if not any(a <= first < b for a, b in ranges):
                return False
        for a, b in ranges:
            want.discard(a, b)
            self.sent.add(a, b)
        self.credit_bytes -= page_cost(page)
        return True

    def ready(self, settled: RangeSet) -> list[Range]:
        """Return what is settled and wanted and may be sent now; at most RANGES_PER_READ ranges."""
        found: list[Range] = []
        if not self.want:
            return found
        if self.credit_bytes <= 0:
            first = self.want.first
            return settled.within(first, first + 1)
        for a, b in self.want.ranges():
            found += settled.within(a, b)
            if len(found) >= RANGES_PER_READ:
                return found[:RANGES_PER_READ]
        return found


def page_cost(page: StoredPage) -> int:
    """Return how much credit a page uses, in bytes."""
    data = page.page.data
    return (
        PAGE_BYTES
        + REF_BYTES * len(page.page.files)
        + (len(data) if data is not None else INLINE_BYTES if page.page.blob is not None else 0)
    )


def pages_cost(pages: Sequence[StoredPage]) -> int:
    return sum(map(page_cost, pages))
