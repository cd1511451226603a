"""One connected client: its frames in, its results and progress out."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fallow.hub.core.blob_desk import BlobDesk
from fallow.hub.core.watch import Watch
from fallow.link.frames import (
    PROTOCOL_VERSION,
    Accepted,
    AddInput,
    Answer,
    Ask,
    CancelTasks,
    ClientHello,
    CreateJob,
    Goodbye,
    JobCreated,
    Progress,
    Refused,
    ReleaseJob,
    Results,
    Seal,
    Unwatch,
    WaitingBecause,
)
from fallow.link.frames import (
    Watch as WatchFrame,
)
from fallow.link.link import Link
from fallow.model.changes import HoldBlob
from fallow.model.errors import BadRequest, FallowError, JobNotFound
from fallow.model.ids import Digest, JobId
from fallow.model.job import JobInfo, JobProgress, ResultsOf
from fallow.model.page import StoredPage
from fallow.model.ranges import RangeSet
from fallow.model.token import Token

if TYPE_CHECKING:
    from fallow.hub.core.hub import Hub
    from fallow.hub.core.sessions import Session

READ_BYTES = 4 << 20
"""Result bytes read from the state at a time for one watch."""

_encode = msgspec.msgpack.Encoder().encode


class ClientShell:
    """Loops: frame → hub → effects. Holds what this connection watches."""

    def __init__(self, hub: "Hub", link: Link, token: Token) -> None:
        self._hub = hub
        self._link = link
        self.token = token
        self.owner = None if token.role == "admin" else token.id
        self.session: Session | None = None
        self._watches: dict[JobId, dict[int, Watch]] = {}
        self._blobs = BlobDesk(hub.house, link, self._hold_blob, is_submitting=True)

    def on_frame(self, frame: Any) -> None:
        """Handle one frame; what is wrong with it is refused, and the link stays."""
        try:
            if self.session is None:
                self._hello(frame)
                return
            handler = _HANDLERS.get(type(frame))
            if handler is not None:
                handler(self, frame)
            elif not self._blobs.on_frame(frame):
                raise BadRequest(f"a client can't send {type(frame).__name__} here")
        except JobNotFound as error:
            job = _named_job(frame)
            if job is None:
                self._refuse(error, frame)
            else:
                self._hub.spawn(self._look_up_and_handle(job, frame))
        except FallowError as error:
            self._refuse(error, frame)

    async def _look_up_and_handle(self, job: JobId, frame: Any) -> None:
        """Handle a frame about a job that has left memory: it ended, perhaps before the hub was last started."""
        try:
            await self._hub.desk.settled(job, self.owner)
            _HANDLERS[type(frame)](self, frame)
        except FallowError as error:
            self._refuse(error, frame)

    def on_closed(self, reason: str) -> None:
        self._blobs.close()
        for job in self._watches:
            self._hub.unwatch(job, self)
        if self.session is not None and self.session.shell is self:
            self._hub.sessions.went(self.session)
        self._hub.client_gone(self)

    def close(self, reason: str) -> None:
        self._link.close(reason)

    # --- what the hub tells ---

    def tell_results(self, job: JobId, pages: tuple[StoredPage, ...]) -> None:
        for reader, watch in self._watches.get(job, {}).items():
            wanted = tuple(page for page in pages if watch.take(page))
            if wanted:
                self._link.send(Results(job, reader, wanted))

    def tell_progress(self, job: JobId, progress: JobProgress) -> None:
        self._link.send(Progress(job, progress))

    def tell_waiting(self, job: JobId, reasons: list[str]) -> None:
        self._link.send(WaitingBecause(job, tuple(reasons)))

    # --- frames ---

    def _hello(self, hello: Any) -> None:
        if not isinstance(hello, ClientHello):
            raise BadRequest("the first frame of a client must be ClientHello")
        if hello.version != PROTOCOL_VERSION:
            raise BadRequest(
                f"this client speaks protocol {hello.version}, the hub {PROTOCOL_VERSION}: install the same Fallow on both"
            )
        if not 0 < len(hello.session) <= 64 or not hello.session.isalnum():
            raise BadRequest("a session id is up to 64 letters and digits")
        self.session = self._hub.sessions.get(hello.session, self.token.id)
        self._hub.sessions.came(self.session, self)
        self._link.send(self._hub.welcome())

    def _hold_blob(self, digest: Digest) -> None:
        assert self.session is not None
        self._hub.journal.append(HoldBlob(digest, self.session.id))

    def _create_job(self, frame: CreateJob) -> None:
        assert self.session is not None
        spec = msgspec.structs.replace(frame.spec, session=self.session.id, owner=self.token.id)
        job, is_new = self._hub.desk.open_job(spec, frame.if_exists)
        live = self._hub.book.specs.get(job)
        if is_new or spec.name is None or (live is not None and live.session == self.session.id):
            self.session.jobs.add(job)  # else it is fed by another session, and must not be sealed when this one ends
        self._interest(job)
        if frame.size is not None and job == spec.id:
            self._hub.desk.seal(job, frame.size)

        async def answer() -> None:
            info = await self._hub.desk.job_info(job)
            await self._hub.journal.barrier()
            self._link.send(JobCreated(frame.spec.id, info))

        if is_new and spec.name is None:
            info = JobInfo(spec=spec, progress=self._hub.scheduler.progress(job))
            self._hub.journal.after_commit(lambda: self._link.send(JobCreated(job, info)))
        else:
            self._hub.spawn(answer())

    def _add_input(self, frame: AddInput) -> None:
        page = frame.page
        self._hub.book.spec_owned_by(page.job, self.owner)
        reached = self._hub.desk.add_input(page)
        self._hub.journal.after_commit(lambda: self._inputs_durable(page.job, reached), is_urgent=False)

    def _inputs_durable(self, job: JobId, stop: int) -> None:
        self._link.send_later(job, Accepted(job, stop))

    def _seal(self, frame: Seal) -> None:
        self._hub.book.spec_owned_by(frame.job, self.owner)
        self._hub.desk.seal(frame.job, frame.size)

    def _watch(self, frame: WatchFrame) -> None:
        if self._hub.desk.settled_of_live(frame.job) is not None:
            self._hub.book.spec_owned_by(frame.job, self.owner)
            self._extend(frame)
        else:
            self._hub.spawn(self._look_up_and_extend(frame))

    async def _look_up_and_extend(self, frame: WatchFrame) -> None:
        try:
            await self._hub.desk.settled(frame.job, self.owner)
        except FallowError as error:
            self._refuse(error, frame)
            return
        self._extend(frame)

    def _extend(self, frame: WatchFrame) -> None:
        watch = self._interest(frame.job).setdefault(frame.reader, Watch())
        watch.extend(frame.start, frame.stop, frame.credit_bytes)
        self._feed(frame.job, frame.reader, watch)

    def _interest(self, job: JobId) -> dict[int, Watch]:
        watches = self._watches.get(job)
        if watches is None:
            watches = self._watches[job] = {}
            self._hub.watch(job, self)
            self._hub.spawn(self._tell_first_progress(job))
        return watches

    async def _tell_first_progress(self, job: JobId) -> None:
        with contextlib.suppress(FallowError):  # who asked for results of an unknown job is told so there
            info = await self._hub.desk.job_info(job, self.owner)
            if info.progress.settled or info.progress.ended:
                self.tell_progress(job, info.progress)

    def _feed(self, job: JobId, reader: int, watch: Watch) -> None:
        """Send what is settled already from the state, if anything is."""
        if watch.is_reading or not watch.want:
            return
        settled = self._hub.desk.settled_of_live(job)
        if settled is not None and not watch.ready(settled):
            return
        watch.is_reading = True
        self._hub.spawn(self._read(job, reader, watch))

    async def _read(self, job: JobId, reader: int, watch: Watch) -> None:
        hub = self._hub
        try:
            while self._watches.get(job, {}).get(reader) is watch:
                try:
                    settled = await hub.desk.settled(job, self.owner)
                except FallowError as error:
                    self._link.send(Refused(error.code, str(error), job, reader=reader))
                    return
                wanted = watch.ready(settled)
                if not wanted:
                    return
                await hub.journal.barrier()
                budget = max(1, min(READ_BYTES, watch.credit_bytes))
                pages, _ = await hub.read(partial(hub.state.result_pages, job, wanted, limit_bytes=budget))
                chosen = [page for page in pages if watch.take(page)]
                for page in chosen:  # a frame each: together they may be over the limit of a message
                    self._link.send(Results(job, reader, (page,)))
                if not chosen and any(watch.want.within(a, b) for a, b in wanted):
                    return  # no credit; the next Watch goes on
        finally:
            watch.is_reading = False

    def _unwatch(self, frame: Unwatch) -> None:
        self._watches.get(frame.job, {}).pop(frame.reader, None)

    def _forget(self, job: JobId) -> None:
        if self._watches.pop(job, None) is not None:
            self._hub.unwatch(job, self)

    def _cancel_tasks(self, frame: CancelTasks) -> None:
        self._hub.book.spec_owned_by(frame.job, self.owner)
        if frame.ranges is None:
            self._hub.desk.cancel(frame.job)
            return
        try:
            ranges = RangeSet.from_flat(frame.ranges)
        except ValueError as error:
            raise BadRequest("ranges of tasks come as pairs of numbers") from error
        self._hub.desk.cancel_tasks(frame.job, ranges)

    def _release_job(self, frame: ReleaseJob) -> None:
        spec = self._hub.book.spec_owned_by(frame.job, self.owner)
        if self.session is not None:
            self.session.jobs.discard(frame.job)
        self._forget(frame.job)
        if spec.name is None or frame.delete:
            self._hub.desk.delete(spec)

    def _goodbye(self, frame: Goodbye) -> None:
        assert self.session is not None
        self._hub.sessions.expire(self.session)
        self._link.close("goodbye")

    def _ask(self, frame: Ask) -> None:
        self._hub.spawn(self._answer(frame))

    async def _answer(self, ask: Ask) -> None:
        hub, token = self._hub, self.token
        value: Any
        try:
            match ask.what:
                case "job":
                    value = await hub.front.job(ask.argument, token)
                case "jobs":
                    value = await hub.front.jobs(token)
                case "nodes":
                    value = hub.nodes()
                case "explain":
                    value = await hub.front.explain(ask.argument, token)
                case "running":
                    value = await hub.front.running(ask.argument, token)
                case "logs":
                    value = await hub.front.logs(ask.argument, token, after=ask.after)
                case _:
                    raise BadRequest(f"unknown question {ask.what!r}")
        except FallowError as error:
            self._refuse(error, ask)
            return
        self._link.send(Answer(ask.request, msgspec.Raw(_encode(value))))

    def _refuse(self, error: FallowError, frame: Any) -> None:
        job = getattr(frame, "job", None)
        start = None
        if isinstance(frame, AddInput):
            job, start = frame.page.job, frame.page.start
        elif isinstance(frame, CreateJob):
            job = frame.spec.id
        elif isinstance(frame, Seal):
            start = frame.size  # behind its last page, which may have been refused too
        request, reader = getattr(frame, "request", None), getattr(frame, "reader", None)
        self._link.send(Refused(error.code, str(error), job, request, start, reader))
        if self.session is None:
            self._link.close(str(error))


_HANDLERS: dict[type, Callable[[ClientShell, Any], None]] = {
    CreateJob: ClientShell._create_job,
    AddInput: ClientShell._add_input,
    Seal: ClientShell._seal,
    WatchFrame: ClientShell._watch,
    Unwatch: ClientShell._unwatch,
    CancelTasks: ClientShell._cancel_tasks,
    ReleaseJob: ClientShell._release_job,
    Ask: ClientShell._ask,
    Goodbye: ClientShell._goodbye,
}
"""By frame; of the class, so that a shell holds nothing that holds it."""


def _named_job(frame: Any) -> JobId | None:
    """Return the job that a frame is about, or goes on from; None if it is about none."""
    match frame:
        case AddInput():
            return frame.page.job
        case Seal() | CancelTasks() | ReleaseJob():
            return frame.job
        case CreateJob() if isinstance(frame.spec.inputs, ResultsOf):
            return frame.spec.inputs.parent
    return None
