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

    def __init__(self, lease: Lease, order: tuple[int, int], cores: int, memory_bytes: int) -> None:
        self.lease = lease
        self.order = order
        self.cores = cores
        self.memory_bytes = memory_bytes
        self.pending = RangeSet([(lease.start, lease.stop)])
        self.running = RangeSet()


class LeaseQueue:
    """All leases of the node, ordered by (priority, arrival)."""

    def __init__(self) -> None:
        self._leases: dict[LeaseId, QueuedLease] = {}
        self._ordered: list[QueuedLease] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[QueuedLease]:
        """Yield leases that have unstarted tasks, most urgent first."""
        return (each for each in self._ordered.copy() if each.pending)

    def get(self, lease: LeaseId) -> QueuedLease | None:
        return self._leases.get(lease)

    def ids(self) -> tuple[LeaseId, ...]:
        return tuple(self._leases)

    def has_job(self, job: JobId) -> bool:
        return any(each.lease.job == job for each in self._ordered)

    def of_job(self, job: JobId) -> list[QueuedLease]:
        return [each for each in self._ordered if each.lease.job == job]

    def add(self, lease: Lease, *, priority: int, cores: int = 1, memory_bytes: int = 0) -> None:
        """Queue a lease; one that is there already (a repeated frame) changes nothing."""
        if lease.id in self._leases or lease.start >= lease.stop:
            return
        self._arrivals += 1
        queued = QueuedLease(lease, (-priority, self._arrivals), cores, memory_bytes)
        self._leases[lease.id] = queued
        insort(self._ordered, queued, key=_order)

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
        for queued in self.of_job(job):
            whole = (queued.lease.start, queued.lease.stop)
            for start, stop in [whole] if parts is None else parts.within(*whole):
                queued.pending.discard(start, stop)
                queued.running.discard(start, stop)
            self._end_if_empty(queued)

    def return_unstarted(self) -> list[tuple[Lease, list[Range]]]:
        """Take all unstarted tasks out and return them by lease."""
        out = []
        for queued in list(self):
            out.append((queued.lease, list(queued.pending.ranges())))
            queued.pending.clear()
            self._end_if_empty(queued)
        return out

    def held(self) -> list[HeldLease]:
        """Return what is unfinished, by lease."""
        out = []
        for queued in self._ordered:
            unfinished = queued.pending.copy()
            for start, stop in queued.running.ranges():
                unfinished.add(start, stop)
            out.append(HeldLease(queued.lease.id, queued.lease.job, tuple(unfinished.flat())))
        return out

    def _end_if_empty(self, queued: QueuedLease) -> bool:
        if queued.pending or queued.running or queued.lease.id not in self._leases:
            return False
        del self._leases[queued.lease.id]
        self._ordered.remove(queued)
        return True

    def check_invariants(self) -> None:
        """Raise AssertionError unless every lease is listed once, in order, and its tasks are in one place each."""
        assert sorted(self._leases) == sorted(each.lease.id for each in self._ordered)
        orders = [each.order for each in self._ordered]
        assert orders == sorted(orders), f"out of order: {orders}"
        for queued in self._ordered:
            queued.pending.check_invariants()
            queued.running.check_invariants()
            assert queued.pending or queued.running, f"lease {queued.lease.id} is empty"
            for start, stop in queued.pending.ranges():
                assert not queued.running.within(start, stop), "a task is pending and running"
                assert queued.lease.start <= start < stop <= queued.lease.stop
