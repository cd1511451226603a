"""Where a job's inputs come from, and how job and inputs are sent to the hub."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fallow.client.inputs import Page, cut, known_length
from fallow.client.job_state import JobState
from fallow.client.options import Options
from fallow.client.page_sender import PageSender
from fallow.client.session import JobFeed
from fallow.model.errors import BadRequest, Closed, FallowError, NotFound
from fallow.model.ids import Digest, JobId
from fallow.model.job import Counting, Inputs, JobInfo, JobSpec, Pages, ResultsOf
from fallow.slot.pages import Piece, encode_json, encode_list

if TYPE_CHECKING:
    from fallow.client.core import GridCore
    from fallow.client.job import Job


class Source(ABC):
    """Inputs of a job that has not started."""

    is_iterator = False
    length: int | None = None
    blobs: Mapping[Digest, Path | bytes] = {}
    """What else the hub must have before the job."""

    @abstractmethod
    def inputs(self) -> Inputs:
        """Return what goes into the spec."""

    def check_not_taken(self, label: str) -> None:  # noqa: B027 -- most can be read any number of times
        """Raise BadRequest if a chained job has taken the inputs, which can be read only once."""


class RangeSource(Source):
    """A Python range: travels as two numbers."""

    def __init__(self, items: range) -> None:
        self.length = len(items)
        self._items = items

    def inputs(self) -> Inputs:
        return Counting(self._items.start, self._items.step)


class ItemSource(Source):
    """Any other iterable."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.length = known_length(items)
        self.is_iterator = self.length is None
        # a collection is copied, so that changing it afterwards changes nothing here
        self.items: Iterable[Any] = list(items) if isinstance(items, (list, set, dict, deque)) else items

    def encode(self, items: Sequence[Any]) -> list[Piece]:
        """Write items as a page."""
        return encode_list(items)

    def pages(self) -> Iterator[Page]:
        """Yield the items in pages."""
        return cut(self.items, self.length, self.encode)

    def inputs(self) -> Inputs:
        return Pages()

    def check_not_taken(self, label: str) -> None:
        if self.is_iterator:
            raise BadRequest(
                f"{label}: its iterator went into the job chained onto it and can't be read twice; pass a list to use both"
            )


class ParameterSource(ItemSource):
    """Parameters of a program, as JSON."""

    def __init__(self, items: Iterable[Any], length: int | None, blobs: Mapping[Digest, Path | bytes]) -> None:
        self.items = items
        self.length = length
        self.is_iterator = length is None
        self.blobs = blobs

    def encode(self, items: Sequence[Any]) -> list[Piece]:
        return [encode_json(items)]


class ParentSource(Source):
    """The results of another job, by reference. Keeps that job alive."""

    def __init__(self, parent: "Job[Any]") -> None:
        self.parent = parent
        self.length = parent._state.size

    def inputs(self) -> Inputs:
        return ResultsOf(JobId(self.parent.id))

    async def sent(self) -> None:
        """Return once the hub was sent the parent: its function may be larger than that of the job that goes on from it."""
        started = getattr(self.parent, "_created", None)  # none if it was attached to
        if started is not None:
            parent = asyncio.wrap_future(started)
            await asyncio.wait([parent])
            if not parent.cancelled():
                parent.exception()  # is the parent's to tell


class AttachedSource(Source):
    """The inputs of a job that exists already."""

    def __init__(self, info: JobInfo) -> None:
        self.length = info.progress.size
        self._inputs = info.spec.inputs

    def inputs(self) -> Inputs:
        return self._inputs


async def start_job(
    core: "GridCore", spec: JobSpec, function: bytes, state: JobState, source: Source, options: Options
) -> JobInfo | None:
    """Send the job to the hub; for a named one, return what the hub says of it."""
    session = core.session
    try:
        for digest, content in source.blobs.items():
            await session.blobs.keep(digest, content)
        spec = await core.keep_blobs(spec, function, options)
        size = source.length if isinstance(spec.inputs, Counting) else None
        if isinstance(source, ParentSource):
            await source.sent()
        if state.is_released:
            return None
        feed = JobFeed(spec, options.if_exists, state.on_progress, state.on_error, state.gate.accepted, size)
        session.create_job(feed)
        if state.is_cancelled:
            session.cancel(spec.id)
        if options.name is not None:
            info = await feed.created
            if info.spec.id != spec.id:  # attached
                state.gate.close()
                session.attach(feed, info)
                return info
        if isinstance(source, ItemSource):
            thread = threading.Thread(target=_feed, args=(core, feed, state, source), name="fallow-feed", daemon=True)
            core.feeders[state] = thread
            thread.start()
        return None
    except FallowError as error:
        state.on_error(error)
        raise
    except asyncio.CancelledError:
        state.on_error(Closed())  # the grid was closed before the job had started
        raise


def _feed(core: "GridCore", feed: JobFeed, state: JobState, source: ItemSource) -> None:
    """Cut the inputs into pages and send them, no faster than they are taken. Runs in a thread of its own."""
    try:
        _send_pages(core, feed, state, source)
    finally:
        del core.feeders[state]
        if state.is_dropped:
            release_job(core, state, feed.spec.name is not None)


def _send_pages(core: "GridCore", feed: JobFeed, state: JobState, source: ItemSource) -> None:
    engine, session = core.engine, core.session
    sender = PageSender(core, feed, state)
    count = 0
    try:
        for page in source.pages():
            if not state.gate.passed(page.stop, page.size_bytes):
                return
            if page.blobs:
                engine.run(_keep_blobs(core, page))
            sender.send(page)
            count = page.stop
        if not sender.finish():
            return
    except BaseException as error:  # the user's iterator may raise anything; whoever reads the job gets it
        state.on_error(error)
        engine.post(session.cancel, feed.spec.id)
        return
    state.size = count
    engine.post(session.seal, feed, count)
    state.gate.emptied()


async def _keep_blobs(core: "GridCore", page: Page) -> None:
    for digest, source in page.blobs.items():
        try:
            await core.session.blobs.keep_page(digest, source)
        except (BadRequest, NotFound, OSError) as error:
            what = source if isinstance(source, Path) else digest
            raise BadRequest(f"inputs: {what} can't be sent; has it changed meanwhile? {error}") from error


def release_job(core: "GridCore", state: JobState, is_named: bool) -> None:
    """Nobody here holds the job any more; called when its `Job` goes."""
    if state.outlives_client and state.size is not None and state in core.feeders:
        state.is_dropped = True  # its inputs are sent all the same
        return
    state.gate.close()
    if not is_named:
        state.is_released = True
        core.engine.post(core.session.release, state.job)
