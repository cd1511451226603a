"""The hub: carries out what the scheduler decides, and answers clients, nodes and the web."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import fallow
from fallow.hub.core.blob_house import BlobHouse
from fallow.hub.core.checkpoints import CheckpointDesk
from fallow.hub.core.client_shell import ClientShell
from fallow.hub.core.events import EventBoard
from fallow.hub.core.front import Front
from fallow.hub.core.job_book import JobBook, ended_view
from fallow.hub.core.job_desk import JobDesk
from fallow.hub.core.journal import REOPENING, Journal
from fallow.hub.core.node_shell import NodeShell
from fallow.hub.core.orphans import sweep_orphans
from fallow.hub.core.recovery import absent_parents, restore
from fallow.hub.core.sessions import Session, SessionBook
from fallow.hub.core.settings import HubSettings
from fallow.hub.core.tokens import TokenBook
from fallow.link.frames import PROTOCOL_VERSION, Welcome
from fallow.link.link import Link
from fallow.log import Logger
from fallow.model.changes import (
    AddResults,
    AddToken,
    EndJob,
    RevokeToken,
    SaveSettled,
    SealJob,
)
from fallow.model.errors import Unavailable
from fallow.model.events import NodeLost
from fallow.model.ids import JobId, NodeId
from fallow.model.job import Counting, JobProgress, JobSpec, ResultsOf
from fallow.model.lease import Lease, RunningView
from fallow.model.node import NodeInfo
from fallow.model.node_view import NodeView
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

PROGRESS_S = 0.2
"""How often watchers hear of progress while a job runs."""
RECOVERY_RETRY_S = 1.0
REOPENING_FIRST_S = 0.1
REOPENING_MOST_S = 10.0
"""Waits before the state is opened again double from the first to the most, while it is refused soon after the last time."""
REOPENING_CALM_S = 60.0
"""After this long without a refusal, the next one is the first again, and is not waited for."""
PARTIALS_S = 24 * 3600.0
"""Uploads that broke off, and files that nobody came to adopt, are kept so long for whoever sent them."""
STALL_S = 1.0
"""A timer that fires later than this says that the hub was busy: heartbeats wait in its sockets."""
HOUSEKEEPING_S = 60.0
"""How often retention is checked."""
RUNNING_SHOWN = 1_000
"""Running tasks of one job that are told of at a time."""
LISTED_ENDED_JOBS = 100_000
"""Ended named jobs whose names are indexed at start."""

T = TypeVar("T")
_log = Logger("fallow.hub")


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
        self.desk = JobDesk(self)
        self.checkpoints = CheckpointDesk(self)
        self.front = Front(self)
        self.epoch = 0
        self._state_id = 0
        self.new_secrets: dict[Role, str] = {}
        """Tokens made by this start, to be shown once."""
        self._tokens = TokenBook()
        self._nodes: dict[NodeId, NodeShell] = {}
        self._clients: set[ClientShell] = set()
        self.watchers: dict[JobId, set[ClientShell]] = {}
        self.changed: set[JobId] = set()
        self._looked_at: set[JobId] = set()
        """Jobs whose watchers will be told if no node can run them."""
        self._progress_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        """When `_timer` fires: a loop may answer a time that is past with a handle that does not say."""
        self._hears_first = False
        """Whether the timer fired late: the hub was busy, and hears what came meanwhile before it calls a node lost."""
        self._ending: dict[JobId, SaveSettled] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_recovering = False
        self._reopened_mono = -math.inf
        self._reopening_s = 0.0

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
        self.spawn(sweep_orphans(self.house, self.state, self._state_id))

    async def _open_state(self) -> None:
        recovered = await self.house.off_loop(self.state.recover)
        self.epoch = recovered.epoch
        self._state_id = recovered.state_id
        self._unix_offset_s = time.time() - self.now()
        self.scheduler = Scheduler(epoch=recovered.epoch, unix_offset_s=self._unix_offset_s)
        self.journal.start()
        await self._restore(recovered)
        for session_id in recovered.sessions:
            if not self.sessions.has(session_id):  # only blobs are left of it
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
        parents = {}
        for parent in absent_parents(recovered):
            ended = await self.read(partial(self.state.find_job, parent))
            if ended is not None:
                parents[parent] = ended_view(ended)
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
            self._adopt_into_session(spec)
        self.checkpoints.restore(recovered)
        self.carry_out(restore(self.scheduler, recovered, parents, self.now()))

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
            if isinstance(error, Unavailable):
                return  # the state could not be written: links were closed, and whoever waited asks again
            _log.error("internal error", error=repr(error), exc_info=error)

    def check_open(self) -> None:
        """Raise Unavailable while the state is opened again: what is not in memory yet must not look as if it were gone."""
        if self._is_recovering:
            raise Unavailable(REOPENING)

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
        if self.now() - self._reopened_mono < REOPENING_CALM_S:  # whoever reconnects sends again what found no room
            self._reopening_s = min(max(REOPENING_FIRST_S, 2 * self._reopening_s), REOPENING_MOST_S)
            await asyncio.sleep(self._reopening_s)
        else:
            self._reopening_s = 0.0
        while True:
            _log.error("the state could not be written; opening it again", error=repr(error))
            self.sessions.close()
            self.sessions = SessionBook(self.settings.session_grace_s, self._session_expired)
            self.book = JobBook()
            self.desk = JobDesk(self)
            self.checkpoints = CheckpointDesk(self)
            self.watchers.clear()
            self.changed.clear()
            self._looked_at.clear()
            self._ending.clear()
            try:
                await self._open_state()  # not closed before: what is in memory would go, and `recover` connects anew
            except Exception as again:  # whatever a database raises: without its state the hub can do nothing else
                error = again
                await asyncio.sleep(RECOVERY_RETRY_S)
            else:
                self._is_recovering = False
                self._reopened_mono = self.now()
                return

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            # A wall clock that jumps ahead must not make everything look old.
            limit = min(time.time(), self.now() + self._unix_offset_s) - self.settings.retention_s
            try:
                for job in await self.read(partial(self.state.ended_jobs, limit=1000, before=limit)):
                    self.desk.delete(job.spec)
                await self.house.off_loop(partial(self.blobs.sweep_partials, PARTIALS_S))
            except Exception as error:  # the state is being opened again; the next round makes up for it
                _log.warning("retention was not looked at", error=repr(error))

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

    def _session_expired(self, session: Session) -> None:
        self.desk.session_expired(session)

    def client_gone(self, shell: ClientShell) -> None:
        self._clients.discard(shell)

    def watch(self, job: JobId, shell: ClientShell) -> None:
        self.watchers.setdefault(job, set()).add(shell)
        if job in self.book.specs and job not in self._looked_at:
            self._looked_at.add(job)
            self._loop.call_later(self.settings.waiting_notice_s, self._tell_why_waiting, job)

    def unwatch(self, job: JobId, shell: ClientShell) -> None:
        watchers = self.watchers.get(job)
        if watchers is not None:
            watchers.discard(shell)
            if not watchers:
                del self.watchers[job]

    def _tell_why_waiting(self, job: JobId) -> None:
        """Tell the watchers of a job that no node can run why; look again while it waits behind other work."""
        self._looked_at.discard(job)
        watchers = self.watchers.get(job)
        if not watchers or not self.scheduler.has_job(job):
            return
        progress = self.scheduler.progress(job)
        if progress.leased or progress.settled == progress.accepted:
            return
        needs = self.book.specs[job].requirements
        if any(node.connected and node.accepting and not needs.unmet_by(node.info) for node in self.scheduler.nodes()):
            self._looked_at.add(job)
            self._loop.call_later(self.settings.waiting_notice_s, self._tell_why_waiting, job)
            return
        reasons = self.scheduler.explain(job)
        for shell in watchers:
            shell.tell_waiting(job, reasons)

    # --- tokens --------------------------------------------------------------------------------

    def authenticate(self, secret: str) -> Token | None:
        """Return whose secret this is, None if nobody's."""
        return self._tokens.authenticate(secret)

    def nodes(self) -> list[NodeView]:
        """Return the nodes, as shown to people."""
        return self.scheduler.nodes()

    def running(self, job: JobId) -> list[RunningView]:
        """Return the job's running tasks by index, RUNNING_SHOWN at most, as their nodes last said."""
        found = []
        for node, info, task in islice(self.scheduler.running(job, self.now()), RUNNING_SHOWN):
            shell = self._nodes.get(node)
            fraction, message = (None, "") if shell is None else shell.progress_of(task.lease, task.index)
            found.append(
                RunningView(
                    index=task.index, node=info.name, running_s=task.running_s, fraction=fraction, message=message
                )
            )
        return sorted(found, key=lambda each: each.index)

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

    # --- effects --------------------------------------------------------------------------------

    def carry_out(self, effects: Effects) -> None:
        """Do what the scheduler decided, in order; what must not be taken back is told once it is durable."""
        for effect in effects:
            match effect:
                case GrantLease():
                    self._grant(effect.node, effect.lease)
                case Persist():
                    self.journal.append(effect.change)
                    self._note_change(effect.change)
                case TellResults():
                    self._tell_results(effect)
                case TellProgress():
                    self._tell_progress(effect)
                case Tell():
                    self.journal.after_commit(partial(self.events.post, effect.event, time.time()), is_urgent=False)
                    if isinstance(effect.event, NodeLost) and (node := self._nodes.get(effect.event.node)) is not None:
                        node.close("not heard of for too long; connect again")  # its leases are others' now
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
                self.checkpoints.forget(change.job)
                self._job_ended(change)
            case SealJob():
                self.book.sizes[change.job] = change.size
                if change.input_ended:
                    self.book.sealed_early.add(change.job)
            case AddResults():
                for each in change.pages:
                    if each.page.blobs:
                        self.book.page_blobs.setdefault(change.job, set()).update(each.page.blobs)
                    self.checkpoints.settled(change.job, each.counts)
                if self.scheduler.has_job(change.job):
                    self.house.set_aside(self.desk.pages.drop_settled(change.job, self.scheduler.settled(change.job)))

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
        self.house.set_aside(self.desk.pages.forget(job))
        self.desk.end_reader(spec)

    def _grant(self, node: NodeId, lease: Lease) -> None:
        shell = self._nodes.get(node)
        if shell is None:
            return
        spec = self.book.specs[lease.job]
        if isinstance(spec.inputs, Counting):
            shell.grant(lease, [])
            return
        pages = self.desk.pages.covering(lease.job, lease.start, lease.stop)
        if pages is not None:
            shell.grant(lease, pages)
            return

        async def load_and_grant() -> None:
            shell.grant(lease, await self.desk.input_pages(lease.job, lease.start, lease.stop))

        self.spawn(load_and_grant())

    def _tell_results(self, effect: TellResults) -> None:
        """Hand out values at once; a crash may run their tasks again, but what was handed out stands.

        A partial of `reduce` waits for its commit: run again it may come with other bounds, and can't be counted in part.
        """
        waits = any(each.page.partial for each in effect.pages)
        for shell in self.watchers.get(effect.job, ()):
            if waits:
                self.journal.after_commit(partial(shell.tell_results, effect.job, effect.pages))
            else:
                shell.tell_results(effect.job, effect.pages)

    def _tell_progress(self, effect: TellProgress) -> None:
        if effect.ended:
            self.changed.discard(effect.job)
        watchers = self.watchers.get(effect.job)
        if not watchers:
            return
        if effect.ended:
            progress = self._progress(effect.job)
            if progress is not None:
                for shell in watchers:
                    self.journal.after_commit(partial(shell.tell_progress, effect.job, progress))
            return
        self.changed.add(effect.job)
        if self._progress_timer is None:
            self._progress_timer = self._loop.call_later(PROGRESS_S, self._tell_changed)

    def _tell_changed(self) -> None:
        self._progress_timer = None
        changed, self.changed = self.changed, set()
        for job in changed:
            progress = self._progress(job)
            if progress is not None:
                for shell in self.watchers.get(job, ()):
                    shell.tell_progress(job, progress)

    def _progress(self, job: JobId) -> JobProgress | None:
        view = self.book.ended(job)
        if view is not None:
            return view.info.progress
        return self.scheduler.progress(job) if self.scheduler.has_job(job) else None

    def _schedule_timer(self) -> None:
        deadline = self.scheduler.next_deadline()
        timer = self._timer
        if deadline is None or self._hears_first:
            return
        if timer is not None:
            if self._timer_at <= deadline:
                return  # it fires first and looks again
            timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._hears_first = not self._hears_first and self.now() - self._timer_at > STALL_S
        if self._hears_first:
            self._timer_at = self.now() + STALL_S
            self._timer = self._loop.call_at(self._timer_at, self._on_time)
            return
        self.carry_out(self.scheduler.on_time(self.now()))
