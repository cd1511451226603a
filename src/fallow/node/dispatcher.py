"""Leases in, batches to slots, results out. Synchronous: each call does what can be done now and returns.

Knows nothing of links: what it needs and what it has finished goes through its owner.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from fallow.model.changes import LogEntry
from fallow.model.errors import BadRequest, EnvironmentFailed
from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, LeaseId
from fallow.model.job import JobSpec
from fallow.model.lease import HeldLease, Lease, RunningTask
from fallow.model.page import InputPage, ResultPage
from fallow.model.ranges import Range, RangeSet
from fallow.node.checkpoints import Checkpoints
from fallow.node.enforcer import Enforcer
from fallow.node.environments import Environments
from fallow.node.lease_queue import LeaseQueue, QueuedLease
from fallow.node.lending import Lending
from fallow.node.node_job import PLATFORM, NodeJob, unpack_sources
from fallow.node.off_loop import OffLoop
from fallow.node.page_shelf import PageShelf, ShelvedPage
from fallow.node.program_tail import last_lines, tail_of
from fallow.node.settings import NodeSettings
from fallow.node.slot_kind import SlotKind, kind_of
from fallow.node.slot_result import read_result
from fallow.node.slots import NO_LEASE, Batch, DirectCall, Slot, SlotPool

ASK_AGAIN_S = 5.0
"""An input page or a spec that was asked for is asked for again after this."""
FAILURES_PER_PAGE = 1000
FULL_LOGS = 4
"""Tasks of a lease whose failure holds the whole log of an environment that can't be built …"""
SHORT_LOG = 300
"""… and the characters of it that the others hold."""
BROKEN_PAUSE_S = 1.0
"""How long a lease of a job whose environment can't be built waits here, so that nodes which have it come first."""


class DispatchOwner(Protocol):
    """The agent, as the dispatcher sees it."""

    def fetch(self, digest: Digest, *, own: bool = False) -> Path | None:
        """Return where a blob lies; if it is not here yet, ask for it: `blob_arrived` follows. own: in the node's own cache."""
        ...

    def want_spec(self, job: JobId) -> None: ...

    def want_pages(self, job: JobId, start: int, stop: int) -> None: ...

    def finished(
        self,
        lease: LeaseId,
        job: JobId,
        page: ResultPage,
        path: Path | None = None,
        files: Sequence[Path] = (),
        *,
        at_once: bool,
    ) -> None:
        """A page of results. path: the file that its bytes are in, if they are many. files: what its values refer to."""
        ...

    def broke(self, lease: LeaseId, job: JobId, failure: Failure) -> None: ...

    def printed(self, job: JobId, entries: Sequence[LogEntry]) -> None: ...

    def slots_unavailable(self, reason: str | None) -> None: ...

    def progressed(self) -> None:
        """A task has said how far it is: `running` tells."""
        ...

    def settled(self) -> None:
        """No slot is busy any more."""
        ...


class Dispatcher:
    """One per agent."""

    def __init__(
        self, settings: NodeSettings, owner: DispatchOwner, off_loop: OffLoop, checkpoints: Checkpoints
    ) -> None:
        self._settings = settings
        self._checkpoints = checkpoints
        self._owner = owner
        self._off_loop = off_loop
        self._sources_folder = settings.folder / "sources"
        self._queue = LeaseQueue()
        self._jobs: dict[JobId, NodeJob] = {}
        self._job_numbers = 0
        self._shelf = PageShelf()
        self._unspecified: dict[LeaseId, Lease] = {}
        self._asked: dict[tuple[JobId, int], float] = {}
        self._preparing: set[asyncio.Task[None]] = set()
        self._seen: dict[Slot, tuple[int, float]] = {}
        self.pool = SlotPool(settings, self, off_loop)
        self._enforcer = Enforcer(self.pool, self._queue)
        self._lending = Lending()
        self.environments = Environments(settings, off_loop)
        self.slots = settings.slots
        self._is_closed = False

    def open(self) -> None:
        shutil.rmtree(self._sources_folder, ignore_errors=True)  # of earlier jobs; archives are in the cache
        self._sources_folder.mkdir(parents=True)
        self.pool.open()

    def close(self) -> None:
        self._is_closed = True
        for task in self._preparing:
            task.cancel()
        self.environments.close()
        self._enforcer.close()
        self.pool.close()

    # --- what the hub tells ---

    def grant(self, lease: Lease, spec: JobSpec | None, pages: Sequence[InputPage]) -> None:
        if spec is not None:
            self.add_spec(spec)
        for page in pages:
            self._shelf.add(lease.job, page)
        job = self._jobs.get(lease.job)
        if job is None:
            self._unspecified[lease.id] = lease
            self._owner.want_spec(lease.job)
            return
        self._enqueue(job, lease)
        self.dispatch()

    def add_spec(self, spec: JobSpec) -> None:
        if spec.id in self._jobs:
            return
        self._job_numbers += 1
        job = self._jobs[spec.id] = NodeJob(self._job_numbers, spec, kind_of(spec, self.pool.default, self.pool.levels))
        for lease in [each for each in self._unspecified.values() if each.job == spec.id]:
            del self._unspecified[lease.id]
            self._enqueue(job, lease)
        job.missing = {digest for digest in job.missing if self._fetch(job, digest) is None}
        if not job.missing:
            self._prepare(job)

    def add_pages(self, job: JobId, pages: Sequence[InputPage]) -> None:
        for page in pages:
            self._shelf.add(job, page)
        self.dispatch()

    def recall(self, lease: LeaseId, count: int) -> tuple[JobId | None, list[Range]]:
        """Give back unstarted tasks from a lease's end."""
        waiting = self._unspecified.get(lease)
        if waiting is not None:
            start = max(waiting.start, waiting.stop - count)
            del self._unspecified[lease]
            if waiting.start < start:
                self._unspecified[lease] = Lease(lease, waiting.job, waiting.start, start)
            return waiting.job, [(start, waiting.stop)]
        queued = self._queue.get(lease)
        return (queued.lease.job if queued is not None else None), self._queue.recall(lease, count)

    def cancel(self, job: JobId, ranges: Sequence[Range] | None) -> None:
        """Stop tasks of a job, all of it if `ranges` is None."""
        self._lending.take_back()
        self._queue.cancel(job, ranges)
        if ranges is None:
            for lease in [each.id for each in self._unspecified.values() if each.job == job]:
                del self._unspecified[lease]
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
        held = self._jobs.pop(job, None)
        self._shelf.drop_job(job)
        self._checkpoints.forget(job)
        self._asked = {key: at for key, at in self._asked.items() if key[0] != job}
        if held is not None:
            for slot in self.pool:
                if held.number in slot.jobs:
                    slot.jobs.discard(held.number)
                    slot.messages.append(held.forget_message())
                    slot.process.take_back(("job", held.number))

    def resume(self) -> None:
        """There is a new link: ask again for what is missing."""
        self._asked.clear()
        for job in {lease.job for lease in self._unspecified.values()}:
            self._owner.want_spec(job)
        self.dispatch()

    def return_unfinished(self) -> list[tuple[LeaseId, JobId, list[Range]]]:
        """Give everything back that is not finished: the node leaves."""
        out = [(each.id, each.job, list(RangeSet.from_flat(each.unfinished).ranges())) for each in self.held()]
        self._unspecified.clear()
        for job in list(self._jobs):
            self._queue.cancel(job)
        return out

    def return_unstarted(self) -> list[tuple[LeaseId, JobId, list[Range]]]:
        """Give back what no slot has: the node drains."""
        out = [(lease.id, lease.job, ranges) for lease, ranges in self._queue.return_unstarted()]
        out += [(lease.id, lease.job, [(lease.start, lease.stop)]) for lease in self._unspecified.values()]
        self._unspecified.clear()
        return out

    # --- what the agent asks ---

    @property
    def is_busy(self) -> bool:
        return any(slot.batches and not slot.batches[0].is_lent for slot in self.pool)

    @property
    def has_leases(self) -> bool:
        return bool(len(self._queue) or self._unspecified)

    def lease_ids(self) -> tuple[LeaseId, ...]:
        return (*self._queue.ids(), *self._unspecified)

    def held(self) -> list[HeldLease]:
        waiting = self._unspecified.values()
        return self._queue.held() + [HeldLease(each.id, each.job, (each.start, each.stop)) for each in waiting]

    def running(self) -> list[RunningTask]:
        """Return what slots are on now."""
        now = time.monotonic()
        out = []
        seen: dict[Slot, tuple[int, float]] = {}
        for slot in self.pool:
            if not slot.batches or slot.batches[0].is_direct:
                continue
            head = slot.batches[0]
            index = max(slot.process.running_index, head.next)
            since = head.since if index == head.start else self._seen.get(slot, (-1, now))[1]
            if index != head.start and self._seen.get(slot, (-1, now))[0] != index:
                since = now
            seen[slot] = (index, since)
            told, fraction, message = slot.process.progress
            said = (fraction, message) if told == index else (None, "")
            out.append(RunningTask(head.lease, index, now - since, *said))
        self._seen = seen
        return out

    def needs(self, digest: Digest) -> bool:
        """Whether a job that the node holds uses the blob."""
        return (
            any(digest in job.spec.blobs for job in self._jobs.values())
            or self._shelf.names(digest)
            or self._checkpoints.needs(digest)
        )

    # --- blobs ---

    def blob_arrived(self, digest: Digest) -> None:
        for job in list(self._jobs.values()):
            if digest in job.missing and self._fetch(job, digest) is not None:
                job.missing.discard(digest)
                if not job.missing:
                    self._prepare(job)
        self.dispatch()

    def blob_missing(self, digest: Digest, reason: str) -> None:
        """A blob can't be had: the tasks that need it fail."""
        text = f"the blob {digest[:12]}… can't be had: {reason}"
        for job in list(self._jobs.values()):
            if digest in job.missing:
                self._break(job, text)
        for job_id, index in self._checkpoints.missing(digest):
            note = f"fallow: its checkpoint can't be had, so it begins anew: {reason}\n"
            self._owner.printed(job_id, [LogEntry(index, note, self._settings.name)])
        for queued in self._queue:
            found = self._shelf.find(queued.lease.job, queued.pending.first)
            if found is not None and (found[0].page.blob == digest or digest in found[0].page.refs):
                start, stop = self._queue.take(queued, found[1], found[1])
                self._fail(queued.lease, start, stop, text)
        self.dispatch()

    def _fetch(self, job: NodeJob, digest: Digest) -> Path | None:
        """Return where the job's slots can read a blob; None if it is not there yet."""
        return self._owner.fetch(digest, own=job.kind.sandbox != "process")

    def _prepare(self, job: NodeJob) -> None:
        spec = job.spec
        function = self._fetch(job, spec.function)
        refs = {digest: path for digest in spec.refs_on(PLATFORM) if (path := self._fetch(job, digest)) is not None}
        folders = [self._sources_folder / digest for digest in spec.sources.values()]
        packed = {digest: self._sources_folder / digest for digest in spec.sources.values()}
        packed = {digest: folder for digest, folder in packed.items() if not folder.exists()}
        assert function is not None
        if not packed and spec.environment is None and not spec.containment.wants_image:
            try:
                job.prepare(function, folders, refs)
            except OSError as error:
                self._break(job, f"its function can't be read: {error}")
            return

        async def unpack() -> None:
            try:
                for digest, folder in packed.items():
                    archive = self._owner.fetch(digest)
                    assert archive is not None
                    await self._off_loop(lambda archive=archive, folder=folder: unpack_sources(archive, folder))  # type: ignore[misc]
                if spec.environment is not None:
                    await self._build(spec.environment, spec)
                if spec.containment.wants_image:
                    await self._fetch_image(job)
                job.prepare(function, folders, refs)
            except EnvironmentFailed as error:
                self._lack_environment(job, str(error))
                return
            except (BadRequest, OSError) as error:
                self._break(job, str(error))
                return
            self.dispatch()

        task = asyncio.get_running_loop().create_task(unpack())
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def _build(self, environment: Digest, spec: JobSpec) -> None:
        lock = self._owner.fetch(environment)
        assert lock is not None
        blobs = {digest: path for digest in spec.refs if (path := self._owner.fetch(digest)) is not None}
        self.pool.pythons[environment] = await self.environments.python_of(environment, lock, blobs)

    async def _fetch_image(self, job: NodeJob) -> None:
        wanted = job.spec.containment
        archive = None if wanted.image_archive is None else self._owner.fetch(wanted.image_archive)
        sandbox = self.pool.sandbox(job.kind.sandbox)
        containment = await sandbox.prepare(wanted, archive)
        job.kind = msgspec.structs.replace(job.kind, containment=containment)
        for lease in self._queue.of_job(job.spec.id)[:1]:
            note = f"fallow: {wanted.image or 'the image archive'} is {containment.image} on {self._settings.name}\n"
            self._owner.printed(job.spec.id, [LogEntry(lease.lease.start, note, self._settings.name)])

    def trim_environments(self) -> None:
        """Remove environments that nothing here needs, if they take too much room."""
        kinds = [kind for slot in self.pool for kind in (slot.process.kind, slot.next_kind) if kind is not None]
        needed = {kind.environment for kind in kinds} | {job.spec.environment for job in self._jobs.values()}
        self.environments.trim(lambda digest: digest in needed)
        self.pool.pythons = {digest: python for digest, python in self.pool.pythons.items() if digest in needed}

    def kind_unusable(self, kind: SlotKind, reason: str) -> None:
        for job in [job for job in self._jobs.values() if job.kind == kind]:
            self._lack_environment(job, reason)

    def _lack_environment(self, job: NodeJob, reason: str) -> None:
        job.lacks_environment = True
        self._break(job, f"the environment can't be had on {self._settings.name}: {reason}")

    def _break(self, job: NodeJob, reason: str) -> None:
        job.broken = reason
        for queued in self._queue.of_job(job.spec.id):
            self._fail_pending(queued, job)

    def _fail_pending(self, queued: QueuedLease, job: NodeJob) -> None:
        assert job.broken is not None
        while queued.pending:
            start, stop = self._queue.take(queued, FAILURES_PER_PAGE, queued.lease.stop)
            if job.lacks_environment:
                self._give_up(queued.lease, start, stop, job.broken)
            else:
                self._fail(queued.lease, start, stop, job.broken)

    def _give_up(self, lease: Lease, start: int, stop: int, reason: str) -> None:
        """Report tasks as broken here, so that other nodes try them."""
        self._queue.finish(lease.id, start, stop)
        for index in range(start, stop):
            message = reason if index - start < FULL_LOGS else f"…{reason[-SHORT_LOG:]}"
            failure = Failure(
                index=index, kind="environment", message=message, node=self._settings.name, is_of_node=True
            )
            self._owner.broke(lease.id, lease.job, failure)

    def _fail(self, lease: Lease, start: int, stop: int, reason: str) -> None:
        """Report tasks as failed that could not even be tried."""
        for first in range(start, stop, FAILURES_PER_PAGE):
            end = min(stop, first + FAILURES_PER_PAGE)
            self._queue.finish(lease.id, first, end)
            failures = tuple(
                Failure(index=index, kind="raised", type_name="RuntimeError", message=reason, node=self._settings.name)
                for index in range(first, end)
            )
            page = ResultPage(first, end, kept=(), failures=failures)
            self._owner.finished(lease.id, lease.job, page, at_once=True)

    # --- handing out ---

    def _enqueue(self, job: NodeJob, lease: Lease) -> None:
        needs = job.spec.requirements
        self._queue.add(lease, priority=job.spec.priority, cores=needs.cores, memory_bytes=needs.memory_bytes)
        queued = self._queue.get(lease.id)
        if job.lacks_environment:
            asyncio.get_running_loop().call_later(BROKEN_PAUSE_S, self._give_up_later, lease.id)
        elif job.broken is not None and queued is not None:
            self._fail_pending(queued, job)

    def _give_up_later(self, lease: LeaseId) -> None:
        queued = self._queue.get(lease)
        job = None if queued is None else self._jobs.get(queued.lease.job)
        if queued is not None and job is not None and not self._is_closed:
            self._fail_pending(queued, job)

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
            shelved: ShelvedPage | None = None
            bound = queued.lease.stop
            if not job.counts:
                found = self._input(job, queued)
                if found is None:
                    return True
                shelved, bound = found
            first, count = queued.pending.first, job.sizer.count()
            checkpoint = self._checkpoints.of(job.spec.id, first)
            if self._checkpoints.is_being_taken(job.spec.id, first):
                return True
            if checkpoint is not None:
                if self._fetch(job, checkpoint) is None:
                    return True
                count = 1
            else:
                bound = self._checkpoints.first_within(job.spec.id, first, bound)
            slot = self._choose(job, queued)
            if slot is None:
                return False
            start, stop = self._queue.take(queued, count, bound)
            self._send(slot, job, queued, start, stop, shelved)
        return True

    def _input(self, job: NodeJob, queued: QueuedLease) -> tuple[ShelvedPage, int] | None:
        """Return the page of the lease's next task, if it is here with all that it needs."""
        job_id, index = queued.lease.job, queued.pending.first
        found = self._shelf.find(job_id, index)
        if found is None:
            now = time.monotonic()
            if now - self._asked.get((job_id, index), -ASK_AGAIN_S) >= ASK_AGAIN_S:
                self._asked[job_id, index] = now
                self._owner.want_pages(job_id, index, queued.lease.stop)
            return None
        if self._asked:
            self._asked.pop((job_id, index), None)
        page = found[0].page
        if page.blob is not None or page.refs:
            wanted = [*page.refs, page.blob] if page.blob is not None else page.refs
            if None in [self._fetch(job, digest) for digest in wanted]:
                return None
        return found

    def _choose(self, job: NodeJob, queued: QueuedLease) -> Slot | None:
        cores, memory = self._settings.cores, self._settings.memory_bytes
        idle: list[Slot] = []
        for slot in self.pool:
            if slot.batches:
                cores -= slot.batches[0].cores
                memory -= slot.batches[0].memory_bytes
            elif slot.is_idle:
                idle.append(slot)
        if idle:
            if cores < queued.cores or memory < queued.memory_bytes:
                return None
            for slot in idle:
                if job.number in slot.jobs:
                    return slot
            for slot in idle:
                if self._suits(slot, job):
                    return slot
            self.pool.recycle(idle[0], job.kind)
            return None
        if job.sizer.may_send_early():
            for slot in self.pool:
                if (
                    len(slot.batches) == 1
                    and slot.batches[0].job_number == job.number
                    and slot.end_reason is None
                    and not slot.is_cut
                ):
                    return slot
        return None

    @staticmethod
    def _suits(slot: Slot, job: NodeJob) -> bool:
        if slot.process.kind != job.kind or slot.owner not in {None, job.spec.owner}:
            return False
        held = slot.sources
        spec = job.spec
        if spec.environment is not None and slot.runs and not spec.is_program and held.keys() != spec.sources.keys():
            return False  # what is a loose module to one may be in a wheel to the other
        return all(held.get(name, digest) == digest for name, digest in spec.sources.items())

    def _send(
        self, slot: Slot, job: NodeJob, queued: QueuedLease, start: int, stop: int, shelved: ShelvedPage | None
    ) -> None:
        spec = job.spec
        is_first = job.number not in slot.jobs
        try:
            self._give(slot, job, start, shelved)
        except OSError as error:
            self._give_up(queued.lease, start, stop, f"its files can't be given to a slot: {error}")
            return
        parts = slot.messages
        slot.runs += 1
        batch = Batch(slot.runs, queued.lease.id, spec.id, job.number, start, stop)
        batch.is_first = is_first
        number = -1 if shelved is None else shelved.number
        if shelved is not None and shelved.page.blob is not None and stop == shelved.page.stop:
            batch.last_of_page = number
        parts.append(job.run_message(start, stop, number, batch.number))
        batch.cores, batch.memory_bytes = queued.cores, queued.memory_bytes
        batch.timeout_s = spec.timeout_s
        batch.expected_s = job.sizer.expected_s(stop - start)
        batch.since = time.monotonic()
        slot.batches.append(batch)
        slot.process.write(parts[0] if len(parts) == 1 else b"".join(parts))
        slot.messages = []
        self._enforcer.sent(slot, batch)

    def _give(self, slot: Slot, job: NodeJob, start: int, shelved: ShelvedPage | None) -> None:
        """Add what the slot lacks for a batch to its messages; raises OSError."""
        spec, process, parts = job.spec, slot.process, slot.messages
        if job.number not in slot.jobs:
            if process.kind.sandbox != "process":
                slot.owner = spec.owner
            parts.append(job.load_message(process))
            slot.jobs.add(job.number)
            slot.sources.update(spec.sources)
        if shelved is not None and shelved.number not in slot.pages:
            page = shelved.page
            path = None if page.blob is None else self._fetch(job, page.blob)
            refs = {digest: ref for digest in page.refs if (ref := self._fetch(job, digest)) is not None}
            parts.append(job.page_message(shelved, path, refs, process))
            slot.pages.add(shelved.number)
        checkpoint = self._checkpoints.of(spec.id, start)
        if checkpoint is not None and (left := self._fetch(job, checkpoint)) is not None:
            parts.append(job.resume_message(start, left, process))

    # --- what slots say ---

    def slot_ready(self) -> None:
        self.dispatch()

    def slot_done(self, slot: Slot, key: int, numbers: tuple[int, int, int, int], body: memoryview) -> None:
        start, stop, head_bytes, elapsed_ns = numbers
        batch = slot.batches[0] if slot.batches else None
        if batch is None or key != batch.job_number or start != batch.next or not start < stop <= batch.stop:
            slot.end("faulty")
            return
        job = self._jobs.get(batch.job)
        try:
            page, path, files = read_result(
                (start, stop),
                body,
                head_bytes,
                elapsed_ns,
                partial=job is not None and job.spec.reduces,
                node=self._settings.name,
                folder=slot.process.folder,
                is_program=job is not None and job.spec.is_program,
            )
        except ValueError:
            slot.end("faulty")
            return
        if page.failures and slot.process.guard is not None and slot.process.guard.see() is not None:
            slot.last_words = page.failures[0].traceback
            slot.end("limit", page.failures[0].index)  # it has failed of that
            return
        if batch.direct is not None:
            self._direct_done(slot, batch.direct, job, page, path)
            return
        batch.next = stop
        batch.ran_s += elapsed_ns / 1e9
        batch.result_bytes += body.nbytes
        if stop == batch.stop:
            self._batch_ended(slot, batch, job)
        self._checkpoints.ended(batch.job, start, stop)
        ended = self._queue.finish(batch.lease, start, stop)
        self.dispatch()  # before anything else: the slot is idle
        if page.failures and page.failures[0].kind == "environment":
            self._owner.broke(batch.lease, batch.job, page.failures[0])
        else:
            self._owner.finished(batch.lease, batch.job, page, path, files, at_once=ended or not self.is_busy)
        if self._shelf.is_over:
            self._trim()
        if not self.is_busy:
            self._owner.settled()

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

    def slot_gave(self, slot: Slot, number: int, at: int) -> None:
        """Put back what a slot has not begun: it was asked to give it up, as its batch overstays."""
        for batch in list(slot.batches):
            if number < batch.number <= slot.cut_to:
                slot.batches.remove(batch)
                if batch.direct is not None:
                    batch.direct.lost()
                self._queue.requeue(batch.lease, batch.start, batch.stop)
            elif batch.number == number and at != batch.stop:
                if batch is not slot.batches[0] or not batch.next <= at < batch.stop:
                    slot.end("faulty")
                    return
                self._queue.requeue(batch.lease, at, batch.stop)
                batch.stop, batch.last_of_page = at, -1
                if batch.next == at:  # its results came first
                    self._batch_ended(slot, batch, self._jobs.get(batch.job))
        self.dispatch()
        if not self.is_busy:
            self._owner.settled()

    def _batch_ended(self, slot: Slot, batch: Batch, job: NodeJob | None) -> None:
        slot.batches.popleft()
        if slot.batches:
            slot.batches[0].since = time.monotonic()
        elif slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        if job is not None:
            tasks = batch.stop - batch.start
            job.sizer.note(tasks, batch.ran_s, batch.result_bytes, is_first=batch.is_first)
            if batch.last_of_page >= 0 and batch.last_of_page in slot.pages:
                slot.pages.discard(batch.last_of_page)
                slot.process.take_back(("page", batch.last_of_page))
                slot.messages.append(job.forget_message(batch.last_of_page))

    def slot_printed(self, slot: Slot, entries: Sequence[tuple[int, bytes]]) -> None:
        if slot.batches:
            slot.printing = slot.batches[0]
        batch = slot.printing
        if batch is not None and not batch.is_direct:
            kept = [(index, batch.bounded_output(index, data)) for index, data in entries]
            logged = [LogEntry(i, data.decode("utf-8", "replace"), self._settings.name) for i, data in kept if data]
            if logged:
                self._owner.printed(batch.job, logged)

    def slot_saved(self, slot: Slot, index: int, path: Path) -> None:
        batch = slot.batches[0] if slot.batches else None
        if batch is not None and not batch.is_direct and batch.next <= index < batch.stop and batch.job in self._jobs:
            self._checkpoints.saved(batch.lease, batch.job, index, path)
        else:
            path.unlink(missing_ok=True)  # its task has ended

    def slot_progressed(self) -> None:
        self._owner.progressed()

    def slot_died(self, slot: Slot, exit_code: int | None, signal_name: str | None) -> None:
        """Blame the task that it was on, unless the death was ours; put the others back."""
        self._lending.take_back()
        batches = list(slot.batches)
        slot.batches.clear()
        for batch in batches:
            if batch.direct is not None:
                batch.direct.lost()
        for batch in batches[1:]:
            self._queue.requeue(batch.lease, batch.start, batch.stop)
        if batches:
            head = batches[0]
            blamed = slot.process.running_index if slot.end_reason in {None, "faulty"} else slot.end_index
            if slot.end_reason == "faulty" and not head.next <= blamed < head.stop:
                blamed = head.next  # it has overwritten its counter too: unless a task is blamed it goes on for ever
            if slot.end_reason in {"cancelled", "recycled"} or not head.next <= blamed < head.stop:
                self._queue.requeue(head.lease, head.next, head.stop)
            else:
                self._queue.requeue(head.lease, head.next, blamed)
                self._queue.requeue(head.lease, blamed + 1, head.stop)
                self._blame(slot, head, blamed, exit_code, signal_name)
        self.dispatch()
        if not self.is_busy:
            self._owner.settled()

    def _blame(self, slot: Slot, batch: Batch, index: int, exit_code: int | None, signal_name: str | None) -> None:
        queued = self._queue.get(batch.lease)
        if queued is None or index not in queued.running:
            return  # cancelled
        self._queue.finish(batch.lease, index, index + 1)
        excess = None if slot.process.guard is None else slot.process.guard.excess
        if excess is not None and slot.end_reason in {None, "limit"}:
            kind, message = "limit", str(excess)
            exit_code = signal_name = None
        elif slot.end_reason == "timeout":
            kind, message = "timeout", f"ran longer than its timeout of {batch.timeout_s:g} s"
            exit_code = signal_name = None
        elif slot.end_reason == "faulty":
            kind, message = "crashed", "wrote into its slot's connection to the agent"
        else:
            how = f"was ended by {signal_name}" if signal_name else f"ended with exit code {exit_code}"
            kind, message = "crashed", f"the process that ran it {how}"
        job, output = self._jobs.get(batch.job), slot.last_words
        if job is not None and job.spec.is_program:
            output = output or tail_of(slot.process.folder)
            if output and kind in {"limit", "timeout"}:
                message += f": {last_lines(output)}"
        failure = Failure(
            index=index,
            kind=kind,
            message=message,
            node=self._settings.name,
            exit_code=exit_code,
            signal=signal_name,
            peak_memory_bytes=slot.process.peak_memory_bytes,
            output=output or slot.process.tail(index),
        )
        self._owner.broke(batch.lease, batch.job, failure)

    def slots_unavailable(self, reason: str | None) -> None:
        self._owner.slots_unavailable(reason)

    def _trim(self) -> None:
        needed: dict[JobId, RangeSet] = {}
        for held in self._queue.held():
            ranges = needed.setdefault(held.job, RangeSet())
            for start, stop in zip(held.unfinished[::2], held.unfinished[1::2], strict=True):
                ranges.add(start, stop)
        for job_id, shelved in self._shelf.trim(needed):
            job = self._jobs.get(job_id)
            for slot in self.pool:
                if shelved.number in slot.pages:
                    slot.pages.discard(shelved.number)
                    slot.process.take_back(("page", shelved.number))
                    if job is not None:
                        slot.messages.append(job.forget_message(shelved.number))
