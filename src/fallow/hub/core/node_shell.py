"""One connected node: its frames in, leases and acknowledgements out."""

from collections import OrderedDict
from collections.abc import Callable
from math import isnan
from typing import TYPE_CHECKING, Any

from fallow.hub.core.blob_desk import BlobDesk
from fallow.link.frames import (
    PROTOCOL_VERSION,
    Acknowledged,
    Beat,
    Cancel,
    Checkpoint,
    CheckpointKept,
    Done,
    Forget,
    Grant,
    NodeChanged,
    NodeHello,
    PageSent,
    PageWanted,
    Presents,
    Printed,
    Recall,
    Refused,
    Returned,
    SpecSent,
    SpecWanted,
    TaskBroke,
)
from fallow.link.link import Link
from fallow.log import Logger
from fallow.model.errors import BadRequest, FallowError
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.lease import MAX_PROGRESS_MESSAGE, Lease
from fallow.model.node import check_node
from fallow.model.page import REF_BYTES, InputPage
from fallow.model.ranges import RangeSet
from fallow.model.token import Token

if TYPE_CHECKING:
    from fallow.hub.core.hub import Hub

REMEMBERED_PAGES = 32
"""Pages last sent to a node, which it keeps that many of; a lease on one of them goes without its bytes."""

GRANT_BYTES = 256 * 1024
"""Page bytes that travel inside a Grant; more go ahead of it."""

MAX_REASON = 8 * 1024
"""Characters in which a node may say why it takes no work: a few causes, one with the end of a slot's output or a path."""

_log = Logger("fallow.hub")


class NodeShell:
    """Loops: frame → scheduler → effects."""

    def __init__(self, hub: "Hub", link: Link, token: Token) -> None:
        self._hub = hub
        self._link = link
        self.token = token
        self.node: NodeId | None = None
        self._specs_sent: set[JobId] = set()
        self._pages_sent: OrderedDict[tuple[JobId, int], None] = OrderedDict()
        self._said: dict[tuple[LeaseId, int], tuple[float | None, str]] = {}
        """What running tasks said of their progress, as of the last heartbeat."""
        self._blobs = BlobDesk(hub.house, link, lambda _digest: None, is_submitting=False)

    def on_frame(self, frame: Any) -> None:
        try:
            if self.node is None:
                self._hello(frame)
                return
            handler = _HANDLERS.get(type(frame))
            if handler is not None:
                handler(self, frame)
            elif not self._blobs.on_frame(frame):
                raise BadRequest(f"a node can't send {type(frame).__name__} here")
        except FallowError as error:
            _log.warning("node's frame refused", node=self.node, error=str(error))
            self._link.send(Refused(error.code, str(error), getattr(frame, "job", None)))
            if self.node is None:
                self._link.close(str(error))

    def on_closed(self, reason: str) -> None:
        self._blobs.close()
        if self.node is not None:
            self._hub.node_gone(self.node, self)

    def close(self, reason: str) -> None:
        self._link.close(reason)

    # --- what the hub tells ---

    def grant(self, lease: Lease, pages: list[InputPage]) -> None:
        """Send a lease, its job's spec if it is new here, and the pages that the node may lack."""
        spec = None
        if lease.job not in self._specs_sent:
            self._specs_sent.add(lease.job)
            spec = self._hub.book.specs.get(lease.job)
            if spec is None:
                return  # deleted meanwhile
        fresh: list[InputPage] = []
        for page in pages:
            key = (page.job, page.start)
            if key in self._pages_sent:
                self._pages_sent.move_to_end(key)
                continue
            self._pages_sent[key] = None
            fresh.append(page)
        while len(self._pages_sent) > REMEMBERED_PAGES:
            self._pages_sent.popitem(last=False)
        size = sum(map(_size, fresh))
        while fresh and size > GRANT_BYTES:  # the spec and all pages together may be over a message's limit
            page = fresh.pop(0)
            size -= _size(page)
            self._link.send(PageSent(lease.job, (page,)))
        checkpoints = self._hub.checkpoints.of(lease.job, lease.start, lease.stop)
        self._link.send(Grant(lease, spec, tuple(fresh), checkpoints))

    def recall(self, lease: LeaseId, count: int) -> None:
        self._link.send(Recall(lease, count))

    def cancel(self, job: JobId, ranges: tuple[int, ...]) -> None:
        self._link.send(Cancel(job, ranges))

    def forget(self, job: JobId) -> None:
        self._specs_sent.discard(job)
        for key in [key for key in self._pages_sent if key[0] == job]:
            del self._pages_sent[key]
        self._link.send(Forget(job))

    # --- frames ---

    def _hello(self, hello: Any) -> None:
        if not isinstance(hello, NodeHello):
            raise BadRequest("the first frame of a node must be NodeHello")
        if hello.version != PROTOCOL_VERSION:
            raise BadRequest(
                f"this node speaks protocol {hello.version}, the hub {PROTOCOL_VERSION}: install the same Fallow on both"
            )
        if not 0 < len(hello.node) <= 64 or not hello.node.isalnum():
            raise BadRequest("a node id is up to 64 letters and digits")
        check_node(hello.info)
        self.node = hello.node
        self._link.send(self._hub.welcome())
        self._hub.node_came(hello.node, hello.info, self)

    def _done(self, done: Done) -> None:
        hub = self._hub
        assert self.node is not None
        for page in done.pages:
            if not 0 <= page.start < page.stop:
                raise BadRequest(f"a result page over [{page.start}, {page.stop})")
        if hub.scheduler.has_job(done.job):
            hub.carry_out(hub.scheduler.on_results(self.node, done.lease, done.job, done.pages, hub.now()))
        elif blobs := [digest for page in done.pages for digest in page.blobs]:
            hub.house.sweep(blobs)  # it was deleted meanwhile, and can't take them with it any more
        number = done.number
        hub.journal.after_commit(lambda: self._acknowledge(number), is_urgent=False)

    def _acknowledge(self, number: int) -> None:
        self._link.send_later(Acknowledged, Acknowledged(number))

    def _presents(self, presents: Presents) -> None:
        assert self.node is not None
        scheduler, held, is_first = self._hub.scheduler, presents.leases, presents.is_first
        self._hub.carry_out(scheduler.on_leases_presented(self.node, held, self._hub.now(), is_first=is_first))

    def _beat(self, beat: Beat) -> None:
        assert self.node is not None
        scheduler = self._hub.scheduler
        self._said = {
            (task.lease, task.index): (_share(task.fraction), task.message[:MAX_PROGRESS_MESSAGE])
            for task in beat.running
            if task.fraction is not None or task.message
        }
        self._hub.carry_out(scheduler.on_heartbeat(self.node, beat.running, beat.leases, self._hub.now()))

    def _returned(self, frame: Returned) -> None:
        assert self.node is not None
        unstarted = RangeSet.from_flat(frame.unstarted)
        scheduler = self._hub.scheduler
        self._hub.carry_out(
            scheduler.on_returned(self.node, frame.lease, frame.job, unstarted.ranges(), self._hub.now())
        )

    def _task_broke(self, frame: TaskBroke) -> None:
        assert self.node is not None
        scheduler = self._hub.scheduler
        self._hub.carry_out(scheduler.on_task_broke(self.node, frame.lease, frame.job, frame.failure, self._hub.now()))

    def _changed(self, frame: NodeChanged) -> None:
        assert self.node is not None
        check_node(frame.info)
        if len(frame.reason) > MAX_REASON:
            raise BadRequest(f"a reason of {len(frame.reason)} characters is over the limit of {MAX_REASON}")
        scheduler = self._hub.scheduler
        self._hub.carry_out(
            scheduler.on_node_changed(self.node, frame.info, frame.accepting, frame.reason, self._hub.now())
        )

    def progress_of(self, lease: LeaseId, index: int) -> tuple[float | None, str]:
        """Return what a task has said of its progress: the part that is done, 0 to 1, and a line of words."""
        return self._said.get((lease, index), (None, ""))

    def _checkpoint(self, frame: Checkpoint) -> None:
        assert self.node is not None
        try:
            self._hub.checkpoints.save(self.node, frame)
        finally:
            kept = CheckpointKept(frame.job, frame.index, frame.digest)
            self._hub.journal.after_commit(lambda: self._link.send(kept))

    def _page_wanted(self, frame: PageWanted) -> None:
        async def answer() -> None:
            for page in await self._hub.desk.input_pages(frame.job, frame.start, frame.stop):
                self._link.send(PageSent(frame.job, (page,)))

        self._hub.spawn(answer())

    def _spec_wanted(self, frame: SpecWanted) -> None:
        spec = self._hub.book.specs.get(frame.job)
        if spec is not None:
            self._link.send(SpecSent(spec))
        else:
            self._link.send(Cancel(frame.job))

    def _printed(self, frame: Printed) -> None:
        self._hub.desk.add_logs(frame.job, frame.entries)


_HANDLERS: dict[type, Callable[[NodeShell, Any], None]] = {
    Done: NodeShell._done,
    Beat: NodeShell._beat,
    Returned: NodeShell._returned,
    TaskBroke: NodeShell._task_broke,
    Presents: NodeShell._presents,
    NodeChanged: NodeShell._changed,
    Checkpoint: NodeShell._checkpoint,
    PageWanted: NodeShell._page_wanted,
    SpecWanted: NodeShell._spec_wanted,
    Printed: NodeShell._printed,
}
"""By frame; of the class, so that a shell holds nothing that holds it."""


def _share(fraction: float | None) -> float | None:
    return None if fraction is None or isnan(fraction) else min(max(fraction, 0.0), 1.0)


def _size(page: InputPage) -> int:
    return 200 + REF_BYTES * len(page.refs) + (len(page.data) if page.data is not None else 0)
