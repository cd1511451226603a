"""What clients do to jobs, and what is read of jobs: creation, inputs, cancellation, deletion, pages and results."""

import contextlib
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from fallow.hub.core.job_book import EndedView, ended_view
from fallow.hub.core.page_cache import PageCache
from fallow.hub.core.recovery import restore_parent
from fallow.hub.core.sessions import Session
from fallow.model.changes import AddInputs, AddJob, AddLogs, DeleteJob, DropSession, LogEntry
from fallow.model.errors import BadRequest, HubFull, JobCancelled, JobExists, JobNotFound, NotFound, TooLarge
from fallow.model.ids import Digest, JobId, SessionId
from fallow.model.job import Counting, JobInfo, JobSpec, Pages, ResultsOf, check_spec
from fallow.model.page import INLINE_BYTES, MAX_PAGE_REFS, InputPage
from fallow.model.ranges import RangeSet

if TYPE_CHECKING:
    from fallow.hub.core.hub import Hub

MAX_PAGE_ITEMS = 1 << 20
"""Items that one input page may claim to hold."""
MAX_JOB_TASKS = 1 << 48
"""Tasks per job; indices stay far inside 64 bits everywhere."""
LOG_BYTES_PER_JOB = 64 << 20
LOG_ENTRY_BYTES = 50
"""What an entry takes besides its text."""
PARENT_READ_BYTES = 4 << 20
"""Result bytes of a parent read at a time, as inputs of the job that goes on from it."""


class JobDesk:
    """One per hub; acts through its scheduler and journal, and keeps the page cache."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self.pages = PageCache(hub.settings.page_cache_bytes)
        self._log_bytes: dict[JobId, int] = {}
        self._uncounted_logs: dict[JobId, list[LogEntry]] = {}
        """Of jobs of an earlier hub, while it is looked up how much that has kept."""

    def open_job(self, spec: JobSpec, if_exists: str) -> tuple[JobId, bool]:
        """Accept a job, or find the one that it attaches to; return its id and whether it is new."""
        check_spec(spec)
        if self._hub.scheduler.has_job(spec.id) or self._hub.book.ended(spec.id) is not None:
            self._hub.book.spec_owned_by(spec.id, spec.owner)
            return spec.id, False
        if if_exists not in {"error", "attach", "replace"}:
            raise BadRequest(f'if_exists={if_exists!r} is not "error", "attach" or "replace"')
        if spec.name is not None and (existing := self._hub.book.named(spec.name, spec.owner)) is not None:
            if existing == spec.id or if_exists == "attach":  # the same one again: it has ended since
                return existing, False
            if if_exists == "error":
                raise JobExists(
                    f'a job named {spec.name!r} exists; pass if_exists="attach" to read it, "replace" to delete it first, '
                    "or choose another name"
                )
            self.delete(self._spec_of(existing, spec))
        if not self._hub.house.has_room():
            raise HubFull
        for digest in set(spec.blobs) - set(spec.refs):
            if not self._hub.house.has(digest):
                raise NotFound(f"the hub lacks blob {digest[:12]}… of job {spec.function_name}; offer it first")
        if isinstance(spec.inputs, ResultsOf):
            self._check_parent(spec.inputs.parent, spec)
        self._hub.book.add(spec)
        self._log_bytes[spec.id] = 0
        self._hub.journal.append(AddJob(spec))
        if isinstance(spec.inputs, ResultsOf):
            self._hub.book.add_reader(spec.inputs.parent, spec.id)
            parent = self._hub.book.ended(spec.inputs.parent)
            if parent is not None and not self._hub.scheduler.has_job(spec.inputs.parent):
                self._hub.carry_out(restore_parent(self._hub.scheduler, parent, self._hub.now()))
        self._hub.carry_out(self._hub.scheduler.on_job_created(spec, self._hub.now()))
        return spec.id, True

    def _spec_of(self, job: JobId, like: JobSpec) -> JobSpec:
        view = self._hub.book.ended(job)
        if view is not None:
            return view.info.spec
        spec = self._hub.book.specs.get(job)
        if spec is not None:
            return spec
        # ended long ago: only its id and name matter for deletion
        return JobSpec(
            id=job,
            name=like.name,
            owner=like.owner,
            stages=("map",),
            function=Digest(""),
            function_name="",
            inputs=Pages(),
        )

    def _check_parent(self, parent: JobId, spec: JobSpec) -> None:
        try:
            self._hub.book.spec_owned_by(parent, spec.owner)
        except JobNotFound:
            raise JobNotFound(f"job {spec.function_name!r} goes on from job {parent!r}, which does not exist") from None

    def add_input(self, page: InputPage) -> int:
        """Accept a page of inputs; return how many inputs the job has now. A page that is there already changes nothing."""
        job = page.job
        if not self._hub.scheduler.has_job(job):
            view = self._hub.book.ended(job)
            if view is not None and view.info.progress.state == "cancelled":
                raise JobCancelled(f"job {job} was cancelled")
            return page.stop  # it ended: all its inputs are known
        accepted = self._hub.scheduler.accepted(job)
        if page.stop <= accepted:
            return accepted
        if page.start != accepted or not 0 < page.stop - page.start <= MAX_PAGE_ITEMS or page.stop > MAX_JOB_TASKS:
            raise BadRequest(f"inputs [{page.start}, {page.stop}) do not follow the {accepted} that the job has")
        if not isinstance(self._hub.book.specs[job].inputs, Pages):
            raise BadRequest("this job takes no pages of inputs")
        if page.data is not None and len(page.data) > INLINE_BYTES:
            raise TooLarge(
                f"an input page of {len(page.data)} bytes is over the limit of {INLINE_BYTES}; send it as a blob"
            )
        if len(page.refs) > MAX_PAGE_REFS:
            raise TooLarge(f"an input page with {len(page.refs)} references is over the limit of {MAX_PAGE_REFS}")
        for digest in (*page.refs, *((page.blob,) if page.blob is not None else ())):
            if not self._hub.house.has(digest):
                raise NotFound(f"the hub lacks blob {digest[:12]}… of an input; offer it first")
        if not self._hub.house.has_room():
            raise HubFull
        self._hub.book.accepted[job] = page.stop
        if page.blob is not None:
            self._hub.book.page_blobs.setdefault(job, set()).add(page.blob)
        self.pages.put(page, pinned=self._hub.state.is_durable)
        self._hub.journal.append(AddInputs(page))
        if self._hub.state.is_durable:
            start = page.start
            self._hub.journal.after_commit(lambda: self.pages.unpin(job, start), is_urgent=False)
        self._hub.carry_out(self._hub.scheduler.on_inputs_added(job, page.stop, self._hub.now()))
        return page.stop

    def seal(self, job: JobId, size: int, *, input_ended: bool = False) -> None:
        """The job has `size` tasks."""
        if not self._hub.scheduler.has_job(job):
            return
        progress = self._hub.scheduler.progress(job)
        if progress.size is not None:
            return
        counting = isinstance(self._hub.book.specs[job].inputs, Counting)
        if not 0 <= size <= MAX_JOB_TASKS or (not counting and size != progress.accepted):
            raise BadRequest(f"the job can't be sealed at {size} tasks: it has {progress.accepted} inputs")
        self._hub.carry_out(self._hub.scheduler.on_job_sealed(job, size, self._hub.now(), input_ended=input_ended))

    def cancel(self, job: JobId) -> None:
        if self._hub.scheduler.has_job(job):
            self._hub.carry_out(self._hub.scheduler.on_job_cancelled(job, self._hub.now()))

    def cancel_tasks(self, job: JobId, ranges: RangeSet) -> None:
        if self._hub.scheduler.has_job(job):
            self._hub.carry_out(self._hub.scheduler.on_tasks_cancelled(job, ranges.ranges(), self._hub.now()))

    def delete(self, spec: JobSpec) -> None:
        """Cancel the job if it runs and remove everything of it, once no other job reads it."""
        job = spec.id
        if self._hub.book.doom(job):
            return
        digests = [*spec.blobs, *self._hub.state.blobs_held_by(job)]
        digests += self._hub.book.page_blobs.pop(job, ())  # those that are not committed yet
        if self._hub.scheduler.has_job(job):
            self._hub.carry_out(self._hub.scheduler.on_job_deleted(job, self._hub.now()))
        else:
            self._hub.journal.append(DeleteJob(job))
        self._dropped(spec)
        self._hub.house.sweep(dict.fromkeys(digests))

    def _dropped(self, spec: JobSpec) -> None:
        self._hub.book.forget(spec)
        self.pages.forget(spec.id)
        self._hub.watchers.pop(spec.id, None)
        self._hub.changed.discard(spec.id)
        self._log_bytes.pop(spec.id, None)
        self.end_reader(spec)

    def end_reader(self, spec: JobSpec) -> None:
        if isinstance(spec.inputs, ResultsOf) and self._hub.book.end_reader(spec.inputs.parent, spec.id):
            with contextlib.suppress(JobNotFound):
                self.delete(self._hub.book.spec_owned_by(spec.inputs.parent, None))

    def session_expired(self, session: Session) -> None:
        held = self._hub.state.blobs_held_by(session.id)
        for job in list(session.jobs):
            try:
                spec = self._hub.book.spec_owned_by(job, None)
            except JobNotFound:
                continue
            if spec.name is None:
                self.delete(spec)
            if self._hub.scheduler.has_job(job):  # named, or wanted by a job that goes on from it
                progress = self._hub.scheduler.progress(job)
                if progress.size is None:
                    self.seal(job, progress.accepted, input_ended=True)
        self._hub.journal.append(DropSession(SessionId(session.id)))
        self._hub.house.sweep(held)

    def add_logs(self, job: JobId, entries: Iterable[LogEntry]) -> None:
        """Keep what tasks printed, up to the limit per job."""
        if job not in self._hub.book.specs and self._hub.book.ended(job) is None:
            return
        if job in self._uncounted_logs:
            self._uncounted_logs[job] += entries
        elif job not in self._log_bytes:
            self._uncounted_logs[job] = list(entries)
            self._hub.spawn(self._count_logs(job))
        elif self._log_bytes[job] <= LOG_BYTES_PER_JOB:
            self._keep_logs(job, entries)

    def _keep_logs(self, job: JobId, entries: Iterable[LogEntry]) -> None:
        used = self._log_bytes[job]
        kept = []
        for entry in entries:
            used += len(entry.text.encode()) + LOG_ENTRY_BYTES
            if used > LOG_BYTES_PER_JOB:
                break
            kept.append(entry)
        self._log_bytes[job] = used
        if kept:
            self._hub.journal.append(AddLogs(job, tuple(kept)))

    async def _count_logs(self, job: JobId) -> None:
        """A job of an earlier hub prints for the first time: go on from what is kept."""
        try:
            count, size_bytes = await self._hub.read(lambda: self._hub.state.log_size(job))
        finally:
            entries = self._uncounted_logs.pop(job)
        if job in self._hub.book.specs or self._hub.book.ended(job) is not None:
            self._log_bytes[job] = size_bytes + count * LOG_ENTRY_BYTES
            self._keep_logs(job, entries)

    # --- pages and results ---

    async def input_pages(self, job: JobId, start: int, stop: int) -> list[InputPage]:
        """Return the pages that a lease on `[start, stop)` needs."""
        spec = self._hub.book.specs.get(job)
        if spec is None:
            return []
        if isinstance(spec.inputs, ResultsOf):
            return await self._parent_pages(spec, spec.inputs.parent, start, stop)
        cached = self.pages.covering(job, start, stop)
        if cached is not None:
            return cached
        await self._hub.journal.barrier()
        pages = await self._hub.read(lambda: self._hub.state.input_pages(job, start, stop))
        if job in self._hub.book.specs:
            for page in pages:
                self.pages.put(page, pinned=False)
        return pages

    async def _parent_pages(self, spec: JobSpec, parent: JobId, start: int, stop: int) -> list[InputPage]:
        await self._hub.journal.barrier()
        found: list[InputPage] = []
        after: int | None = 0
        while after is not None:
            stored, after = await self._hub.read(
                partial(
                    self._hub.state.result_pages, parent, [(start, stop)], after=after, limit_bytes=PARENT_READ_BYTES
                )
            )
            for each in stored:
                page = each.page
                kept = page.kept
                if kept is None and page.failures:
                    whole = RangeSet([(page.start, page.stop)])
                    for failure in page.failures:
                        whole.discard(failure.index, failure.index + 1)
                    kept = tuple(whole.flat())
                found.append(InputPage(spec.id, page.start, page.stop, page.data, page.blob, (), kept, each.counts))
        return found

    def settled_of_live(self, job: JobId) -> RangeSet | None:
        """Return what is settled of a job in memory, None if it has to be looked up."""
        if job in self._hub.book.specs and self._hub.scheduler.has_job(job):
            return self._hub.scheduler.settled(job)
        view = self._hub.book.ended(job)
        return view.settled if view is not None else None

    async def settled(self, job: JobId, owner: str | None) -> RangeSet:
        """Return what is settled of a job; raises JobNotFound."""
        live = self.settled_of_live(job)
        if live is not None:
            self._hub.book.spec_owned_by(job, owner)
            return live
        return (await self._ended(job, owner)).settled

    async def _ended(self, job: JobId, owner: str | None) -> EndedView:
        view = self._hub.book.ended(job)
        if view is None:
            found = await self._hub.read(lambda: self._hub.state.find_job(job))
            if found is None:
                raise JobNotFound(f"there is no job {job!r}; `fallow jobs` lists yours")
            view = ended_view(found)
            self._hub.book.remember_ended(view)
        self._hub.book.spec_owned_by(job, owner)
        return view

    async def job_info(self, job: JobId, owner: str | None = None) -> JobInfo:
        """Return a job as shown to people, an end only once it is durable; raises JobNotFound."""
        if job in self._hub.book.specs and self._hub.scheduler.has_job(job):
            self._hub.book.spec_owned_by(job, owner)
            return self._hub.scheduler.info(job)
        info = (await self._ended(job, owner)).info
        await self._hub.journal.barrier()
        return info
