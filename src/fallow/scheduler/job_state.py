"""What the scheduler holds of one job: sets of ranges, never anything per task (but for tasks in trouble)."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.job import Counting, JobInfo, JobProgress, JobSpec, ResultsOf
from fallow.model.ranges import Range, RangeSet
from fallow.scheduler.estimate import Pace, TaskTimes

if TYPE_CHECKING:
    from fallow.scheduler.lease_state import LeaseState
    from fallow.scheduler.work_class import WorkClass

Key = tuple[int, int, int]
"""Place in the queue: (-priority, 0 if retried else 1, number of the arrival)."""


class Open(msgspec.Struct, frozen=True):
    """Takes inputs."""


class Sealed(msgspec.Struct, frozen=True):
    """Has `size` tasks and takes no more inputs."""

    size: int
    input_ended: bool


class Ended(msgspec.Struct, frozen=True):
    """Over. Held only while a job that goes on from its results is unfinished."""

    size: int | None
    input_ended: bool
    state: Literal["done", "cancelled"]


Life = Open | Sealed | Ended


class Trouble:
    """Attempts of one unsettled task that came to nothing."""

    __slots__ = ("crashed", "lost", "names", "nodes", "raised")

    def __init__(self) -> None:
        self.raised = 0
        """Attempts that raised or ran over their time."""
        self.crashed = 0
        self.lost = 0
        self.nodes: tuple[NodeId, ...] = ()
        """Nodes where its slot died or that were lost: it goes elsewhere if possible."""
        self.names: tuple[str, ...] = ()

    @property
    def attempts(self) -> int:
        return self.raised + self.crashed + self.lost

    def discount(self) -> None:
        """Leave out the attempt that the failure record itself counts."""
        self.raised -= 1

    @property
    def needs_care(self) -> bool:
        """Whether the task goes alone and elsewhere, rather than as a part of any lease."""
        return bool(self.nodes)

    def note_node(self, node: NodeId, name: str) -> None:
        if node not in self.nodes:
            self.nodes += (node,)
            self.names += (name,)


class JobState:
    """One job in the scheduler. [0, accepted) is parted into fresh, front, careful, leased and settled."""

    __slots__ = (
        "able", "accepted", "arrivals", "available", "backlog", "by_start", "careful", "children", "copy_scan_step", "drains",
        "failed_set", "first_failures", "fresh", "front", "lacking", "leases", "life", "next_copy_scan", "next_rescue", "order", "paces", "parent", "priority",
        "queued_key", "rows", "settled", "spec", "times", "touched", "troubles", "was_leased", "work_class",
    )  # fmt: skip

    def __init__(self, spec: JobSpec, order: int, work_class: "WorkClass") -> None:
        self.spec = spec
        self.priority = spec.priority
        self.order = order
        """Number of the job's creation, in the same count as arrivals of inputs."""
        self.work_class = work_class
        self.life: Life = Open()
        self.accepted = 0
        """Inputs held: contiguous from 0, except for a job that goes on from another's results."""
        self.available: RangeSet | None = RangeSet() if isinstance(spec.inputs, ResultsOf) else None
        """Tasks whose parent's result is there; None for jobs with inputs of their own."""
        self.fresh = RangeSet()
        """Pending, never tried."""
        self.front = RangeSet()
        """Pending, came back: goes first."""
        self.careful = RangeSet()
        """Pending, in trouble: granted one by one, to nodes chosen with care."""
        self.settled = RangeSet()
        self.failed_set = RangeSet()
        self.first_failures: list[Failure] = []
        self.arrivals: deque[Range] = deque()
        """(stop, number): inputs up to `stop` came as this arrival."""
        self.leases: dict[LeaseId, LeaseState] = {}
        """In the order in which they were granted."""
        self.backlog: list[tuple[float, LeaseId, LeaseState]] = []
        """Heap of leases with unstarted tasks by -(expected end); entries may be stale."""
        self.by_start: list[tuple[int, LeaseId]] = []
        """Leases by the first task that they had, ascending; entries may be stale."""
        self.times = TaskTimes()
        self.paces: dict[NodeId, Pace] = {}
        self.troubles: dict[int, Trouble] = {}
        """Unsettled tasks only."""
        self.touched: dict[NodeId, None] = {}
        """Nodes that had leases of the job, so that they can be told to forget it."""
        self.able: set[NodeId] = set()
        """Nodes that have run tasks of it to a result."""
        self.lacking: set[NodeId] = set()
        """Nodes that turned out to lack what every task needs."""
        self.children: list[JobState] = []
        self.parent: JobState | None = None
        self.queued_key: Key | None = None
        """The key under which the job stands in its class's heap."""
        self.was_leased = False
        self.rows = 0
        """Result rows since the last snapshot."""
        self.drains: dict[int, NodeId] = {}
        """Suspect tasks that wait for a node to be empty, and which."""
        self.next_copy_scan = 0.0
        """Until then, no node of at most this speed would make a second attempt."""
        self.copy_scan_step = 0
        self.next_rescue = 0.0
        """When to look next for a running task that would outlast all that is pending."""

    @property
    def id(self) -> JobId:
        return self.spec.id

    @property
    def pending_count(self) -> int:
        return len(self.fresh) + len(self.front) + len(self.careful)

    @property
    def failed(self) -> int:
        return len(self.failed_set)

    @property
    def has_ended(self) -> bool:
        return type(self.life) is Ended

    @property
    def counts_up(self) -> bool:
        """Whether the inputs are a range, so that sealing alone makes them available."""
        return isinstance(self.spec.inputs, Counting)

    @property
    def is_complete(self) -> bool:
        """Whether every task is settled and no more can come."""
        life = self.life
        return type(life) is Sealed and len(self.settled) >= life.size

    def key(self) -> Key | None:
        """Return the job's place in the queue, None if nothing (but careful tasks) is pending."""
        if self.front:
            return (-self.priority, 0, self.order)
        if not self.fresh:
            return None
        arrivals, first = self.arrivals, self.fresh.first
        while len(arrivals) > 1 and arrivals[0][0] <= first:
            arrivals.popleft()
        return (-self.priority, 1, arrivals[0][1] if arrivals else self.order)

    def holders(self, stop: int) -> "Iterator[LeaseState]":
        """Yield the leases that may have tasks below `stop`, nearest first: who has some is found without a look at all."""
        for at in range(bisect_left(self.by_start, (stop,)) - 1, -1, -1):
            lease = self.leases.get(self.by_start[at][1])
            if lease is not None:
                yield lease

    def head(self) -> RangeSet:
        """Return the pending set that leases are cut from next."""
        return self.front or self.fresh

    def covers(self, start: int, stop: int) -> bool:
        """Whether `[start, stop)` are tasks whose inputs are there."""
        if not 0 <= start < stop:
            return False
        if self.available is None:
            return stop <= self.accepted
        return self.available.within(start, stop) == [(start, stop)]

    def take_pending(self, start: int, stop: int) -> list[Range]:
        """Take what of `[start, stop)` is pending out of the queue and return it."""
        taken = self.front.discard(start, stop) if self.front else []
        if self.careful:
            taken += self.careful.discard(start, stop)
        if self.fresh:
            taken += self.fresh.discard(start, stop)
        return taken

    def put_back(self, start: int, stop: int) -> None:
        """Return tasks to the front of the queue, those in trouble to `careful`."""
        if not self.troubles:
            self.front.add(start, stop)
            return
        if stop - start == 1:
            trouble = self.troubles.get(start)
            (self.careful if trouble is not None and trouble.needs_care else self.front).add(start, stop)
            return
        at = start
        for index in self._troubled(start, stop):
            if not self.troubles[index].needs_care:
                continue
            self.front.add(at, index)
            self.careful.add(index, index + 1)
            at = index + 1
        self.front.add(at, stop)

    def trouble(self, index: int) -> Trouble:
        return self.troubles.setdefault(index, Trouble())

    def forget_troubles(self, start: int, stop: int) -> None:
        """Drop the records of tasks that are settled now."""
        self.times.note_settled(start, stop)
        if not self.troubles:
            return
        if stop - start == 1:
            self.troubles.pop(start, None)
        else:
            for index in self._troubled(start, stop):
                del self.troubles[index]

    def _troubled(self, start: int, stop: int) -> list[int]:
        """Return which of these tasks are in trouble, ascending: by looking at them, or at all in trouble if those are fewer."""
        if stop - start < len(self.troubles):
            return [index for index in range(start, stop) if index in self.troubles]
        return sorted(index for index in self.troubles if start <= index < stop)

    def note_failures(self, failures: list[Failure], keep: int) -> None:
        """Count failures that settle their tasks now."""
        for failure in failures:
            self.failed_set.add(failure.index, failure.index + 1)
        room = keep - len(self.first_failures)
        if room > 0:
            self.first_failures.extend(failures[:room])

    def progress(self) -> JobProgress:
        life = self.life
        state: Literal["waiting", "running", "done", "cancelled"]
        state = life.state if isinstance(life, Ended) else "running" if self.settled or self.was_leased else "waiting"
        accepted = self.accepted if self.available is None else len(self.available)
        return JobProgress(
            state=state,
            accepted=accepted,
            size=None if isinstance(life, Open) else life.size,
            settled=len(self.settled),
            failed=self.failed,
            leased=0 if self.has_ended else accepted - len(self.settled) - self.pending_count,
            input_ended=not isinstance(life, Open) and life.input_ended,
        )

    def info(self) -> JobInfo:
        return JobInfo(spec=self.spec, progress=self.progress(), first_failures=tuple(self.first_failures))
