"""What must hold of the parts of the books that an event touched, at a cost of the order of the event itself.

`invariants.py` looks at everything, which a fleet of thousands of nodes can't afford after every event. This check
remembers what each lease held, and looks again at the jobs, nodes and leases that the event and its effects name, and at
sums over the rest. Only the simulator and tests use it; the scheduler does not know of it.
"""

from collections.abc import Iterable

import msgspec

from fallow.model.changes import AddLease, AddResults, EndLease
from fallow.model.events import NodeLost
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.ranges import Range, RangeSet
from fallow.scheduler.books import Books
from fallow.scheduler.effects import (
    CancelWork,
    Effects,
    ForgetJob,
    GrantLease,
    Persist,
    RecallLease,
    Tell,
    TellProgress,
)
from fallow.scheduler.invariants import check_lease, check_node, check_queue
from fallow.scheduler.job_state import JobState
from fallow.scheduler.lease_state import LeaseState
from fallow.scheduler.node_state import NodeState
from fallow.scheduler.work_class import WorkClass


class _Seen(msgspec.Struct, frozen=True):
    """A lease as it was when last looked at."""

    job: JobId
    node: NodeId
    ranges: tuple[Range, ...]
    """Its tasks; none for a copy, whose tasks are its original's."""
    kin: tuple[LeaseId, ...]
    """Its copies and its original."""


class _Job:
    """What was last seen of one job."""

    __slots__ = ("leases", "out", "settled")

    def __init__(self) -> None:
        self.leases = 0
        self.out = RangeSet()
        """Tasks that are out by a primary lease."""
        self.settled = 0


class TouchedCheck:
    """Checks what each event touched. It must be told of every event from the moment it was made."""

    def __init__(self, books: Books) -> None:
        """Look at everything once."""
        self._books = books
        self._leases: dict[LeaseId, _Seen] = {}
        self._at: dict[NodeId, set[LeaseId]] = {}
        self._jobs: dict[JobId, _Job] = {}
        self._capacity: dict[NodeId, dict[WorkClass, tuple[int, float]]] = {}
        self._sums: dict[WorkClass, tuple[int, float]] = {}
        self.check([], jobs=list(books.jobs), nodes=list(books.nodes), leases=list(books.leases))

    def check(
        self,
        effects: Effects,
        *,
        jobs: Iterable[JobId] = (),
        nodes: Iterable[NodeId] = (),
        leases: Iterable[LeaseId] = (),
    ) -> None:
        """Raise AssertionError if anything that is named contradicts the rest.

        effects: those of the event. jobs, nodes, leases: what the event itself was about.
        """
        touched = _Touched(jobs, nodes, leases)
        for effect in effects:
            touched.add(effect)
        books = self._books
        for node_id in touched.nodes:
            node = books.nodes.get(node_id)
            touched.leases.update(
                dict.fromkeys([*self._at.get(node_id, ()), *(node.leases if node is not None else ())])
            )
        for lease_id in list(touched.leases):
            seen, lease = self._leases.get(lease_id), books.leases.get(lease_id)
            kin = [*(seen.kin if seen is not None else ()), *(_kin(lease) if lease is not None else ())]
            touched.leases.update(dict.fromkeys(kin))
        moved = [part for lease_id in touched.leases for part in self._forget(lease_id, touched)]
        moved += [part for lease_id in touched.leases for part in self._look_at(lease_id, touched)]
        for job_id, start, stop in moved:
            self._check_place(job_id, start, stop)
        for job_id in touched.jobs:
            self._check_job(job_id)
        changed = {work_class: None for node_id in touched.nodes for work_class in self._check_node(node_id)}
        for work_class in changed:
            self._check_class(work_class)
        assert len(books.leases) == len(self._leases), "a lease came or went without a word"
        assert sum(books.priorities.values()) == len(books.leases), "the count of leases by priority is wrong"

    # --- leases ---------------------------------------------------------------------------------

    def _forget(self, lease_id: LeaseId, touched: "_Touched") -> list[tuple[JobId, int, int]]:
        """Take out what a lease held when it was last looked at, and return it."""
        seen = self._leases.pop(lease_id, None)
        if seen is None:
            return []
        self._at[seen.node].discard(lease_id)
        job = self._jobs[seen.job]
        job.leases -= 1
        for part in seen.ranges:
            job.out.discard(*part)
        touched.jobs[seen.job] = touched.nodes[seen.node] = None
        return [(seen.job, *part) for part in seen.ranges]

    def _look_at(self, lease_id: LeaseId, touched: "_Touched") -> list[tuple[JobId, int, int]]:
        """Enter what a lease holds now, and return it."""
        lease = self._books.leases.get(lease_id)
        if lease is None:
            return []
        check_lease(self._books, lease)
        job_id, node_id = lease.job.id, lease.node.id
        ranges = tuple(lease.unfinished.ranges()) if lease.original is None else ()
        self._leases[lease_id] = _Seen(job_id, node_id, ranges, _kin(lease))
        self._at.setdefault(node_id, set()).add(lease_id)
        job = self._jobs.setdefault(job_id, _Job())
        job.leases += 1
        for part in ranges:
            assert job.out.add(*part) == [part], f"{job_id}: parts of {part} are out by lease {lease_id} and another"
        touched.jobs[job_id] = touched.nodes[node_id] = None
        return [(job_id, *part) for part in ranges]

    def _check_place(self, job_id: JobId, start: int, stop: int) -> None:
        """Tasks that were or are out are in exactly one place."""
        job = self._books.jobs.get(job_id)
        if job is not None and not job.has_ended:
            places = (job.fresh, job.front, job.careful, job.settled, self._jobs[job_id].out)
            count = sum(b - a for place in places for a, b in place.within(start, stop))
            assert count == stop - start, f"{job_id}: of [{start}, {stop}), {count} are accounted for"

    # --- jobs and nodes -------------------------------------------------------------------------

    def _check_job(self, job_id: JobId) -> None:
        seen, job = self._jobs.setdefault(job_id, _Job()), self._books.jobs.get(job_id)
        if job is None or job.has_ended:
            assert not seen.leases, f"{job_id} has ended and has leases"
            del self._jobs[job_id]
        if job is None:
            return
        check_queue(job)
        assert len(job.leases) == seen.leases, f"{job_id} has a stale lease"
        assert job.failed <= len(job.settled), f"{job_id}: more failed than is settled"
        if not job.has_ended:
            self._check_count(job, seen)

    def _check_count(self, job: JobState, seen: _Job) -> None:
        whole = job.accepted if job.available is None else len(job.available)
        count = job.pending_count + len(job.settled) + len(seen.out)
        assert count == whole, f"{job.id}: {count} tasks are accounted for, of {whole}"
        assert len(job.settled) >= seen.settled, f"{job.id}: tasks that were settled are not any more"
        assert not job.is_complete, f"{job.id} is complete and has not ended"
        seen.settled = len(job.settled)

    def _check_node(self, node_id: NodeId) -> list[WorkClass]:
        """Check a node and enter what it adds to the sums of its classes, which are returned."""
        node = self._books.nodes.get(node_id)
        before = self._capacity.pop(node_id, {})
        now: dict[WorkClass, tuple[int, float]] = {}
        if node is None:
            assert not self._at.pop(node_id, None), f"{node_id} is gone and has leases"
        else:
            check_node(self._books, node)
            now = self._capacity[node_id] = _capacity(node)
            for work_class in now:
                _check_listed(node, work_class)
        classes = [
            each for each in {**before, **now} if self._books.classes.get((each.requirements, each.avoided)) is each
        ]
        for each in classes:
            if each in self._sums:
                (slots, power), (more, faster), (less, slower) = (
                    self._sums[each],
                    now.get(each, NONE),
                    before.get(each, NONE),
                )
                self._sums[each] = slots + more - less, power + faster - slower
            else:
                self._begin(each)
        return classes

    def _begin(self, work_class: WorkClass) -> None:
        """Enter all nodes of a class that is new: all of them were matched with it when it was made."""
        for node in work_class.ready.values():
            self._capacity.setdefault(node.id, {})[work_class] = _capacity(node)[work_class]
        parts = [self._capacity[node_id][work_class] for node_id in work_class.ready]
        self._sums[work_class] = sum(slots for slots, _ in parts), sum(power for _, power in parts)

    def _check_class(self, work_class: WorkClass) -> None:
        """The sums of a class agree with its nodes, and its best node is not idle beside pending work."""
        slots, power = self._sums[work_class]
        assert work_class.slots == slots, "slots are counted wrong"
        assert abs(work_class.power - power) <= 1e-6 * max(1.0, power), "power is counted wrong"
        if work_class.peek() is not None and work_class not in self._books.woken:
            for node in work_class.hungry.best(1, 0):
                is_held = any(node.id in each.holds for each in self._books.classes.values())
                assert is_held, f"work is pending beside {node.id}, which has room"


NONE = (0, 0.0)


def _capacity(node: NodeState) -> dict[WorkClass, tuple[int, float]]:
    """Return the slots and the power that the node adds to each of its classes."""
    return {each: (slots, slots * node.score) for each, slots in node.capacity.items()}


def _kin(lease: LeaseState) -> tuple[LeaseId, ...]:
    return tuple(each.id for each in (lease.original, *lease.copies) if each is not None)


def _check_listed(node: NodeState, work_class: WorkClass) -> None:
    assert work_class.ready.get(node.id) is node, f"{node.id} is missing in a class"
    assert work_class.hungry.rank(node) == node.ranks.get(work_class), f"{node.id} has another rank in its class"


class _Touched:
    """Jobs, nodes and leases that an event and its effects name."""

    def __init__(self, jobs: Iterable[JobId], nodes: Iterable[NodeId], leases: Iterable[LeaseId]) -> None:
        self.jobs = dict.fromkeys(jobs)
        self.nodes = dict.fromkeys(nodes)
        self.leases = dict.fromkeys(leases)

    def add(self, effect: object) -> None:
        match effect:
            case GrantLease(node=node, lease=lease) | Persist(change=AddLease(lease=lease, node=node)):
                self.nodes[node] = self.leases[lease.id] = self.jobs[lease.job] = None
            case Persist(change=EndLease(lease=lease_id)):
                self.leases[lease_id] = None
            case RecallLease(node=node) | Tell(event=NodeLost(node=node)):
                self.nodes[node] = None
            case CancelWork(node=node, job=job) | ForgetJob(node=node, job=job):
                self.nodes[node] = self.jobs[job] = None
            case Persist(change=AddResults(job=job)) | TellProgress(job=job):
                self.jobs[job] = None
