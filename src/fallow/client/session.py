"""The client's end of the link: what it has sent and not seen acknowledged, kept for sending again.

Runs on the event loop's thread (`engine.py`). After a broken connection it dials again, says who it is, and
repeats what was not acknowledged; creating a job and adding a page are idempotent, so repeating does no harm.
"""

import asyncio
import contextlib
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Container, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from fallow.client.blob_exchange import FULL_RETRY_S, BlobExchange
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
    Watch,
    Welcome,
)
from fallow.link.link import Link
from fallow.model.errors import BY_CODE, Closed, Denied, FallowError, HubFull, Unavailable
from fallow.model.ids import Digest, JobId, SessionId
from fallow.model.job import JobInfo, JobProgress, JobSpec
from fallow.model.page import InputPage, StoredPage
from fallow.model.ranges import RangeSet

RETRY_FIRST_S = 0.05
RETRY_MOST_S = 10.0
"""Waits between attempts to reach the hub again double from the first to the most, with jitter."""
CANCELLED_RANGES = 20_000
"""Ranges of tasks that one message may cancel: under 400 KB."""
GOODBYE_S = 2.0
"""How long leaving waits for the goodbye to be sent."""

T = TypeVar("T")
_log = logging.getLogger("fallow")


class Reader(Protocol):
    """What takes a job's results as they come; called on the loop's thread."""

    job: JobId
    number: int

    def on_pages(self, pages: tuple[StoredPage, ...], blobs: dict[Digest, Path | bytes]) -> None: ...

    def closing(self) -> None:
        """The jobs of this session go, and with them their files."""
        ...

    def on_error(self, error: BaseException) -> None: ...
    def missing(self) -> list[tuple[int, int]]: ...
    def credit_bytes(self) -> int: ...


class JobFeed:
    """One job as the session sends it: its spec, and the pages that are not acknowledged yet."""

    __slots__ = (
        "accepted", "created", "if_exists", "is_retrying", "on_accepted", "on_error", "on_progress", "released",
        "sealed", "size", "spec", "unacknowledged",
    )  # fmt: skip

    def __init__(
        self,
        spec: JobSpec,
        if_exists: str,
        on_progress: Callable[[JobProgress], None],
        on_error: Callable[[BaseException], None],
        on_accepted: Callable[[int], None],
        size: int | None = None,
    ) -> None:
        """size: of a job that counts."""
        self.spec = spec
        self.size = size
        self.if_exists = if_exists
        self.on_progress = on_progress
        self.on_error = on_error
        self.on_accepted = on_accepted
        self.created: asyncio.Future[JobInfo] = asyncio.get_running_loop().create_future()
        self.unacknowledged: deque[InputPage] = deque()
        self.accepted = 0
        self.sealed: int | None = None
        self.is_retrying = False
        self.released = False


class ClientSession:
    """One session with a hub, over however many connections it takes."""

    def __init__(self, session: SessionId, connect: Callable[[], Awaitable[Link]], python: str) -> None:
        """connect: opens a link; raises Denied (given up) or Unavailable (tried again)."""
        self.id = session
        self._connect = connect
        self._python = python
        self._link: Link | None = None
        self._is_up = False
        self._lost = asyncio.Event()
        self._welcomed: asyncio.Future[Welcome] | None = None
        self._feeds: dict[JobId, JobFeed] = {}
        self._readers: dict[int, Reader] = {}
        self._numbers = itertools.count(1)
        self._asks: dict[int, tuple[Ask, asyncio.Future[Any], Any]] = {}
        self.blobs = BlobExchange(self._send, self.spawn)
        self._unsent: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self.welcome: Welcome | None = None

    # --- connection -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect; raises Denied, Unavailable or BadRequest."""
        await self._dial()
        self._keeper = asyncio.create_task(self._keep_connected())

    async def _dial(self) -> None:
        link = await self._connect()
        self._link = link
        self._lost.clear()
        self._welcomed = asyncio.get_running_loop().create_future()
        link.start(self._on_frame, self._on_closed)
        link.send(ClientHello(PROTOCOL_VERSION, self.id, self._python))
        self.welcome = await self._welcomed
        self._is_up = True
        self.blobs.came(self.welcome)
        self._repeat()

    async def _keep_connected(self) -> None:
        wait_s = RETRY_FIRST_S
        while not self._closed:
            await self._lost.wait()
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            try:
                await self._dial()
            except Unavailable:
                wait_s = min(RETRY_MOST_S, wait_s * 2)
            except FallowError as error:
                self._give_up(error)
                return
            else:
                wait_s = RETRY_FIRST_S

    def _on_closed(self, reason: str) -> None:
        self._is_up = False
        self._link = None
        self.blobs.went()
        self._lost.set()
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_exception(Unavailable(f"the hub closed the connection: {reason}"))
            self._welcomed.exception()  # retrieved: open() may have been cancelled

    def _give_up(self, error: FallowError) -> None:
        """The hub refuses this client for good."""
        for feed in list(self._feeds.values()):
            feed.on_error(error)
        for reader in list(self._readers.values()):
            reader.on_error(error)
        waiting: list[asyncio.Future[Any]] = [future for _, future, _ in self._asks.values()]
        waiting += self.blobs.waiting()
        waiting += [feed.created for feed in self._feeds.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()

    def _repeat(self) -> None:
        """Send again what the last connection may have lost."""
        self.blobs.repeat_offers()
        for feed in self._feeds.values():
            if not feed.created.done():
                self._send(CreateJob(feed.spec, feed.if_exists, feed.size))
            for page in feed.unacknowledged:
                self._send(AddInput(page))
            if feed.sealed is not None:
                self._send(Seal(feed.spec.id, feed.sealed))
        for reader in self._readers.values():
            if reader.job in self._feeds:
                self._watch(reader)
        for ask, _, _ in self._asks.values():
            self._send(ask)
        self.blobs.repeat_wishes()
        unsent, self._unsent = self._unsent, []
        for frame in unsent:
            self._send(frame)

    def end_unnamed(self, kept: Container[JobId]) -> None:
        """End what would end with the session, except for these jobs; what is left goes on being sent."""
        for feed in list(self._feeds.values()):
            if feed.spec.name is None and feed.spec.id not in kept:
                feed.on_error(Closed())
                self.release(feed.spec.id)

    async def close(self) -> None:
        """Say goodbye: unnamed jobs are cancelled now."""
        self._closed = True
        for reader in self._readers.values():
            reader.closing()
        if self._link is not None:
            if self._is_up:
                self._link.send(Goodbye())
            self._link.close("goodbye")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), GOODBYE_S)
        self._lost.set()
        for task in [*self._tasks, *((self._keeper,) if self._keeper is not None else ())]:
            task.cancel()
        self._give_up(Closed())

    def _send(self, frame: Any, *, bulk: bool = False) -> None:
        if self._is_up and self._link is not None:
            self._link.send(frame, bulk=bulk)

    def _send_surely(self, frame: Any) -> None:
        if self._is_up:
            self._send(frame)
        else:
            self._unsent.append(frame)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- jobs -----------------------------------------------------------------------------------

    def create_job(self, feed: JobFeed) -> None:
        """Send a job; its blobs have been kept (`keep`). Pages may follow at once unless the job is named."""
        self._feeds[feed.spec.id] = feed
        self._send(CreateJob(feed.spec, feed.if_exists, feed.size))
        for reader in self._readers.values():
            if reader.job == feed.spec.id:
                self._watch(reader)

    def attach(self, feed: JobFeed, info: JobInfo) -> None:
        """Follow the progress of a job that exists, in place of the one that was asked for."""
        self._feeds.pop(feed.spec.id, None)
        feed.spec = info.spec
        self._feeds[info.spec.id] = feed
        if not feed.created.done():
            feed.created.set_result(info)
        self._send(Watch(info.spec.id, 0, 0, 0, 0))  # wants no results: makes the hub tell of progress

    def add_input(self, feed: JobFeed, page: InputPage) -> None:
        """Send a page; kept until it is acknowledged."""
        feed.unacknowledged.append(page)
        self._send(AddInput(page))

    def seal(self, feed: JobFeed, size: int) -> None:
        feed.sealed = size
        self._send(Seal(feed.spec.id, size))

    def cancel(self, job: JobId) -> None:
        if job in self._feeds:  # else `create_job` is under way, and who calls it looks
            self._send_surely(CancelTasks(job))

    def cancel_tasks(self, job: JobId, ranges: RangeSet) -> None:
        flat = ranges.flat()
        for at in range(0, len(flat), 2 * CANCELLED_RANGES):
            self._send_surely(CancelTasks(job, tuple(flat[at : at + 2 * CANCELLED_RANGES])))

    def release(self, job: JobId, *, delete: bool = False) -> None:
        """Nobody here holds the job any more."""
        feed = self._feeds.pop(job, None)
        if feed is not None:
            feed.released = True
        for number in [number for number, reader in self._readers.items() if reader.job == job]:
            del self._readers[number]
        if feed is not None or delete:
            self._send_surely(ReleaseJob(job, delete))

    # --- results --------------------------------------------------------------------------------

    def next_number(self) -> int:
        return next(self._numbers)

    def add_reader(self, reader: Reader) -> None:
        """Let results of its job come to this reader."""
        self._readers[reader.number] = reader
        if reader.job in self._feeds:  # else `create_job` is under way, and watches for it
            self._watch(reader)

    def _watch(self, reader: Reader) -> None:
        for start, stop in reader.missing():
            self._send(Watch(reader.job, reader.number, start, stop, 0))
        self._send(Watch(reader.job, reader.number, 0, 0, reader.credit_bytes()))

    def extend(self, reader: Reader, start: int, stop: int, credit_bytes: int) -> None:
        self._send(Watch(reader.job, reader.number, start, stop, credit_bytes))

    def remove_reader(self, reader: Reader) -> None:
        if self._readers.pop(reader.number, None) is not None:
            self._send(Unwatch(reader.job, reader.number))

    # --- questions ------------------------------------------------------------------------------

    async def ask(self, what: str, argument: str, answer: type[T] | Any, *, after: int = 0) -> T:
        """Ask the hub; raises the error that it answers with."""
        request = self.next_number()
        question = Ask(request, what, argument, after)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asks[request] = (question, future, answer)
        self._send(question)
        try:
            return await future
        finally:
            self._asks.pop(request, None)

    # --- frames ---------------------------------------------------------------------------------

    def _on_frame(self, frame: Any) -> None:
        match frame:
            case Results():
                self._results(frame)
            case Accepted():
                self._accepted(frame)
            case Progress():
                feed = self._feeds.get(frame.job)
                if feed is not None:
                    feed.on_progress(frame.progress)
            case JobCreated():
                feed = self._feeds.get(frame.asked)
                if feed is not None and not feed.created.done():
                    feed.created.set_result(frame.info)
            case Answer():
                asked = self._asks.get(frame.request)
                if asked is not None and not asked[1].done():
                    asked[1].set_result(msgspec.msgpack.decode(frame.value, type=asked[2]))
            case Refused():
                self._refused(frame)
            case WaitingBecause():
                feed = self._feeds.get(frame.job)
                if feed is not None:
                    _log.warning(
                        "%s is waiting: %s", feed.spec.name or feed.spec.function_name, "; ".join(frame.reasons)
                    )
            case Welcome():
                if self._welcomed is not None and not self._welcomed.done():
                    self._welcomed.set_result(frame)
            case _:
                self.blobs.on_frame(frame, self._link)

    def _results(self, frame: Results) -> None:
        reader = self._readers.get(frame.reader)
        if reader is None:
            return
        digests = [page.page.blob for page in frame.pages if page.page.blob is not None]
        if digests:
            self.spawn(self._results_with_blobs(reader, frame.pages, digests))
        else:
            reader.on_pages(frame.pages, {})

    async def _results_with_blobs(self, reader: Reader, pages: tuple[StoredPage, ...], digests: list[Digest]) -> None:
        try:
            blobs = {digest: await self.blobs.fetch(digest) for digest in digests}
        except FallowError as error:
            reader.on_error(error)
            return
        reader.on_pages(pages, blobs)

    def _accepted(self, frame: Accepted) -> None:
        feed = self._feeds.get(frame.job)
        if feed is None:
            return
        feed.accepted = max(feed.accepted, frame.stop)
        pages = feed.unacknowledged
        while pages and pages[0].stop <= frame.stop:
            pages.popleft()
        feed.on_accepted(frame.stop)

    def _refused(self, frame: Refused) -> None:
        error = BY_CODE.get(frame.code, FallowError)(frame.message)
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_exception(error)
            return
        if frame.request is not None:
            asked = self._asks.get(frame.request)
            if asked is not None and not asked[1].done():
                asked[1].set_exception(error)
            return
        if frame.reader is not None and (reader := self._readers.get(frame.reader)) is not None:
            reader.on_error(error)
            return
        feed = self._feeds.get(frame.job) if frame.job is not None else None
        if feed is None:
            if isinstance(error, Denied):
                self._give_up(error)
            return
        first = feed.unacknowledged[0].start if feed.unacknowledged else None
        # A seal may overtake its last page, which may be acknowledged before the refusal is read.
        is_behind = frame.start is not None and (feed.accepted == feed.sealed if first is None else frame.start > first)
        if frame.start is not None and (isinstance(error, HubFull) or is_behind):
            if not feed.is_retrying:  # what comes behind a refused page is refused too: one retry sends it all
                feed.is_retrying = True
                self.spawn(self._retry(feed))
            return
        feed.unacknowledged.clear()
        if not feed.created.done():
            feed.created.set_exception(error)
            feed.created.exception()
        feed.on_error(error)

    async def _retry(self, feed: JobFeed) -> None:
        await asyncio.sleep(FULL_RETRY_S)
        feed.is_retrying = False
        for page in feed.unacknowledged:
            self._send(AddInput(page))
        if feed.sealed is not None:
            self._send(Seal(feed.spec.id, feed.sealed))
