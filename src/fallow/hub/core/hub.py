"""The hub: carries out what the scheduler decides, and answers clients, nodes and the web."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import blake3
import msgspec
import structlog

import fallow
from fallow.hub.core.blob_house import BlobHouse
from fallow.hub.core.client_shell import ClientShell
from fallow.hub.core.events import EventBoard
from fallow.hub.core.job_book import EndedView, JobBook, ended_view
from fallow.hub.core.journal import Journal
from fallow.hub.core.node_shell import NodeShell
from fallow.hub.core.page_cache import PageCache
from fallow.hub.core.sessions import Session, SessionBook
from fallow.hub.core.settings import HubSettings
from fallow.hub.core.tokens import TokenBook
from fallow.link.frames import PROTOCOL_VERSION, Welcome
from fallow.link.link import Link
from fallow.model.changes import (
    AddInputs,
    AddJob,
    AddLogs,
    AddResults,
    AddToken,
    DeleteJob,
    DropSession,
    EndJob,
    LogEntry,
    RevokeToken,
    SaveSettled,
    SealJob,
)
from fallow.model.errors import (
    BadRequest,
    FallowError,
    Forbidden,
    HubFull,
    JobCancelled,
    JobExists,
    JobNotFound,
    NotFound,
    TooLarge,
)
from fallow.model.ids import Digest, JobId, NodeId, SessionId
from fallow.model.job import Counting, JobInfo, JobProgress, JobSpec, Pages, ResultsOf, check_spec
from fallow.model.lease import Lease
from fallow.model.node import NodeInfo
from fallow.model.node_view import NodeView
from fallow.model.page import INLINE_BYTES, InputPage, StoredPage
from fallow.model.ranges import RangeSet
from fallow.model.token import Role, Token
from fallow.scheduler.effects import (
    CancelWork,
    Effects,
    ForgetJob,
    GrantLease,
    Persist,
    RecallLease,
    Tell,
    TellProgress,
    TellResults,
)
from fallow.scheduler.scheduler import Scheduler
from fallow.state.blobs import BlobStore
from fallow.state.state import EndedJob, Recovered, State

MAX_PAGE_ITEMS = 1 << 20
"""Items that one input page may claim to hold."""
MAX_JOB_TASKS = 1 << 48
"""Tasks per job; indices stay far inside 64 bits everywhere."""
LOG_BYTES_PER_JOB = 64 << 20
PARENT_READ_BYTES = 4 << 20
PROGRESS_S = 0.2
"""How often watchers hear of progress while a job runs."""
RECOVERY_RETRY_S = 1.0
HOUSEKEEPING_S = 60.0
"""How often retention is checked."""
LISTED_ENDED_JOBS = 100_000
"""Ended named jobs whose names are indexed at start."""

T = TypeVar("T")
_log = structlog.get_logger("fallow.hub")


class Hub:
    """One hub. Every method is called on the event loop's thread."""

    def __init__(self, settings: HubSettings, state: State, blobs: BlobStore) -> None:
        """state, blobs: as `open_hub` makes them from the settings; not opened yet."""
        self.settings = settings
        self.state = state
        self.blobs = blobs
        self.journal = Journal(state, self._commit_failed)
        self.house = BlobHouse(blobs, state, self.journal, settings.folder, settings.reserve_bytes)
        self.events = EventBoard()
        self.book = JobBook()
        self.sessions = SessionBook(settings.session_grace_s, self._session_expired)
        self.scheduler = Scheduler()
        self.epoch = 0
        self.new_secrets: dict[Role, str] = {}
        """Tokens made by this start, to be shown once."""
        self._tokens = TokenBook()
        self._pages = PageCache(settings.page_cache_bytes)
        self._nodes: dict[NodeId, NodeShell] = {}
        self._clients: set[ClientShell] = set()
        self._watchers: dict[JobId, set[ClientShell]] = {}
        self._changed: set[JobId] = set()
        self._waiting_since: dict[JobId, float] = {}
        self._progress_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._log_bytes: dict[JobId, int] = {}
        self._ending: dict[JobId, SaveSettled] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_recovering = False

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the state and go on where the last hub stopped. Raises StateError."""
        self._loop = asyncio.get_running_loop()
        await self._open_state()
        self.house.open()
        if not self._tokens.has_role("admin"):
            self._first_tokens()
        await self.journal.barrier()
        self.spawn(self._housekeeping())

    async def _open_state(self) -> None:
        recovered = await self.house.off_loop(self.state.recover)
        self.epoch = recovered.epoch
        self.scheduler = Scheduler(epoch=recovered.epoch, unix_offset_s=time.time() - self.now())
        self.journal.start()
        await self._restore(recovered)
        for session_id in recovered.sessions:
            self.sessions.went(self.sessions.get(session_id, ""))
        ended = await self.house.off_loop(lambda: self.state.ended_jobs(limit=LISTED_ENDED_JOBS))
        for each in ended:
            self.book.add_name(each.spec)
            if each.spec.name is None:
                self._adopt_into_session(each.spec)
                self.book.remember_ended(ended_view(each))
        self._tokens = TokenBook(recovered.tokens)
        self._schedule_timer()

    async def _restore(self, recovered: Recovered) -> None:
        """Give the scheduler what the last hub left: jobs, then the leases that nodes may still hold."""
        now = self.now()
        effects: Effects = []
        known = {job.spec.id for job in recovered.jobs}
        for job in recovered.jobs:
            spec = job.spec
            self.book.add(spec)
            self.book.accepted[spec.id] = job.accepted
            if job.size is not None:
                self.book.sizes[spec.id] = job.size
            if job.input_ended:
                self.book.sealed_early.add(spec.id)
            if isinstance(spec.inputs, ResultsOf):
                self.book.add_reader(spec.inputs.parent, spec.id)
                if spec.inputs.parent not in known:
                    ended = await self.read(partial(self.state.find_job, spec.inputs.parent))
                    if ended is not None:
                        effects += self._recover_parent(ended_view(ended))
            effects += self.scheduler.restore(job, now)
            self._adopt_into_session(spec)
        for lease, node in recovered.leases:
            effects += self.scheduler.restore_lease(lease, node, now)
        self.carry_out(effects)

    def _recover_parent(self, parent: EndedView) -> Effects:
        """Let the scheduler know an ended job again, whose results are another's inputs."""
        info = parent.info
        return self.scheduler.on_parent_recovered(
            info.spec,
            self.now(),
            size=info.progress.size,
            settled=parent.settled,
            first_failures=info.first_failures,
            state=info.progress.state,
            input_ended=info.progress.input_ended,
        )

    def _first_tokens(self) -> None:
        wanted: tuple[tuple[Role, str, str | None], ...] = (
            ("admin", "first admin", self.settings.admin_secret),
            ("node", "first join token", self.settings.join_secret),
        )
        for role, name, given in wanted:
            token, secret = self._tokens.make(role, name, given)
            self.journal.append(AddToken(token))
            if given is None:
                self.new_secrets[role] = secret

    def _adopt_into_session(self, spec: JobSpec) -> None:
        if spec.session is not None:
            session = self.sessions.get(spec.session, spec.owner)
            session.jobs.add(spec.id)
            self.sessions.went(session)

    async def stop(self) -> None:
        """Close all links, make everything durable and release the state."""
        for timer in (self._timer, self._progress_timer):
            if timer is not None:
                timer.cancel()
        self.sessions.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for shell in self._shells():
            shell.close("the hub is stopping; it will be back")
        await self.journal.stop()
        self.house.close()
        await self.house.off_loop(self.state.close)

    def now(self) -> float:
        """Monotonic seconds: the time that the scheduler sees."""
        return self._loop.time()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the loop's callbacks; owned, and cancelled at stop."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("internal error", error=repr(error), exc_info=error)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    async def read(self, query: Callable[[], T]) -> T:
        """Read from the state without holding up the loop."""
        return await self.house.off_loop(query)

    def _commit_failed(self, error: BaseException) -> None:
        """Treat a refused commit as a crash: what was told since the last one can't be kept.

        The scheduler is rebuilt from the state; nodes and clients reconnect and present what they hold.
        """
        self._is_recovering = True
        for shell in self._shells():
            shell.close("the hub could not write its state and starts again")
        self.spawn(self._recover_from(error))

    async def _recover_from(self, error: BaseException) -> None:
        while True:
            _log.error("the state could not be written; opening it again", error=repr(error))
            self.sessions.close()
            self.sessions = SessionBook(self.settings.session_grace_s, self._session_expired)
            self.book = JobBook()
            self._pages = PageCache(self.settings.page_cache_bytes)
            self._watchers.clear()
            self._changed.clear()
            self._waiting_since.clear()
            self._ending.clear()
            try:
                await self.house.off_loop(self.state.close)
                await self._open_state()
            except (FallowError, OSError, RuntimeError) as again:
                error = again
                await asyncio.sleep(RECOVERY_RETRY_S)
            else:
                self._is_recovering = False
                return

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            limit = time.time() - self.settings.retention_s
            for job in await self.read(partial(self.state.ended_jobs, limit=1000, before=limit)):
                self.delete(job.spec)

    # --- links ----------------------------------------------------------------------------------

    def accept(self, link: Link, token: Token, kind: str) -> None:
        """Take over a link whose other end has shown this token."""
        if self._is_recovering:
            link.start(lambda _frame: None, lambda _reason: None)
            link.close("the hub opens its state again; try in a moment")
            return
        if kind == "client":
            client = ClientShell(self, link, token)
            self._clients.add(client)
            link.start(client.on_frame, client.on_closed)
        else:
            node = NodeShell(self, link, token)
            link.start(node.on_frame, node.on_closed)

    def _shells(self) -> list[ClientShell | NodeShell]:
        return [*self._clients, *self._nodes.values()]

    def welcome(self) -> Welcome:
        return Welcome(PROTOCOL_VERSION, self.epoch, fallow.__version__, self.house.probe)

    def node_came(self, node: NodeId, info: NodeInfo, shell: NodeShell) -> None:
        old = self._nodes.get(node)
        self._nodes[node] = shell
        if old is not None:
            old.close("this node has connected again")
        self.carry_out(self.scheduler.on_node_joined(node, info, self.now()))

    def node_gone(self, node: NodeId, shell: NodeShell) -> None:
        if self._nodes.get(node) is shell:
            del self._nodes[node]
            self.carry_out(self.scheduler.on_link_closed(node, self.now()))

    def client_gone(self, shell: ClientShell) -> None:
        self._clients.discard(shell)

    def watch(self, job: JobId, shell: ClientShell) -> None:
        self._watchers.setdefault(job, set()).add(shell)
        if job in self.book.specs and job not in self._waiting_since:
            self._waiting_since[job] = self.now()
            self._loop.call_later(self.settings.waiting_notice_s, self._tell_why_waiting, job)

    def unwatch(self, job: JobId, shell: ClientShell) -> None:
        watchers = self._watchers.get(job)
        if watchers is not None:
            watchers.discard(shell)
            if not watchers:
                del self._watchers[job]

    def _tell_why_waiting(self, job: JobId) -> None:
        if self._waiting_since.pop(job, None) is None or not self.scheduler.has_job(job):
            return
        watchers = self._watchers.get(job)
        progress = self.scheduler.progress(job)
        if watchers and progress.leased == 0 and progress.settled < progress.accepted:
            reasons = self.scheduler.explain(job)
            for shell in watchers:
                shell.tell_waiting(job, reasons)

    # --- jobs, as clients make them -------------------------------------------------------------

    def open_job(self, spec: JobSpec, if_exists: str) -> tuple[JobId, bool]:
        """Accept a job, or find the one that it attaches to; return its id and whether it is new."""
        check_spec(spec)
        if self.scheduler.has_job(spec.id) or self.book.ended(spec.id) is not None:
            self.book.spec_owned_by(spec.id, spec.owner)
            return spec.id, False
        if if_exists not in {"error", "attach", "replace"}:
            raise BadRequest(f'if_exists={if_exists!r} is not "error", "attach" or "replace"')
        if spec.name is not None and (existing := self.book.named(spec.name, spec.owner)) is not None:
            if if_exists == "attach":
                return existing, False
            if if_exists == "error":
                raise JobExists(
                    f'a job named {spec.name!r} exists; pass if_exists="attach" to read it, "replace" to delete it first, '
                    "or choose another name"
                )
            self.delete(self._spec_of(existing, spec))
        if not self.house.has_room():
            raise HubFull
        for digest in (spec.function, *spec.sources.values()):
            if self.blobs.size(digest) is None:
                raise NotFound(f"the hub lacks blob {digest[:12]}… of job {spec.function_name}; offer it first")
        if isinstance(spec.inputs, ResultsOf):
            self._check_parent(spec.inputs.parent, spec)
        self.book.add(spec)
        self.journal.append(AddJob(spec))
        if isinstance(spec.inputs, ResultsOf):
            self.book.add_reader(spec.inputs.parent, spec.id)
            parent = self.book.ended(spec.inputs.parent)
            if parent is not None and not self.scheduler.has_job(spec.inputs.parent):
                self.carry_out(self._recover_parent(parent))
        self.carry_out(self.scheduler.on_job_created(spec, self.now()))
        return spec.id, True

    def _spec_of(self, job: JobId, like: JobSpec) -> JobSpec:
        view = self.book.ended(job)
        if view is not None:
            return view.info.spec
        spec = self.book.specs.get(job)
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
            self.book.spec_owned_by(parent, spec.owner)
        except JobNotFound:
            raise JobNotFound(f"job {spec.function_name!r} goes on from job {parent!r}, which does not exist") from None

    def add_input(self, page: InputPage) -> int:
        """Accept a page of inputs; return how many inputs the job has now. A page that is there already changes nothing."""
        job = page.job
        if not self.scheduler.has_job(job):
            view = self.book.ended(job)
            if view is not None and view.info.progress.state == "cancelled":
                raise JobCancelled(f"job {job} was cancelled")
            return page.stop  # it ended: all its inputs are known
        accepted = self.scheduler.accepted(job)
        if page.stop <= accepted:
            return accepted
        if page.start != accepted or not 0 < page.stop - page.start <= MAX_PAGE_ITEMS or page.stop > MAX_JOB_TASKS:
            raise BadRequest(f"inputs [{page.start}, {page.stop}) do not follow the {accepted} that the job has")
        if not isinstance(self.book.specs[job].inputs, Pages):
            raise BadRequest("this job takes no pages of inputs")
        if page.data is not None and len(page.data) > INLINE_BYTES:
            raise TooLarge(
                f"an input page of {len(page.data)} bytes is over the limit of {INLINE_BYTES}; send it as a blob"
            )
        for digest in (*page.refs, *((page.blob,) if page.blob is not None else ())):
            if self.blobs.size(digest) is None:
                raise NotFound(f"the hub lacks blob {digest[:12]}… of an input; offer it first")
        if not self.house.has_room():
            raise HubFull
        self.book.accepted[job] = page.stop
        if page.blob is not None:
            self.book.page_blobs.setdefault(job, set()).add(page.blob)
        self._pages.put(page, pinned=self.state.is_durable)
        self.journal.append(AddInputs(page))
        if self.state.is_durable:
            start = page.start
            self.journal.after_commit(lambda: self._pages.unpin(job, start))
        self.carry_out(self.scheduler.on_inputs_added(job, page.stop, self.now()))
        return page.stop

    def seal(self, job: JobId, size: int, *, input_ended: bool = False) -> None:
        """The job has `size` tasks."""
        if not self.scheduler.has_job(job):
            return
        progress = self.scheduler.progress(job)
        if progress.size is not None:
            return
        counting = isinstance(self.book.specs[job].inputs, Counting)
        if not 0 <= size <= MAX_JOB_TASKS or (not counting and size != progress.accepted):
            raise BadRequest(f"the job can't be sealed at {size} tasks: it has {progress.accepted} inputs")
        self.carry_out(self.scheduler.on_job_sealed(job, size, self.now(), input_ended=input_ended))

    def cancel(self, job: JobId) -> None:
        if self.scheduler.has_job(job):
            self.carry_out(self.scheduler.on_job_cancelled(job, self.now()))

    def cancel_tasks(self, job: JobId, ranges: RangeSet) -> None:
        if self.scheduler.has_job(job):
            self.carry_out(self.scheduler.on_tasks_cancelled(job, ranges, self.now()))

    def delete(self, spec: JobSpec) -> None:
        """Cancel the job if it runs and remove everything of it, once no other job reads it."""
        job = spec.id
        if self.book.doom(job):
            return
        digests = [spec.function, *spec.sources.values(), *spec.refs, *self.state.blobs_held_by(job)]
        digests += self.book.page_blobs.pop(job, ())  # those that are not committed yet
        if self.scheduler.has_job(job):
            self.carry_out(self.scheduler.on_job_deleted(job, self.now()))
        else:
            self.journal.append(DeleteJob(job))
        self._dropped(spec)
        self.house.sweep(dict.fromkeys(digests))

    def _dropped(self, spec: JobSpec) -> None:
        self.book.forget(spec)
        self._pages.forget(spec.id)
        self._watchers.pop(spec.id, None)
        self._changed.discard(spec.id)
        self._log_bytes.pop(spec.id, None)
        self._end_reader(spec)

    def _end_reader(self, spec: JobSpec) -> None:
        if isinstance(spec.inputs, ResultsOf) and self.book.end_reader(spec.inputs.parent, spec.id):
            with contextlib.suppress(JobNotFound):
                self.delete(self.book.spec_owned_by(spec.inputs.parent, None))

    def _session_expired(self, session: Session) -> None:
        held = self.state.blobs_held_by(session.id)
        for job in list(session.jobs):
            try:
                spec = self.book.spec_owned_by(job, None)
            except JobNotFound:
                continue
            if spec.name is None:
                self.delete(spec)
            elif self.scheduler.has_job(job):
                progress = self.scheduler.progress(job)
                if progress.size is None:
                    self.seal(job, progress.accepted, input_ended=True)
        self.journal.append(DropSession(SessionId(session.id)))
        self.house.sweep(held)

    def add_logs(self, job: JobId, entries: Iterable[LogEntry]) -> None:
        """Keep what tasks printed, up to the limit per job."""
        if job not in self.book.specs and self.book.ended(job) is None:
            return
        used = self._log_bytes.get(job, 0)
        kept = []
        for entry in entries:
            used += len(entry.text) + 50
            if used > LOG_BYTES_PER_JOB:
                break
            kept.append(entry)
        self._log_bytes[job] = used
        if kept:
            self.journal.append(AddLogs(job, tuple(kept)))

    # --- effects --------------------------------------------------------------------------------

    def carry_out(self, effects: Effects) -> None:
        """Do what the scheduler decided, in order."""
        for effect in effects:
            match effect:
                case GrantLease():
                    self._grant(effect.node, effect.lease)
                case Persist():
                    self.journal.append(effect.change)
                    self._note_change(effect.change)
                case TellResults():
                    for shell in self._watchers.get(effect.job, ()):
                        shell.tell_results(effect.job, effect.pages)
                case TellProgress():
                    self._tell_progress(effect)
                case Tell():
                    self.events.post(effect.event, time.time())
                case RecallLease():
                    if (node := self._nodes.get(effect.node)) is not None:
                        node.recall(effect.lease, effect.count)
                case CancelWork():
                    if (node := self._nodes.get(effect.node)) is not None:
                        node.cancel(effect.job, effect.ranges)
                case ForgetJob():
                    if (node := self._nodes.get(effect.node)) is not None:
                        node.forget(effect.job)
        self._schedule_timer()

    def _note_change(self, change: Any) -> None:
        match change:
            case SaveSettled():
                self._ending[change.job] = change
            case EndJob():
                self._job_ended(change)
            case SealJob():
                self.book.sizes[change.job] = change.size
                if change.input_ended:
                    self.book.sealed_early.add(change.job)
            case AddResults():
                for each in change.pages:
                    if each.page.blob is not None:
                        self.book.page_blobs.setdefault(change.job, set()).add(each.page.blob)

    def _job_ended(self, change: EndJob) -> None:
        job = change.job
        spec = self.book.specs.get(job)
        saved = self._ending.pop(job, None)
        if spec is None or saved is None:
            return
        size = self.book.sizes.get(job)
        accepted = self.book.accepted.get(job, size or 0)
        ended = EndedJob(
            spec=spec, size=size, accepted=accepted, state=change.state, ended_at=change.ended_at,
            input_ended=job in self.book.sealed_early, settled=saved.settled, failed=saved.failed,
            first_failures=saved.first_failures,
        )  # fmt: skip
        self.book.remember_ended(ended_view(ended))
        self._pages.forget(job)
        self._end_reader(spec)

    def _grant(self, node: NodeId, lease: Lease) -> None:
        shell = self._nodes.get(node)
        if shell is None:
            return
        spec = self.book.specs[lease.job]
        if isinstance(spec.inputs, Counting):
            shell.grant(lease, [])
            return
        pages = self._pages.covering(lease.job, lease.start, lease.stop)
        if pages is not None:
            shell.grant(lease, pages)
            return

        async def load_and_grant() -> None:
            shell.grant(lease, await self.input_pages(lease.job, lease.start, lease.stop))

        self.spawn(load_and_grant())

    async def input_pages(self, job: JobId, start: int, stop: int) -> list[InputPage]:
        """Return the pages that a lease on `[start, stop)` needs."""
        spec = self.book.specs.get(job)
        if spec is None:
            return []
        if isinstance(spec.inputs, ResultsOf):
            return await self._parent_pages(spec, spec.inputs.parent, start, stop)
        cached = self._pages.covering(job, start, stop)
        if cached is not None:
            return cached
        await self.journal.barrier()
        pages = await self.read(lambda: self.state.input_pages(job, start, stop))
        if job in self.book.specs:
            for page in pages:
                self._pages.put(page, pinned=False)
        return pages

    async def _parent_pages(self, spec: JobSpec, parent: JobId, start: int, stop: int) -> list[InputPage]:
        await self.journal.barrier()
        found: list[InputPage] = []
        after: int | None = 0
        while after is not None:
            stored, after = await self.read(
                partial(self.state.result_pages, parent, [(start, stop)], after=after, limit_bytes=PARENT_READ_BYTES)
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

    def _tell_progress(self, effect: TellProgress) -> None:
        watchers = self._watchers.get(effect.job)
        if not watchers:
            return
        if effect.ended:
            self._changed.discard(effect.job)
            progress = self._progress(effect.job)
            if progress is not None:
                for shell in watchers:
                    shell.tell_progress(effect.job, progress)
            return
        self._changed.add(effect.job)
        if self._progress_timer is None:
            self._progress_timer = self._loop.call_later(PROGRESS_S, self._tell_changed)

    def _tell_changed(self) -> None:
        self._progress_timer = None
        changed, self._changed = self._changed, set()
        for job in changed:
            progress = self._progress(job)
            if progress is not None:
                for shell in self._watchers.get(job, ()):
                    shell.tell_progress(job, progress)

    def _progress(self, job: JobId) -> JobProgress | None:
        view = self.book.ended(job)
        if view is not None:
            return view.info.progress
        return self.scheduler.progress(job) if self.scheduler.has_job(job) else None

    def _schedule_timer(self) -> None:
        deadline = self.scheduler.next_deadline()
        timer = self._timer
        if deadline is None:
            return
        if timer is not None:
            if timer.when() <= deadline:
                return  # it fires first and looks again
            timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.carry_out(self.scheduler.on_time(self.now()))

    # --- what watchers read ---------------------------------------------------------------------

    def settled_of_live(self, job: JobId) -> RangeSet | None:
        """Return what is settled of a job in memory, None if it has to be looked up."""
        if job in self.book.specs and self.scheduler.has_job(job):
            return self.scheduler.settled(job)
        view = self.book.ended(job)
        return view.settled if view is not None else None

    async def settled(self, job: JobId, owner: str | None) -> RangeSet:
        """Return what is settled of a job; raises JobNotFound."""
        live = self.settled_of_live(job)
        if live is not None:
            self.book.spec_owned_by(job, owner)
            return live
        return (await self._ended(job, owner)).settled

    async def _ended(self, job: JobId, owner: str | None) -> EndedView:
        view = self.book.ended(job)
        if view is None:
            found = await self.read(lambda: self.state.find_job(job))
            if found is None:
                raise JobNotFound(f"there is no job {job!r}; `fallow jobs` lists yours")
            view = ended_view(found)
            self.book.remember_ended(view)
        self.book.spec_owned_by(job, owner)
        return view

    async def job_info(self, job: JobId, owner: str | None = None) -> JobInfo:
        """Return a job as shown to people; raises JobNotFound."""
        if job in self.book.specs and self.scheduler.has_job(job):
            self.book.spec_owned_by(job, owner)
            return self.scheduler.info(job)
        return (await self._ended(job, owner)).info

    # --- what the web and the clients ask -------------------------------------------------------

    def authenticate(self, secret: str) -> Token | None:
        """Return whose secret this is, None if nobody's."""
        return self._tokens.authenticate(secret)

    def resolve(self, ref: str, token: Token) -> JobId:
        """Return the id of the caller's job called `ref`: a name or an id."""
        named = self.book.named(ref, token.id)
        if named is None and token.role == "admin":
            named = self.book.named(ref, "")
        return named if named is not None else JobId(ref)

    async def job(self, ref: str, token: Token) -> JobInfo:
        """Return the caller's job by id or name; raises JobNotFound."""
        return await self.job_info(self.resolve(ref, token), _owner(token))

    async def jobs(self, token: Token, *, limit: int = 100, before: float | None = None) -> list[JobInfo]:
        """Return the caller's jobs: unfinished ones first, then by end, latest first. before: Unix time of the end."""
        owner = _owner(token)
        found: list[JobInfo] = []
        if before is None:
            live = [spec.id for spec in self.book.specs.values() if owner is None or spec.owner == owner]
            found = [self.scheduler.info(job) for job in live if self.scheduler.has_job(job)][-limit:][::-1]
        if len(found) < limit:
            await self.journal.barrier()
            ended = await self.read(lambda: self.state.ended_jobs(limit=limit, before=before))
            found += [ended_view(job).info for job in ended if owner is None or job.spec.owner == owner]
        return found[:limit]

    async def create_job(
        self, spec: JobSpec, pages: Sequence[InputPage], token: Token, if_exists: str = "error"
    ) -> JobInfo:
        """Create a whole job at once; it is durable when this returns."""
        if token.role == "node":
            raise Forbidden("a node's token can't create jobs")
        job, is_new = self.open_job(msgspec.structs.replace(spec, owner=token.id), if_exists)
        if is_new:
            for page in pages:
                self.add_input(page)
            self.seal(job, pages[-1].stop if pages else 0)
        await self.journal.barrier()
        return await self.job_info(job)

    async def cancel_job(self, ref: str, token: Token) -> None:
        info = await self.job(ref, token)
        self.cancel(info.spec.id)
        await self.journal.barrier()

    async def delete_job(self, ref: str, token: Token) -> None:
        info = await self.job(ref, token)
        self.delete(info.spec)
        await self.journal.barrier()

    async def results(
        self, ref: str, token: Token, *, start: int = 0, limit_bytes: int = 1 << 20
    ) -> tuple[list[StoredPage], int | None]:
        """Return result pages settled so far that count for indices from `start` on, and where to go on (None: the end)."""
        job = (await self.job(ref, token)).spec.id
        settled = await self.settled(job, _owner(token))
        await self.journal.barrier()
        wanted = settled.within(start, settled.end)[:256]
        if not wanted:
            return [], None
        pages, after = await self.read(lambda: self.state.result_pages(job, wanted, after=0, limit_bytes=limit_bytes))
        if after is None and wanted[-1][1] < settled.end:
            after = wanted[-1][1]
        return pages, after

    async def logs(self, ref: str, token: Token, *, after: int = 0) -> tuple[list[LogEntry], int | None]:
        """Return what the job's tasks printed, from entry `after` on, and where to go on."""
        job = (await self.job(ref, token)).spec.id
        await self.journal.barrier()
        return await self.read(lambda: self.state.logs(job, after=after))

    async def explain(self, ref: str, token: Token) -> list[str]:
        """Say in plain words what the job is waiting for."""
        info = await self.job(ref, token)
        if self.scheduler.has_job(info.spec.id) and not info.progress.ended:
            return self.scheduler.explain(info.spec.id)
        failed = f", {info.progress.failed} of them failed" if info.progress.failed else ""
        return [f"the job is {info.progress.state}: {info.progress.settled} tasks are settled{failed}"]

    def nodes(self) -> list[NodeView]:
        """Return the nodes, as shown to people."""
        return self.scheduler.nodes()

    async def keep_blob(self, chunks: AsyncIterator[bytes], token: Token) -> tuple[Digest, int]:
        """Keep a blob of up to 64 INLINE_BYTES that comes as chunks; return its digest and size in bytes."""
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > 64 * INLINE_BYTES:
                raise TooLarge(f"a blob over {64 * INLINE_BYTES} bytes can't come over REST; use the Python client")
        if not self.house.has_room(len(data)):
            raise HubFull
        content = bytes(data)
        digest = await self.house.off_loop(lambda: self.blobs.keep_bytes(content))
        assert digest == blake3.blake3(content).hexdigest()
        return digest, len(content)

    def tokens(self) -> list[Token]:
        return self._tokens.all()

    async def create_token(self, role: Role, name: str) -> tuple[Token, str]:
        """Make a token; return it with its secret, which is shown once and not kept."""
        token, secret = self._tokens.make(role, name)
        self.journal.append(AddToken(token))
        await self.journal.barrier()
        return token, secret

    async def revoke_token(self, token_id: str) -> None:
        """Revoke a token and close its links; raises NotFound."""
        token = self._tokens.revoke(token_id)
        self.journal.append(RevokeToken(token_id))
        for shell in self._shells():
            if shell.token.id == token.id:
                shell.close("this token was revoked")
        await self.journal.barrier()

    def counts(self) -> dict[str, int]:
        """Return numbers for the overview and for metrics."""
        return {
            "nodes": len(self._nodes),
            "clients": len(self._clients),
            "jobs_unfinished": len(self.book.specs),
            "sessions": len(self.sessions),
            "commits": self.journal.commits,
        }


def _owner(token: Token) -> str | None:
    """Whose jobs the token may see: None means everyone's."""
    return None if token.role == "admin" else token.id
