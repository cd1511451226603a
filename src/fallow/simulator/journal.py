"""The referee beside the simulated hub's state: naively, and apart from it, what was committed and what follows from that.

A task whose result is committed twice, a job that ends short of results, and a state that has anything else after a
crash than what was committed are errors.
"""

from collections.abc import Callable, Sequence
from typing import Any

from fallow.model.changes import AddInputs, AddJob, AddLease, AddResults, Change, EndJob, EndLease, SaveSettled, SealJob
from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.job import JobSpec
from fallow.model.lease import Lease
from fallow.model.ranges import RangeSet
from fallow.state.state import EndedJob, Recovered, RecoveredJob


class JobRow:
    """One job as it was committed."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.accepted = 0
        self.size: int | None = None
        self.input_ended = False
        self.done = RangeSet()
        self.failures: dict[int, str] = {}
        """Kind of failure by index."""
        self.first_failures: tuple[Failure, ...] = ()
        self.state = ""
        """How it ended."""
        self.rows = 0
        """Result rows since the last snapshot."""

    @property
    def settled(self) -> tuple[int, ...]:
        return tuple(self.done.flat())

    @property
    def failed(self) -> tuple[int, ...]:
        return tuple(RangeSet((index, index + 1) for index in sorted(self.failures)).flat())


class Journal:
    """Gathers changes for the next group commit, and keeps the books of all that was committed."""

    def __init__(self) -> None:
        self.epoch = 0
        self.jobs: dict[JobId, JobRow] = {}
        self.leases: dict[LeaseId, tuple[Lease, NodeId]] = {}
        self.commits = 0
        self._open: list[Change] = []
        self._after: list[Callable[[], None]] = []

    @property
    def is_dirty(self) -> bool:
        return bool(self._open or self._after)

    def append(self, change: Change) -> None:
        self._open.append(change)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when everything appended so far is durable."""
        self._after.append(callback)

    def commit(self, write: Callable[[Sequence[Change]], None] = lambda _: None) -> None:
        """Have `write` make durable what was appended, then call those who wait for it."""
        changes, self._open = self._open, []
        callbacks, self._after = self._after, []
        if changes:
            write(changes)
        for change in changes:
            self._apply(change)
        self.commits += 1
        for callback in callbacks:
            callback()

    def crash(self) -> None:
        """Forget what is not committed."""
        self._open.clear()
        self._after.clear()

    def _apply(self, change: Change) -> None:
        if isinstance(change, AddResults):
            self._add_results(change)
        elif isinstance(change, AddLease):
            self.leases.setdefault(change.lease.id, (change.lease, change.node))
        elif isinstance(change, EndLease):
            self.leases.pop(change.lease, None)
        elif isinstance(change, AddJob):
            self.jobs.setdefault(change.spec.id, JobRow(change.spec))
        elif isinstance(change, AddInputs):
            self.jobs[change.page.job].accepted = change.page.stop
        elif isinstance(change, SealJob):
            row = self.jobs[change.job]
            row.size, row.input_ended = change.size, change.input_ended
        elif isinstance(change, SaveSettled):
            self._check_snapshot(change)
        elif isinstance(change, EndJob):
            self._end(change)

    def _add_results(self, change: AddResults) -> None:
        row = self.jobs[change.job]
        row.rows += 1
        for each in change.pages:
            counts = RangeSet.from_flat(each.counts)
            for start, stop in counts.ranges():
                assert each.page.start <= start < stop <= each.page.stop, f"{change.job}: counts outside of its page"
                assert row.done.add(start, stop) == [(start, stop)], f"{change.job}: [{start}, {stop}) accepted twice"
            if each.page.partial:
                assert each.counts == (each.page.start, each.page.stop), f"{change.job}: a part of a partial counts"
            for failure in each.page.failures:
                if failure.index in counts:
                    row.failures[failure.index] = failure.kind
                    row.first_failures = (*row.first_failures, failure)[:100]

    def _check_snapshot(self, change: SaveSettled) -> None:
        row = self.jobs[change.job]
        row.rows = 0
        assert change.settled == row.settled, f"{change.job}: the snapshot is not what was committed"
        assert change.failed == row.failed, f"{change.job}: {change.failed} failed, {row.failed} committed"

    def _end(self, change: EndJob) -> None:
        row = self.jobs[change.job]
        row.state = change.state
        if change.state == "done":
            assert row.done == RangeSet([(0, row.size or 0)]), f"{change.job} ended short of results: {row.done}"
        for lease_id in [key for key, (lease, _) in self.leases.items() if lease.job == change.job]:
            del self.leases[lease_id]

    def check_recovered(self, recovered: Recovered, ended: Sequence[EndedJob]) -> None:
        """Raise AssertionError unless the state has, after a restart, exactly what was committed."""
        assert recovered.epoch == self.epoch, f"start {self.epoch} has the number {recovered.epoch}"
        unfinished = [row for row in self.jobs.values() if not row.state]
        have, had = [job.spec.id for job in recovered.jobs], [row.spec.id for row in unfinished]
        assert have == had, f"the unfinished jobs {had} came back as {have}"
        for job, row in zip(recovered.jobs, unfinished, strict=True):
            _check_same(job, row, RecoveredJob)
        by_id = {job.spec.id: job for job in ended}
        over = {key: row for key, row in self.jobs.items() if row.state}
        assert by_id.keys() == over.keys(), f"the ended jobs {[*over]} came back as {[*by_id]}"
        for key, row in over.items():
            _check_same(by_id[key], row, EndedJob)
        leases = {lease.id: (lease, node) for lease, node in recovered.leases}
        assert leases == self.leases, f"the leases {self.leases} came back as {leases}"


def _check_same(job: Any, row: JobRow, kind: Any) -> None:
    for name in kind.__struct_fields__:
        if name != "ended_at":
            had, has = getattr(row, name), getattr(job, name)
            assert has == had, f"{row.spec.id}: {name} was committed as {had} and came back as {has}"
