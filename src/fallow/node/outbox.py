"""Finished results and output on their way to the hub: grouped, spooled, numbered, sent again after a reconnect."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from fallow.link.frames import Done, Printed, TaskBroke
from fallow.link.link import Link
from fallow.log import Logger
from fallow.model.changes import LogEntry
from fallow.model.ids import Digest, JobId, LeaseId
from fallow.model.page import REF_BYTES, ResultPage
from fallow.model.ranges import RangeSet
from fallow.node.spool import Spool

GROUP_S = 0.010
"""Results of fast tasks wait this long for company, unless nothing was sent for as long."""
GROUP_BYTES = 256 * 1024
PRINTED_BYTES = 256 * 1024
"""Output held back while there is no link, or until it is sent; more is dropped. Logs are best effort."""
PRINTED_S = 0.1
PAGE_HEAD_BYTES = 100

_log = Logger("fallow.node")


class Outbox:
    """One per agent."""

    def __init__(self, spool: Spool, offer: Callable[[Digest], None]) -> None:
        """offer: called with the digest of a blob that the hub must keep before the result that names it can be sent."""
        self._spool = spool
        self._offer = offer
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop
        self._groups: dict[LeaseId, tuple[JobId, list[ResultPage]]] = {}
        self._group_bytes = 0
        self._last_sent = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        self._sent: deque[tuple[int, int]] = deque()
        self._waiting: dict[int, set[Digest]] = {}
        self._kept: set[Digest] = set()
        self._broken: list[TaskBroke] = []
        self._printed: dict[JobId, list[LogEntry]] = {}
        self._printed_bytes = 0
        self._printed_timer: asyncio.TimerHandle | None = None

    # --- life ---

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._spool.open()

    def connected(self, link: Link) -> None:
        """Send everything that is not acknowledged; results whose blobs the hub may lack follow when it has them."""
        self._link = link
        self._sent.clear()
        self._waiting.clear()
        self._kept.clear()
        for serial in self._spool.serials():
            self._dispatch(serial)
        for broken in self._broken:
            link.send(broken)
        self._broken.clear()
        self.flush()

    def disconnected(self) -> None:
        self._link = None

    def close(self) -> None:
        """Put what is grouped into the spool and stop."""
        self.flush()
        self._link = None
        for timer in (self._timer, self._printed_timer):
            if timer is not None:
                timer.cancel()
        self._spool.close()

    @property
    def is_empty(self) -> bool:
        """Whether the hub has acknowledged everything."""
        return not self._groups and not len(self._spool)

    # --- results ---

    def add(self, lease: LeaseId, job: JobId, page: ResultPage, *, at_once: bool) -> None:
        """Take a finished page. at_once: its lease has ended, or the node is idle."""
        size = PAGE_HEAD_BYTES + REF_BYTES * len(page.files) + len(page.data or b"")
        size += sum(_failure_bytes(failure) for failure in page.failures)
        if self._group_bytes + size > GROUP_BYTES and self._groups:
            self.flush()
        group = self._groups.get(lease)
        if group is None:
            self._groups[lease] = (job, [page])
        else:
            group[1].append(page)
        self._group_bytes += size
        if at_once or self._group_bytes >= GROUP_BYTES:
            self.flush()
            return
        wait = self._last_sent + GROUP_S - self._loop.time()
        if wait <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(wait, self._timed_flush)

    def _timed_flush(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Send what is grouped, output first."""
        if self._printed:
            self.flush_printed()
        if not self._groups:
            return
        self._last_sent = self._loop.time()
        groups, self._groups, self._group_bytes = self._groups, {}, 0
        for lease, (job, pages) in groups.items():
            self._keep(lease, job, tuple(pages))

    def _keep(self, lease: LeaseId, job: JobId, pages: tuple[ResultPage, ...]) -> None:
        try:
            serial = self._spool.add(lease, job, pages)
        except OSError as error:  # it is in memory all the same
            _log.warning("results can't be written to the spool", error=str(error))
            serial = self._spool.serials()[-1]
        self._dispatch(serial)

    def _dispatch(self, serial: int) -> None:
        record = self._spool.get(serial)
        if self._link is None or record is None:
            return
        pages = record.pages()
        blobs = {digest for page in pages for digest in page.blobs} - self._kept
        if blobs:
            self._waiting[serial] = blobs
            for digest in blobs:
                self._offer(digest)
            return
        self._number += 1
        self._sent.append((self._number, serial))
        self._link.send(Done(self._number, record.lease, record.job, pages))

    def blob_kept(self, digest: Digest) -> None:
        """The hub has a blob: send what waited for it."""
        self._kept.add(digest)
        for serial, blobs in list(self._waiting.items()):
            blobs.discard(digest)
            if not blobs:
                del self._waiting[serial]
                self._dispatch(serial)

    def offer_again(self) -> None:
        """Offer the blobs that the hub has not kept yet once more: it may have had no room."""
        for digest in {digest for blobs in self._waiting.values() for digest in blobs}:
            self._offer(digest)

    def blob_lost(self, digest: Digest) -> None:
        """A blob can't be delivered: drop the results that name it; their tasks are run again elsewhere."""
        for serial, blobs in list(self._waiting.items()):
            if digest in blobs:
                del self._waiting[serial]
                self._spool.acknowledge(serial)

    def acknowledged(self, number: int) -> list[Digest]:
        """Forget what is durable at the hub; return the blobs that are not needed for it any more."""
        released = []
        while self._sent and self._sent[0][0] <= number:
            serial = self._sent.popleft()[1]
            record = self._spool.get(serial)
            if record is not None:
                released += [digest for page in record.pages() for digest in page.blobs]
                self._spool.acknowledge(serial)
        self._kept.difference_update(released)
        return released

    def undelivered(self) -> dict[tuple[LeaseId, JobId], RangeSet]:
        """Return the tasks that are finished but not sent yet, by lease: for the hub they are still ours."""
        out: dict[tuple[LeaseId, JobId], RangeSet] = {}
        held: Iterable[tuple[LeaseId, JobId, Sequence[ResultPage]]] = [
            (lease, job, pages) for lease, (job, pages) in self._groups.items()
        ] + [(r.lease, r.job, r.pages()) for serial in self._waiting if (r := self._spool.get(serial)) is not None]
        for lease, job, pages in held:
            ranges = out.setdefault((lease, job), RangeSet())
            for page in pages:
                ranges.add(page.start, page.stop)
        return out

    def needs(self, digest: Digest) -> bool:
        """Whether a result that is not delivered names the blob."""
        return any(digest in blobs for blobs in self._waiting.values())

    # --- broken tasks ---

    def broke(self, frame: TaskBroke) -> None:
        """Report a task that came to no result."""
        self.flush()
        if self._link is not None:
            self._link.send(frame)
        else:
            self._broken.append(frame)

    # --- output ---

    def add_printed(self, job: JobId, entries: Sequence[LogEntry]) -> None:
        size = sum(len(entry.text) for entry in entries)
        if self._printed_bytes + size > PRINTED_BYTES:
            self.flush_printed()
            if self._link is None:
                return
        self._printed.setdefault(job, []).extend(entries)
        self._printed_bytes += size
        if self._printed_timer is None:
            self._printed_timer = self._loop.call_later(PRINTED_S, self._timed_printed)

    def _timed_printed(self) -> None:
        self._printed_timer = None
        self.flush_printed()

    def flush_printed(self) -> None:
        if self._link is None:
            return
        printed, self._printed, self._printed_bytes = self._printed, {}, 0
        for job, entries in printed.items():
            self._link.send(Printed(job, tuple(entries)))


def _failure_bytes(failure: object) -> int:
    message = getattr(failure, "message", "")
    traceback = getattr(failure, "traceback", "")
    return 100 + len(message) + len(traceback) + len(getattr(failure, "exception", None) or b"")
