"""The agent: keeps a link to the hub and turns frames into work for slots. A shell: the work itself is the dispatcher's."""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from fallow.link.frames import (
    PROTOCOL_VERSION,
    Acknowledged,
    Beat,
    Cancel,
    CheckpointKept,
    Forget,
    Grant,
    NodeChanged,
    NodeHello,
    PageSent,
    PageWanted,
    Presents,
    Recall,
    Refused,
    Returned,
    SpecSent,
    SpecWanted,
    TaskBroke,
    Welcome,
)
from fallow.link.link import Link
from fallow.log import Logger
from fallow.model.changes import LogEntry
from fallow.model.errors import BY_CODE, BadRequest, Denied, FallowError, HubFull
from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, LeaseId, NodeId
from fallow.model.lease import HeldLease
from fallow.model.levels import LEVELS
from fallow.model.node import NodeInfo
from fallow.model.page import ResultPage
from fallow.model.ranges import Range, RangeSet
from fallow.node import benchmark, environment, machine, platform
from fallow.node.blobs import NodeBlobs
from fallow.node.cache import BlobCache
from fallow.node.checkpoints import Checkpoints
from fallow.node.dispatcher import Dispatcher
from fallow.node.large_results import LargeResults
from fallow.node.off_loop import OffLoop
from fallow.node.outbox import Outbox
from fallow.node.probing import Prober
from fallow.node.settings import NodeSettings
from fallow.node.spool import Spool

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 30.0
"""Wait between attempts to connect: doubled each time, times a random factor of 0.5 to 1.5, so that the nodes of a hub
that comes back do not come all at once."""
HELLO_TIMEOUT_S = 15.0
"""A hub that accepts the connection answers the hello within this."""
PROGRESS_S = 2.0
"""What tasks say of their progress is told no more often, in a heartbeat."""
PROBE_AFTER_S = 1.0
"""The sandboxes that tasks don't have by default are tried so long after the node has joined: first it has work to do."""
HOUSEKEEPING_S = 10.0
"""How often free disk space is looked at, and the cache trimmed."""
CLOSE_WAIT_S = 2.0
"""How long `stop` waits for the last frames to leave."""

_log = Logger("fallow.node")


class Agent:
    """One node. `run` until `stop`, on one event loop, which may run in any thread."""

    def __init__(self, settings: NodeSettings, connect: Callable[[], Awaitable[Link]]) -> None:
        """connect: opens a link to the hub; raises Denied if it never will (not retried), other FallowErrors or OSError
        if it may later.
        """
        self._settings = settings
        self._connect = connect
        self._link: Link | None = None
        self._is_welcome = False
        self._was_welcome = False
        self._closed: asyncio.Future[str] | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._settled = asyncio.Event()
        self._is_running = False
        self._lock: IO[bytes] | None = None
        self._node: NodeId
        self._info: NodeInfo
        self._refusals: dict[str, str] = {}
        self._benchmark: asyncio.Task[None] | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._beats_with_leases = False
        self._beats_soon = False
        self._beat_mono = float("-inf")
        self._housekeeping_timer: asyncio.TimerHandle | None = None
        self._heartbeat_s = 5.0
        self._idle_heartbeat_s = 30.0
        self._off_loop = OffLoop()
        self._cache = BlobCache(settings.folder / "cache", settings.cache_bytes, settings.memory_folder)
        self._blobs = NodeBlobs(
            self._cache,
            self._off_loop,
            on_arrived=self._blob_arrived,
            on_missing=self._blob_missing,
            on_kept=self._blob_kept,
            on_lost=self._blob_lost,
            is_result=lambda digest: self._outbox.needs(digest),  # noqa: PLW0108 - it is made below
            is_input=lambda digest: self._dispatcher.needs(digest),  # noqa: PLW0108
            is_checkpoint=lambda digest: self._checkpoints.is_on_its_way(digest),  # noqa: PLW0108
        )
        self._outbox = Outbox(Spool(settings.folder / "spool" if settings.spool else None), self._blobs.offer)
        self._large = LargeResults(settings, self._cache, self._blobs, self._outbox)
        self._checkpoints = Checkpoints(
            self._cache,
            self._blobs,
            self._send,
            lambda digest: self._dispatcher.needs(digest) or self._outbox.needs(digest),
            lambda: self._dispatcher.checkpoint_taken(),  # noqa: PLW0108 - it is made below
        )
        self._dispatcher = Dispatcher(settings, self, self._off_loop, self._checkpoints)
        self._probes = settings.probes
        self._prober = Prober(settings, self._dispatcher.pool.sandbox)
        self._probing: asyncio.Task[None] | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            Welcome: self._welcome,
            Grant: self._grant,
            PageSent: lambda frame: self._dispatcher.add_pages(frame.job, frame.pages),
            SpecSent: self._spec,
            Recall: self._recall,
            Cancel: self._cancel,
            Acknowledged: self._acknowledged,
            CheckpointKept: self._checkpoints.kept,
            Forget: lambda frame: self._dispatcher.forget(frame.job),
            Refused: self._refused,
        }

    # --- life ---

    async def run(self) -> None:
        """Serve the hub until `stop`, connecting again whenever the link breaks.

        Raises Denied if the hub refuses the credentials, BadRequest if it refuses this program before it ever
        joined (another protocol version), StateInUse if another agent uses the folder.
        """
        self._is_running = True
        try:
            self._open()
            await self._find_python()
            await self._choose_sandbox()
            await self._serve()
        finally:
            measuring = [task for task in (self._probing, self._benchmark) if task is not None]
            for task in measuring:
                task.cancel()
            await asyncio.gather(*measuring, return_exceptions=True)  # they end the processes that they have started
            self._close()
            self._ended.set()

    async def stop(self, *, drain: bool = False) -> None:
        """End `run`: give back what is not finished, kill all slots and what they started, remove what is temporary.

        drain: take no more, but let running tasks finish and be acknowledged first.
        """
        if not self._is_running:
            return
        if drain and not self._stopping.is_set():
            self._refuse_leases("drain", "it is being stopped")
            self._return(self._dispatcher.return_unstarted())
            while not (self._ended.is_set() or self._is_done):
                self._outbox.flush()
                self._settled.clear()
                await self._settled.wait()
        self._stopping.set()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result("stopped")
        await self._ended.wait()

    @property
    def _is_done(self) -> bool:
        """Whether no task runs and the hub has all results."""
        return not self._dispatcher.is_busy and self._large.is_empty and self._outbox.is_empty

    def _open(self) -> None:
        folder = self._settings.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = platform.lock_file(folder / "lock")
        id_file = folder / "node-id"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(16))
        self._node = NodeId(id_file.read_text().strip())
        self._dispatcher.pool.use(self._prober.candidates()[0])
        self._cache.open()  # before the slots: a sandbox gives them what is there as they start
        self._dispatcher.open()  # soon: slots start while the link is made
        self._outbox.open()
        self._housekeep()

    async def _find_python(self) -> None:
        minor = f"{sys.version_info.major}.{sys.version_info.minor}"
        if self._settings.python != sys.executable:
            process = await asyncio.create_subprocess_exec(
                self._settings.python,
                "-c",
                "import sys; print('%d.%d' % sys.version_info[:2])",
                stdout=asyncio.subprocess.PIPE,
                env=environment.without_secrets(os.environ),
            )
            minor = (await process.communicate())[0].decode().strip()
            if process.returncode != 0:
                raise BadRequest(f"{self._settings.python} is not a Python interpreter that works")
        info = machine.describe(self._settings, minor)
        builds, note = self._dispatcher.environments.describe()
        self._info = msgspec.structs.replace(info, builds=builds, notes={**info.notes, "environments": note})

    async def _choose_sandbox(self) -> None:
        """Prove the sandbox that tasks have here by default; slots start in it meanwhile."""
        pool, prober = self._dispatcher.pool, self._prober
        for level in prober.candidates():
            pool.use(level)
            if await prober.works(level):
                break
        else:
            reasons = "; ".join(f"{subject}: {note}" for subject, note in prober.notes().items() if level in subject)
            raise BadRequest(f"no sandbox that tasks may run in here works: {reasons}")
        self._levels_found()

    @property
    def direct_calls(self) -> Dispatcher:
        """Who takes direct calls (`run_directly`, `stop_directly`)."""
        return self._dispatcher

    def probe(self) -> None:
        """Find out now which sandboxes work, or once it has joined: a job asks for one."""
        self._probes = True
        if self._was_welcome and self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._probe(0))

    async def _probe(self, wait_s: float) -> None:
        """Try the other sandboxes, once there is time."""
        await asyncio.sleep(wait_s)
        for level in LEVELS:
            if await self._prober.works(level):
                self._levels_found()
        self._levels_found()

    def _levels_found(self) -> None:
        self._dispatcher.pool.levels = levels = self._prober.levels
        notes = self._info.notes | {"limits": self._dispatcher.pool.limits.how}
        notes = {subject: note for subject, note in notes.items() if not subject.startswith("sandbox ")}
        found = msgspec.structs.replace(self._info, sandboxes=levels, notes=notes | self._prober.notes())
        if found != self._info:
            self._info = found
            if self._is_welcome:
                self._tell_changed()

    async def _serve(self) -> None:
        backoff = FIRST_BACKOFF_S
        while not self._stopping.is_set():
            try:
                link = await self._until_stopped(self._connect())
                if link is None:
                    return
                reason = await self._talk(link)
            except Denied:
                raise
            except (FallowError, OSError, TimeoutError) as error:
                if isinstance(error, BadRequest) and not self._was_welcome:
                    raise
                reason = str(error)
            if self._is_welcome:
                backoff = FIRST_BACKOFF_S
            self._is_welcome = False
            if self._stopping.is_set():
                return
            wait = backoff * random.uniform(0.5, 1.5)
            _log.info("not connected", reason=reason, retry_s=round(wait, 1))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
            backoff = min(backoff * 2, MAX_BACKOFF_S)

    async def _until_stopped(self, work: Awaitable[Link]) -> Link | None:
        """Await `work`, but not beyond `stop`."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return None
            return task.result()
        finally:
            for each in (task, stopping):
                each.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    async def _talk(self, link: Link) -> str:
        """Serve one link until it is gone; return why it went."""
        loop = asyncio.get_running_loop()
        closed = self._closed = loop.create_future()
        if self._stopping.is_set():  # while the link was made
            closed.set_result("stopped")
        gone = loop.create_future()

        def on_closed(reason: str) -> None:
            if not gone.done():
                gone.set_result(None)
            if not closed.done():
                closed.set_result(reason)

        self._link = link
        link.start(self._on_frame, on_closed)
        link.send(NodeHello(PROTOCOL_VERSION, self._node, self._info))
        patience = loop.call_later(HELLO_TIMEOUT_S, self._hello_unanswered)
        try:
            reason: str = await closed
            return reason
        finally:
            patience.cancel()
            if self._stopping.is_set():
                self._say_goodbye()
            self._link = None
            self._outbox.disconnected()
            self._blobs.disconnected()
            if self._beat_timer is not None:
                self._beat_timer.cancel()
            link.close("the node stops" if self._stopping.is_set() else "")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone, CLOSE_WAIT_S)

    def _say_goodbye(self) -> None:
        self._dispatcher.pool.close()
        if self._is_welcome:
            self._outbox.flush()
            self._return(self._dispatcher.return_unfinished())

    def _hello_unanswered(self) -> None:
        if not self._is_welcome and self._closed is not None and not self._closed.done():
            self._closed.set_result("the hub does not answer")

    def _close(self) -> None:
        for timer in (self._beat_timer, self._housekeeping_timer):
            if timer is not None:
                timer.cancel()
        self._large.close()
        if self._lock is None:
            return  # the folder is another agent's
        self._dispatcher.close()
        self._blobs.close()
        self._checkpoints.close()
        self._outbox.close()
        self._off_loop.close()
        self._lock.close()

    # --- frames ---

    def _on_frame(self, frame: Any) -> None:
        handler = self._handlers.get(type(frame))
        try:
            if handler is not None:
                handler(frame)
            elif not self._blobs.on_frame(frame):
                _log.warning("unexpected frame", frame=type(frame).__name__)
        except FallowError as error:
            _log.warning("frame refused", frame=type(frame).__name__, error=str(error))

    def _welcome(self, welcome: Welcome) -> None:
        link = self._link
        if link is None:
            return  # it is being closed
        if welcome.version != PROTOCOL_VERSION:
            self._refused(
                Refused("bad_request", f"the hub speaks protocol {welcome.version}, this node {PROTOCOL_VERSION}")
            )
            return
        is_first = not self._was_welcome
        self._is_welcome = self._was_welcome = True
        self._heartbeat_s, self._idle_heartbeat_s = welcome.heartbeat_s, welcome.idle_heartbeat_s
        self._blobs.connected(link, welcome)
        self._outbox.connected(link)
        link.send(Presents(tuple(self._held()), is_first))
        self._checkpoints.connected()
        if self._refusals:
            self._tell_changed()
        self._dispatcher.resume()
        self._beat()
        if self._probes and self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._probe(PROBE_AFTER_S))
        if self._settings.benchmark and self._benchmark is None:
            self._benchmark = asyncio.get_running_loop().create_task(self._measure())

    def _grant(self, grant: Grant) -> None:
        self._checkpoints.granted(grant.lease.job, grant.checkpoints)
        self._dispatcher.grant(grant.lease, grant.spec, grant.pages)
        if not self._beats_with_leases:
            self._schedule_beat()

    def _spec(self, frame: SpecSent) -> None:
        self._dispatcher.add_spec(frame.spec)
        self._dispatcher.dispatch()

    def _recall(self, recall: Recall) -> None:
        job, ranges = self._dispatcher.recall(recall.lease, recall.count)
        if job is not None:
            self._send(Returned(recall.lease, job, tuple(RangeSet(ranges).flat())))

    def _cancel(self, cancel: Cancel) -> None:
        flat = cancel.ranges
        ranges = list(zip(flat[::2], flat[1::2], strict=False)) if flat else None
        self._dispatcher.cancel(cancel.job, ranges)

    def _acknowledged(self, frame: Acknowledged) -> None:
        self._outbox.acknowledged(frame.number)
        if not self._settled.is_set():
            self._settled.set()

    def _refused(self, refused: Refused) -> None:
        if self._is_welcome:
            _log.warning("the hub refused something", code=refused.code, error=refused.message)
            if refused.code == HubFull.code:
                self._blobs.offers_refused()
        elif self._closed is not None and not self._closed.done():
            self._closed.set_exception(BY_CODE.get(refused.code, BadRequest)(refused.message))

    def _send(self, frame: Any) -> None:
        if self._link is not None:
            self._link.send(frame)

    def _return(self, returned: Sequence[tuple[LeaseId, JobId, list[Range]]]) -> None:
        for lease, job, ranges in returned:
            self._send(Returned(lease, job, tuple(RangeSet(ranges).flat())))

    def _held(self) -> list[HeldLease]:
        """Return every lease that has tasks which the hub has no result of."""
        held = {each.id: each for each in self._dispatcher.held()}
        for (lease, job), ranges in self._undelivered().items():
            known = held.get(lease)
            for start, stop in () if known is None else zip(known.unfinished[::2], known.unfinished[1::2], strict=True):
                ranges.add(start, stop)
            held[lease] = HeldLease(lease, job, tuple(ranges.flat()))
        return list(held.values())

    def _undelivered(self) -> dict[tuple[LeaseId, JobId], RangeSet]:
        out = self._outbox.undelivered()
        for lease, job, start, stop in self._large.undelivered():
            out.setdefault((lease, job), RangeSet()).add(start, stop)
        return out

    # --- heartbeats and housekeeping ---

    def _beat(self) -> None:
        leases = {*self._dispatcher.lease_ids(), *(lease for lease, _ in self._undelivered())}
        self._send(Beat(tuple(self._dispatcher.running()), tuple(leases)))
        self._beats_soon, self._beat_mono = False, time.monotonic()
        self._schedule_beat()

    def _schedule_beat(self) -> None:
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._beats_with_leases = self._dispatcher.has_leases
        wait = self._heartbeat_s if self._beats_with_leases else self._idle_heartbeat_s
        self._beat_timer = asyncio.get_running_loop().call_later(wait, self._beat)

    def _housekeep(self) -> None:
        self._housekeeping_timer = asyncio.get_running_loop().call_later(HOUSEKEEPING_S, self._housekeep)
        self._check_disk()
        self._outbox.offer_again()
        self._cache.trim(lambda digest: self._dispatcher.needs(digest) or self._outbox.needs(digest))
        self._dispatcher.trim_environments()

    def _check_disk(self) -> None:
        free = shutil.disk_usage(self._settings.folder).free
        if free < self._settings.reserve_bytes:
            self._refuse_leases(
                "disk",
                f"disk full: {free >> 20} MiB are free, {self._settings.reserve_bytes >> 20} MiB are kept in reserve",
            )
        else:
            self._refuse_leases("disk", None)

    def _refuse_leases(self, cause: str, reason: str | None) -> None:
        """Take no new leases for this reason; None: the cause is gone."""
        if self._refusals.get(cause) == reason or (reason is not None and cause in self._refusals):
            return
        if reason is None:
            del self._refusals[cause]
        else:
            self._refusals[cause] = reason
        if self._is_welcome:
            self._tell_changed()

    def _tell_changed(self) -> None:
        self._send(NodeChanged(self._info, not self._refusals, "; ".join(self._refusals.values())))

    async def _measure(self) -> None:
        score = await benchmark.measure(self._settings.python, environment.without_secrets(os.environ))
        if score is not None:
            self._info = msgspec.structs.replace(self._info, score=score)
            if self._is_welcome:
                self._tell_changed()

    # --- what blobs do ---

    def _blob_arrived(self, digest: Digest) -> None:
        self._dispatcher.blob_arrived(digest)

    def _blob_missing(self, digest: Digest, reason: str) -> None:
        self._dispatcher.blob_missing(digest, reason)

    def _blob_kept(self, digest: Digest) -> None:
        self._outbox.blob_kept(digest)
        self._checkpoints.blob_kept(digest)

    def _blob_lost(self, digest: Digest) -> None:
        self._outbox.blob_lost(digest)
        self._checkpoints.blob_lost(digest)

    # --- what the dispatcher asks for ---

    def fetch(self, digest: Digest, *, own: bool = False) -> Path | None:
        return self._blobs.fetch(digest, own=own)

    def want_spec(self, job: JobId) -> None:
        self._send(SpecWanted(job))

    def want_pages(self, job: JobId, start: int, stop: int) -> None:
        self._send(PageWanted(job, start, stop))

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
        if path is None and not files:
            self._outbox.add(lease, job, page, at_once=at_once)
        else:
            self._large.take(lease, job, page, path, files, at_once=at_once)

    def broke(self, lease: LeaseId, job: JobId, failure: Failure) -> None:
        _log.info("task broke", job=job, index=failure.index, kind=failure.kind, how=failure.message)
        self._outbox.broke(TaskBroke(lease, job, failure))

    def printed(self, job: JobId, entries: Sequence[LogEntry]) -> None:
        self._outbox.add_printed(job, entries)

    def slots_unavailable(self, reason: str | None) -> None:
        self._refuse_leases("slots", reason)

    def progressed(self) -> None:
        """Tell it soon, however many tasks say something meanwhile."""
        if self._is_welcome and self._beat_timer is not None and not self._beats_soon:
            self._beats_soon = True
            wait = max(0.0, self._beat_mono + PROGRESS_S - time.monotonic())
            self._beat_timer.cancel()
            self._beat_timer = asyncio.get_running_loop().call_later(wait, self._beat)

    def settled(self) -> None:
        self._settled.set()
