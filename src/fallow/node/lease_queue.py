"""The leases that a node holds, and what of each is unstarted, running or finished. Pure: no I/O, no clock."""

from bisect import insort
from collections.abc import Iterable, Iterator
from operator import attrgetter

from fallow.model.ids import JobId, LeaseId
from fallow.model.lease import HeldLease, Lease
from fallow.model.ranges import Range, RangeSet

_order = attrgetter("order")


class QueuedLease:
    """One lease: its tasks are in `pending` until handed to a slot, in `running` until finished."""

    __slots__ = ("cores", "lease", "memory_bytes", "order", "pending", "running")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.order: tuple[int, int] | None = None
        """None while its job is not known."""
        self.cores = 1
        self.memory_bytes = 0
        self.pending = RangeSet([(lease.start, lease.stop)])
        self.running = RangeSet()


class LeaseQueue:
    """All leases of the node: those of jobs that it knows ordered by (priority, arrival), and those that wait for their spec."""

    def __init__(self) -> None:
        self._leases: dict[LeaseId, QueuedLease] = {}
        self._ordered: list[QueuedLease] = []
        self._unspecified: list[QueuedLease] = []
        self._arrivals = 0

    def __len__(self) -> int:
        """Leases of jobs that are known."""
        return len(self._ordered)

    @property
    def is_empty(self) -> bool:
        return not self._leases

    def __iter__(self) -> Iterator[QueuedLease]:
        """Yield leases of known jobs that have unstarted tasks, most urgent first."""
        return (each for each in self._ordered.copy() if each.pending)

    def get(self, lease: LeaseId) -> QueuedLease | None:
        return self._leases.get(lease)

    def ids(self) -> tuple[LeaseId, ...]:
        return tuple(self._leases)

    def of_job(self, job: JobId) -> list[QueuedLease]:
        """Return the leases of a known job."""
        return [each for each in self._ordered if each.lease.job == job]

    def unspecified_jobs(self) -> set[JobId]:
        """Return the jobs whose specs are waited for."""
        return {each.lease.job for each in self._unspecified}

    def hold(self, lease: Lease) -> None:
        """Take a lease, to be handed out once it is specified; one that is there already (a repeated frame) changes nothing."""
        if lease.id not in self._leases and lease.start < lease.stop:
            self._leases[lease.id] = queued = QueuedLease(lease)
            self._unspecified.append(queued)

    def specify(self, job: JobId, *, priority: int, cores: int = 1, memory_bytes: int = 0) -> list[QueuedLease]:
        """The job is known: queue those of its leases that waited for that, and return them."""
        known = [each for each in self._unspecified if each.lease.job == job]
        for queued in known:
            self._unspecified.remove(queued)
            self._arrivals += 1
            queued.order, queued.cores, queued.memory_bytes = (-priority, self._arrivals), cores, memory_bytes
            insort(self._ordered, queued, key=_order)
        return known

    def take(self, queued: QueuedLease, count: int, bound: int) -> Range:
        """Hand out up to `count` tasks from the front of a lease that has some, none at or beyond index `bound`."""
        start = queued.pending.first
        taken = queued.pending.take(max(1, min(count, bound - start)))
        assert taken is not None
        queued.running.add(*taken)
        return taken

    def finish(self, lease: LeaseId, start: int, stop: int) -> bool:
        """Note that running tasks are finished; return whether the lease has ended with that."""
        queued = self._leases.get(lease)
        if queued is None:
            return False
        queued.running.discard(start, stop)
        return self._end_if_empty(queued)

    def requeue(self, lease: LeaseId, start: int, stop: int) -> None:
        """Put running tasks back: their slot is gone. They go first in their lease, being its lowest indices."""
        queued = self._leases.get(lease)
        if queued is not None:
            for each in queued.running.discard(start, stop):
                queued.pending.add(*each)

    def recall(self, lease: LeaseId, count: int) -> list[Range]:
        """Take up to `count` unstarted tasks out, from the end, and return them."""
        queued = self._leases.get(lease)
        out: list[Range] = []
        while queued is not None and count > 0 and queued.pending:
            end = queued.pending.end
            last_start = queued.pending.last[0]
            start = max(last_start, end - count)
            queued.pending.discard(start, end)
            out.append((start, end))
            count -= end - start
        if queued is not None:
            self._end_if_empty(queued)
        return out[::-1]

    def cancel(self, job: JobId, ranges: Iterable[Range] | None = None) -> None:
        """Forget tasks of the job, running ones too; all of them if `ranges` is None."""
        parts = None if ranges is None else RangeSet(ranges)
        for queued in [each for each in self._leases.values() if each.lease.job == job]:
            whole = (queued.lease.start, queued.lease.stop)
            for start, stop in [whole] if parts is None else parts.within(*whole):
                queued.pending.discard(start, stop)
                queued.running.discard(start, stop)
            self._end_if_empty(queued)

    def return_unstarted(self) -> list[tuple[LeaseId, JobId, list[Range]]]:
        """Take all unstarted tasks out and return them by lease."""
        out = []
        for queued in [*self, *self._unspecified]:
            out.append((queued.lease.id, queued.lease.job, list(queued.pending.ranges())))
            queued.pending.clear()
            self._end_if_empty(queued)
        return out

    def return_unfinished(self) -> list[tuple[LeaseId, JobId, list[Range]]]:
        """Take all tasks out, running ones too, and return them by lease."""
        out = [(each.id, each.job, list(RangeSet.from_flat(each.unfinished).ranges())) for each in self.held()]
        self._leases.clear()
        self._ordered.clear()
        self._unspecified.clear()
        return out

    def held(self) -> list[HeldLease]:
        """Return what is unfinished, by lease."""
        out = []
        for queued in [*self._ordered, *self._unspecified]:
            unfinished = queued.pending.copy()
            for start, stop in queued.running.ranges():
                unfinished.add(start, stop)
            out.append(HeldLease(queued.lease.id, queued.lease.job, tuple(unfinished.flat())))
        return out

    def _end_if_empty(self, queued: QueuedLease) -> bool:
        if queued.pending or queued.running or queued.lease.id not in self._leases:
            return False
        del self._leases[queued.lease.id]
        (self._unspecified if queued.order is None else self._ordered).remove(queued)
        return True

    def check_invariants(self) -> None:
        """Raise AssertionError unless every lease is listed once, in order, and its tasks are in one place each."""
        listed = [*self._ordered, *self._unspecified]
        assert sorted(self._leases) == sorted(each.lease.id for each in listed)
        orders = [each.order for each in self._ordered if each.order is not None]
        assert orders == sorted(orders), f"out of order: {orders}"
        assert len(orders) == len(self._ordered), "a lease of an unknown job is handed out"
        assert all(each.order is None and not each.running for each in self._unspecified)
        for queued in listed:
            queued.pending.check_invariants()
            queued.running.check_invariants()
            assert queued.pending or queued.running, f"lease {queued.lease.id} is empty"
            for start, stop in queued.pending.ranges():
                assert not queued.running.within(start, stop), "a task is pending and running"
                assert queued.lease.start <= start < stop <= queued.lease.stop
