"""What tasks start from: input pages and checkpoints, asked for until they are here with their blobs, then given to slots."""

import time
from collections.abc import Callable, Iterable, Sequence

from fallow.model.ids import Digest, JobId
from fallow.model.lease import HeldLease
from fallow.model.page import InputPage
from fallow.model.ranges import RangeSet
from fallow.node.checkpoints import Checkpoints
from fallow.node.lease_queue import QueuedLease
from fallow.node.node_job import NodeJob
from fallow.node.node_jobs import NodeJobs
from fallow.node.page_shelf import PageShelf, ShelvedPage
from fallow.node.slot import Slot

ASK_AGAIN_S = 5.0
"""An input page that was asked for is asked for again after this."""


class Inputs:
    """Those of all jobs of the node."""

    def __init__(self, jobs: NodeJobs, checkpoints: Checkpoints, want_pages: Callable[[JobId, int, int], None]) -> None:
        """want_pages: asks for the pages of tasks [start, stop)."""
        self._jobs = jobs
        self._checkpoints = checkpoints
        self._want_pages = want_pages
        self._shelf = PageShelf()
        self._asked: dict[tuple[JobId, int], float] = {}

    def add(self, job: JobId, pages: Sequence[InputPage]) -> None:
        for page in pages:
            self._shelf.add(job, page)

    def ask_again(self) -> None:
        """There is a new link: what was asked for will not come."""
        self._asked.clear()

    def forget(self, job: JobId) -> None:
        self._shelf.drop_job(job)
        self._asked = {key: at for key, at in self._asked.items() if key[0] != job}

    def needs(self, digest: Digest) -> bool:
        """Whether a page is this blob or refers to it."""
        return self._shelf.names(digest)

    # --- for the next batch of a lease ---

    def find(self, job: NodeJob, queued: QueuedLease) -> tuple[ShelvedPage | None, int] | None:
        """Return the page of the lease's next task (None if the job counts), and up to which index tasks can be tried
        with it; None if something that the task needs is not here yet.
        """
        first = queued.pending.first
        shelved: ShelvedPage | None = None
        bound = queued.lease.stop
        if not job.counts:
            found = self._page(job, first, bound)
            if found is None:
                return None
            shelved, bound = found
        checkpoints, job_id = self._checkpoints, job.spec.id
        checkpoint = checkpoints.of(job_id, first)
        if checkpoints.is_being_taken(job_id, first):
            return None
        if checkpoint is None:
            return shelved, checkpoints.first_within(job_id, first, bound)
        return None if self._jobs.fetch(job, checkpoint) is None else (shelved, first + 1)

    def _page(self, job: NodeJob, index: int, stop: int) -> tuple[ShelvedPage, int] | None:
        """Return the page of a task, if it is here with all that it refers to."""
        job_id = job.spec.id
        found = self._shelf.find(job_id, index)
        if found is None:
            now = time.monotonic()
            if now - self._asked.get((job_id, index), -ASK_AGAIN_S) >= ASK_AGAIN_S:
                self._asked[job_id, index] = now
                self._want_pages(job_id, index, stop)
            return None
        if self._asked:
            self._asked.pop((job_id, index), None)
        page = found[0].page
        if page.blob is not None or page.refs:
            wanted = [*page.refs, page.blob] if page.blob is not None else page.refs
            if None in [self._jobs.fetch(job, digest) for digest in wanted]:
                return None
        return found

    def bound_of(self, queued: QueuedLease, digest: Digest) -> int | None:
        """Return up to which index the lease's next tasks need a blob for their inputs; None if the next one does not."""
        found = self._shelf.find(queued.lease.job, queued.pending.first)
        if found is not None and (found[0].page.blob == digest or digest in found[0].page.refs):
            return found[1]
        return None

    # --- in slots ---

    def give(self, slot: Slot, job: NodeJob, index: int, shelved: ShelvedPage | None) -> None:
        """Give a slot what it lacks for tasks from `index` on, with its next batch; raises OSError."""
        if job.number not in slot.jobs:
            slot.load(job)
        if shelved is not None and shelved.number not in slot.pages:
            page = shelved.page
            path = None if page.blob is None else self._jobs.fetch(job, page.blob)
            refs = {digest: ref for digest in page.refs if (ref := self._jobs.fetch(job, digest)) is not None}
            slot.add_page(job, shelved, path, refs)
        checkpoint = self._checkpoints.of(job.spec.id, index)
        if checkpoint is not None and (left := self._jobs.fetch(job, checkpoint)) is not None:
            slot.messages.append(job.resume_message(index, left, slot.process))

    @property
    def is_over(self) -> bool:
        """Whether `trim` may have something to do."""
        return self._shelf.is_over

    def trim(self, leases: Iterable[HeldLease], slots: Iterable[Slot]) -> None:
        """Drop the oldest pages over the limit that no lease needs, in slots too."""
        needed: dict[JobId, RangeSet] = {}
        for held in leases:
            ranges = needed.setdefault(held.job, RangeSet())
            for start, stop in zip(held.unfinished[::2], held.unfinished[1::2], strict=True):
                ranges.add(start, stop)
        dropped = self._shelf.trim(needed)
        for slot in slots:
            for job_id, shelved in dropped:
                slot.drop_page(self._jobs.get(job_id), shelved.number)
