"""Tasks that can't even be tried on this node, as their job or their input lacks something."""

import asyncio
from typing import Protocol

from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId
from fallow.model.lease import Lease
from fallow.model.page import ResultPage
from fallow.node.failures import failed_page, lacking
from fallow.node.lease_queue import LeaseQueue, QueuedLease
from fallow.node.node_job import NodeJob

FAILURES_PER_PAGE = 1000
BROKEN_PAUSE_S = 1.0
"""How long a lease of a job whose environment can't be built waits here, so that nodes which have it come first."""


class Reports(Protocol):
    """Who tells the hub of them."""

    def finished(self, lease: LeaseId, job: JobId, page: ResultPage, *, at_once: bool) -> None: ...

    def broke(self, lease: LeaseId, job: JobId, failure: Failure) -> None: ...


class Untried:
    """Takes them out of the queue and reports them: as failed, or, if other nodes may have what is lacking, as broken."""

    def __init__(self, node: str, queue: LeaseQueue, reports: Reports) -> None:
        self._node = node
        self._queue = queue
        self._reports = reports
        self._is_closed = False

    def close(self) -> None:
        self._is_closed = True

    def job_broken(self, job: NodeJob) -> None:
        """The job can't run here, for the reason that it says."""
        for queued in self._queue.of_job(job.spec.id):
            self._report_pending(job, queued)

    def lease_came(self, job: NodeJob, queued: QueuedLease) -> None:
        """A lease has come of a job that can't run here."""
        if job.lacks_environment:
            asyncio.get_running_loop().call_later(BROKEN_PAUSE_S, self._report_later, job, queued.lease.id)
        else:
            self._report_pending(job, queued)

    def _report_later(self, job: NodeJob, lease: LeaseId) -> None:
        queued = self._queue.get(lease)
        if queued is not None and not self._is_closed:
            self._report_pending(job, queued)

    def _report_pending(self, job: NodeJob, queued: QueuedLease) -> None:
        assert job.broken is not None
        report = self.give_up if job.lacks_environment else self.fail
        while queued.pending:
            start, stop = self._queue.take(queued, FAILURES_PER_PAGE, queued.lease.stop)
            report(queued.lease, start, stop, job.broken)

    def give_up(self, lease: Lease, start: int, stop: int, reason: str) -> None:
        """Report tasks that were taken as broken here, so that other nodes try them."""
        self._queue.finish(lease.id, start, stop)
        for failure in lacking(start, stop, reason, self._node):
            self._reports.broke(lease.id, lease.job, failure)

    def fail(self, lease: Lease, start: int, stop: int, reason: str) -> None:
        """Report tasks that were taken as failed."""
        for first in range(start, stop, FAILURES_PER_PAGE):
            end = min(stop, first + FAILURES_PER_PAGE)
            self._queue.finish(lease.id, first, end)
            page = failed_page(first, end, "RuntimeError", reason, self._node)
            self._reports.finished(lease.id, lease.job, page, at_once=True)
