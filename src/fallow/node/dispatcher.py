"""Leases in, batches to slots, results out. Synchronous: each call does what can be done now and returns.

Knows nothing of links: what it needs and what it has finished goes through its owner. Its parts are `LeaseQueue` (which tasks
are whose), `NodeJobs` and `Inputs` (what they need), `SlotPool` with `Enforcer` (where they run), `Settler` (what comes back)
and `Untried` (what can't run here); here they meet, and tasks are handed out.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fallow.model.changes import LogEntry
from fallow.model.ids import Digest, JobId, LeaseId
from fallow.model.job import JobSpec
from fallow.model.lease import HeldLease, Lease, RunningTask
from fallow.model.page import InputPage, ResultPage
from fallow.model.ranges import Range
from fallow.node.batch import NO_LEASE, Batch, DirectCall
from fallow.node.checkpoints import Checkpoints
from fallow.node.enforcer import Enforcer
from fallow.node.environments import Environments
from fallow.node.inputs import Inputs
from fallow.node.lease_queue import LeaseQueue, QueuedLease
from fallow.node.node_job import NodeJob
from fallow.node.node_jobs import NodeJobs
from fallow.node.off_loop import OffLoop
from fallow.node.page_shelf import ShelvedPage
from fallow.node.settings import NodeSettings
from fallow.node.settler import Settler, SettlerOwner
from fallow.node.slot import Slot
from fallow.node.slots import SlotPool
from fallow.node.untried import Untried


class DispatchOwner(SettlerOwner, Protocol):
    """The agent, as the dispatcher sees it."""

    def fetch(self, digest: Digest, *, own: bool = False) -> Path | None:
        """See `Fetch`."""
        ...

    def want_spec(self, job: JobId) -> None: ...

    def want_pages(self, job: JobId, start: int, stop: int) -> None: ...


class Dispatcher:
    """One per agent."""

    def __init__(
        self, settings: NodeSettings, owner: DispatchOwner, off_loop: OffLoop, checkpoints: Checkpoints
    ) -> None:
        self.slots = settings.slots
        self._name = settings.name
        self._owner = owner
        self._checkpoints = checkpoints
        self._queue = LeaseQueue()
        self.pool = SlotPool(settings, off_loop)
        self.environments = Environments(settings, off_loop)
        self._lending = self.pool.lending
        self._enforcer = Enforcer(self.pool, self._queue)
        self._untried = Untried(settings.name, self._queue, owner)
        self._jobs = NodeJobs(
            settings,
            self.pool,
            self.environments,
            off_loop,
            owner.fetch,
            on_prepared=self.dispatch,
            on_broken=self._untried.job_broken,
            on_note=self._note,
        )
        self._inputs = Inputs(self._jobs, checkpoints, owner.want_pages)
        self._settler = Settler(
            settings.name,
            self.pool,
            self._queue,
            self._jobs,
            self._inputs,
            checkpoints,
            owner,
            dispatch=self.dispatch,
            on_direct=self._direct_done,
        )

    def open(self) -> None:
        self._jobs.open()
        self.pool.open(self._settler)

    def close(self) -> None:
        self._jobs.close()
        self._untried.close()
        self._enforcer.close()
        self.pool.close()

    # --- what the hub tells ---

    def grant(self, lease: Lease, spec: JobSpec | None, pages: Sequence[InputPage]) -> None:
        if spec is not None:
            self.add_spec(spec)
        self._inputs.add(lease.job, pages)
        self._queue.hold(lease)
        job = self._jobs.get(lease.job)
        if job is None:
            self._owner.want_spec(lease.job)
            return
        self._specify(job)
        self.dispatch()

    def add_spec(self, spec: JobSpec) -> None:
        self._specify(self._jobs.add(spec))

    def _specify(self, job: NodeJob) -> None:
        """Queue the leases that have waited for the job's spec."""
        needs = job.spec.requirements
        for queued in self._queue.specify(
            job.spec.id, priority=job.spec.priority, cores=needs.cores, memory_bytes=needs.memory_bytes
        ):
            if job.broken is not None:
                self._untried.lease_came(job, queued)

    def add_pages(self, job: JobId, pages: Sequence[InputPage]) -> None:
        self._inputs.add(job, pages)
        self.dispatch()

    def recall(self, lease: LeaseId, count: int) -> tuple[JobId | None, list[Range]]:
        """Give back unstarted tasks from a lease's end."""
        queued = self._queue.get(lease)
        return (queued.lease.job if queued is not None else None), self._queue.recall(lease, count)

    def cancel(self, job: JobId, ranges: Sequence[Range] | None) -> None:
        """Stop tasks of a job, all of it if `ranges` is None."""
        self._lending.take_back()
        self._queue.cancel(job, ranges)
        for slot in self.pool:
            touched = [batch for batch in slot.batches if batch.job == job and (ranges is None or not batch.is_direct)]
            for batch in touched:
                batch.cancelled = True
            if touched:
                self._enforcer.cancelled(slot)
        self.dispatch()

    def run_directly(self, job_id: JobId, index: int, data: bytes, call: DirectCall) -> bool:
        """Send a task, with an input page of its own, to an idle slot that has its job, if nothing else waits here; return
        whether that could be done.
        """
        job = self._jobs.get(job_id)
        if job is None or not job.is_ready or len(self._queue):
            return False
        slot = self._idle_with(job)
        if slot is None:
            self._lending.take_back()
            slot = self._idle_with(job)
        if slot is None:
            return False
        slot.runs += 1
        batch = Batch(slot.runs, NO_LEASE, job_id, job.number, index, index + 1)
        batch.direct = call
        batch.since = time.monotonic()
        slot.batches.append(batch)
        slot.process.write(b"".join((*slot.messages, job.direct_message(index, data, batch.number))))
        slot.messages = []
        return True

    def run_at_once(self, job_id: JobId, index: int, data: bytes, call: DirectCall) -> bool:
        """Do the same if a slot was lent to the job since its last direct call. From any thread."""
        return self._lending.take(job_id, index, data, call)

    def _idle_with(self, job: NodeJob) -> Slot | None:
        return next((slot for slot in self.pool if slot.is_idle and job.number in slot.jobs), None)

    def stop_directly(self, call: DirectCall) -> None:
        """End a direct call, and its slot if that is not over in a moment."""
        for slot in self.pool:
            for batch in slot.batches:
                if batch.direct is call:
                    batch.cancelled = True
                    self._enforcer.cancelled(slot)

    def forget(self, job: JobId) -> None:
        """The job is over."""
        self.cancel(job, None)
        self._jobs.forget(job)
        self._inputs.forget(job)
        self._checkpoints.forget(job)

    def resume(self) -> None:
        """There is a new link: ask again for what is missing."""
        self._inputs.ask_again()
        for job in self._queue.unspecified_jobs():
            self._owner.want_spec(job)
        self.dispatch()

    def return_unfinished(self) -> list[tuple[LeaseId, JobId, list[Range]]]:
        """Give everything back that is not finished: the node leaves."""
        return self._queue.return_unfinished()

    def return_unstarted(self) -> list[tuple[LeaseId, JobId, list[Range]]]:
        """Give back what no slot has: the node drains."""
        return self._queue.return_unstarted()

    # --- what the agent asks ---

    @property
    def is_busy(self) -> bool:
        return self.pool.is_busy

    @property
    def has_leases(self) -> bool:
        return not self._queue.is_empty

    def lease_ids(self) -> tuple[LeaseId, ...]:
        return self._queue.ids()

    def held(self) -> list[HeldLease]:
        return self._queue.held()

    def running(self) -> list[RunningTask]:
        """Return what slots are on now."""
        return [task for slot in self.pool if (task := slot.running()) is not None]

    def needs(self, digest: Digest) -> bool:
        """Whether a job that the node holds uses the blob."""
        return self._jobs.needs(digest) or self._inputs.needs(digest) or self._checkpoints.needs(digest)

    def checkpoint_taken(self) -> None:
        self._settler.checkpoint_taken()

    def trim_environments(self) -> None:
        self._jobs.trim_environments()

    # --- blobs ---

    def blob_arrived(self, digest: Digest) -> None:
        self._jobs.blob_arrived(digest)
        self.dispatch()

    def blob_missing(self, digest: Digest, reason: str) -> None:
        """A blob can't be had: the tasks that need it fail."""
        text = f"the blob {digest[:12]}… can't be had: {reason}"
        self._jobs.blob_missing(digest, text)
        for job_id, index in self._checkpoints.missing(digest):
            note = f"fallow: its checkpoint can't be had, so it begins anew: {reason}\n"
            self._owner.printed(job_id, [LogEntry(index, note, self._name)])
        for queued in self._queue:
            bound = self._inputs.bound_of(queued, digest)
            if bound is not None:
                start, stop = self._queue.take(queued, bound, bound)
                self._untried.fail(queued.lease, start, stop, text)
        self.dispatch()

    def _note(self, job: JobId, text: str) -> None:
        """Tell people of a job: in the output of a task that waits here."""
        for queued in self._queue.of_job(job)[:1]:
            self._owner.printed(job, [LogEntry(queued.lease.start, text, self._name)])

    # --- handing out ---

    def dispatch(self) -> None:
        """Hand out what can be, most urgent first."""
        if len(self._queue):
            self._lending.take_back()
        for queued in self._queue:
            job = self._jobs[queued.lease.job]
            # What waits for its blobs or inputs is passed over; what waits for cores is not, or it would wait for ever.
            if job.is_ready and not self._hand_out(job, queued):
                return

    def _hand_out(self, job: NodeJob, queued: QueuedLease) -> bool:
        """Hand out a lease's tasks; return whether slots may be left for others."""
        while queued.pending:
            found = self._inputs.find(job, queued)
            if found is None:
                return True
            slot = self.pool.choose(job, queued.cores, queued.memory_bytes)
            if slot is None:
                return False
            shelved, bound = found
            start, stop = self._queue.take(queued, job.sizer.count(), bound)
            self._send(slot, job, queued, start, stop, shelved)
        return True

    def _send(
        self, slot: Slot, job: NodeJob, queued: QueuedLease, start: int, stop: int, shelved: ShelvedPage | None
    ) -> None:
        is_first = job.number not in slot.jobs
        try:
            self._inputs.give(slot, job, start, shelved)
        except OSError as error:
            self._untried.give_up(queued.lease, start, stop, f"its files can't be given to a slot: {error}")
            return
        slot.runs += 1
        batch = Batch(slot.runs, queued.lease.id, job.spec.id, job.number, start, stop)
        batch.is_first = is_first
        number = -1 if shelved is None else shelved.number
        if shelved is not None and shelved.page.blob is not None and stop == shelved.page.stop:
            batch.last_of_page = number
        batch.cores, batch.memory_bytes = queued.cores, queued.memory_bytes
        batch.timeout_s = job.spec.timeout_s
        batch.expected_s = job.sizer.expected_s(stop - start)
        batch.since = time.monotonic()
        slot.send(batch, job.run_message(start, stop, number, batch.number))
        self._enforcer.sent(slot, batch)

    # --- direct calls that have ended ---

    def _direct_done(
        self, slot: Slot, call: DirectCall, job: NodeJob | None, page: ResultPage, path: Path | None
    ) -> None:
        slot.batches.popleft()
        if slot.batches:
            slot.batches[0].since = time.monotonic()
        if not len(self._queue) and slot.is_idle and job is not None and job.number in slot.jobs:
            self._lending.lend(slot, job)
        call.done(page, path)
        if len(self._queue):
            self.dispatch()
        if not self.is_busy:
            self._owner.settled()
