"""The simulated hub's durable truth: what is committed survives its crash, what is not does not.

It also referees: a task whose result is committed twice, or a job that ends short of results, is an error.
"""

from collections.abc import Callable

import msgspec

from fallow.model.changes import AddInputs, AddJob, AddLease, AddResults, Change, EndJob, EndLease, SaveSettled, SealJob
from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.job import JobSpec
from fallow.model.lease import Lease
from fallow.model.ranges import RangeSet


class JobRow:
    """One job as the journal has it. Also what `Scheduler.restore` reads."""

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
    """Group commit in memory."""

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

    def commit(self) -> None:
        """Make durable what was appended, then call those who wait for it."""
        changes, self._open = self._open, []
        callbacks, self._after = self._after, []
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
            self.leases[change.lease.id] = (change.lease, change.node)
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


class JobResult(msgspec.Struct, frozen=True):
    """How one job came out."""

    state: str
    settled: int
    failed: int
