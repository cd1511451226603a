"""Jobs beyond the scheduler's memory: their names, the ended ones, who reads whom, and deletion."""

from collections import OrderedDict

import msgspec

from fallow.model.errors import JobNotFound
from fallow.model.ids import Digest, JobId
from fallow.model.job import JobInfo, JobProgress, JobSpec
from fallow.model.ranges import RangeSet
from fallow.state.state import EndedJob

REMEMBERED_ENDED_JOBS = 10_000
"""Ended jobs kept in memory for their readers; older ones are read from the state. About 2 KB each."""


class EndedView(msgspec.Struct, frozen=True):
    """An ended job, ready to be shown and read."""

    info: JobInfo
    settled: RangeSet
    failed: RangeSet


def ended_view(job: EndedJob) -> EndedView:
    """Make the view of a job that the state returned."""
    settled, failed = RangeSet.from_flat(job.settled), RangeSet.from_flat(job.failed)
    progress = JobProgress(
        state="done" if job.state == "done" else "cancelled",
        accepted=job.accepted,
        size=job.size,
        settled=len(settled),
        failed=len(failed),
        leased=0,
        input_ended=job.input_ended,
    )
    info = JobInfo(spec=job.spec, progress=progress, first_failures=job.first_failures, ended_at=job.ended_at)
    return EndedView(info, settled, failed)


class JobBook:
    """Specs of live jobs, views of ended ones, and an index of names."""

    def __init__(self) -> None:
        self.specs: dict[JobId, JobSpec] = {}
        """Every job that the scheduler knows."""
        self.accepted: dict[JobId, int] = {}
        """Inputs that each live job has, for those that come as pages."""
        self.sizes: dict[JobId, int] = {}
        self.sealed_early: set[JobId] = set()
        """Live jobs whose client died before their inputs ended."""
        self.page_blobs: dict[JobId, set[Digest]] = {}
        """Blobs of pages that came since the hub started."""
        self._names: dict[tuple[str, str], JobId] = {}
        self._ended: OrderedDict[JobId, EndedView] = OrderedDict()
        self._readers: dict[JobId, set[JobId]] = {}
        self._doomed: set[JobId] = set()

    def add(self, spec: JobSpec) -> None:
        self.specs[spec.id] = spec
        if spec.name is not None:
            self._names[spec.owner, spec.name] = spec.id

    def add_name(self, spec: JobSpec) -> None:
        """Index an ended job's name, unless a later job took it."""
        if spec.name is not None:
            self._names.setdefault((spec.owner, spec.name), spec.id)

    def named(self, name: str, owner: str) -> JobId | None:
        """Return the owner's job of this name; failing that, for admins (`owner` ""), anyone's."""
        found = self._names.get((owner, name))
        if found is None and not owner:
            return next((job for (_, each), job in self._names.items() if each == name), None)
        return found

    def ended(self, job: JobId) -> EndedView | None:
        view = self._ended.get(job)
        if view is not None:
            self._ended.move_to_end(job)
        return view

    def remember_ended(self, view: EndedView) -> None:
        """Keep the view of a job that has ended; its spec leaves the live ones."""
        job = view.info.spec.id
        self._leave_live(job)
        self._ended[job] = view
        self._ended.move_to_end(job)
        if len(self._ended) > REMEMBERED_ENDED_JOBS:
            self._ended.popitem(last=False)

    def forget(self, spec: JobSpec) -> None:
        """The job is deleted."""
        self._leave_live(spec.id)
        self._ended.pop(spec.id, None)
        self._doomed.discard(spec.id)
        if spec.name is not None and self._names.get((spec.owner, spec.name)) == spec.id:
            del self._names[spec.owner, spec.name]

    def _leave_live(self, job: JobId) -> None:
        self.specs.pop(job, None)
        self.accepted.pop(job, None)
        self.sizes.pop(job, None)
        self.sealed_early.discard(job)

    def add_reader(self, parent: JobId, child: JobId) -> None:
        """`child` takes the parent's results as inputs: the parent stays until the child has ended."""
        self._readers.setdefault(parent, set()).add(child)

    def end_reader(self, parent: JobId, child: JobId) -> bool:
        """The child has ended; return True if the parent was to be deleted and now can be."""
        readers = self._readers.get(parent)
        if readers is None:
            return False
        readers.discard(child)
        if readers:
            return False
        del self._readers[parent]
        return parent in self._doomed

    def doom(self, job: JobId) -> bool:
        """Mark for deletion; return True if it must wait for jobs that read it."""
        if self._readers.get(job):
            self._doomed.add(job)
            return True
        return False

    def spec_owned_by(self, job: JobId, owner: str | None) -> JobSpec:
        """Return the spec of a live or remembered job; raises JobNotFound. owner None: anyone's (admins)."""
        spec = self.specs.get(job)
        if spec is None and (view := self._ended.get(job)) is not None:
            spec = view.info.spec
        if spec is None or (owner is not None and spec.owner != owner):
            raise JobNotFound(f"there is no job {job!r}; `fallow jobs` lists yours")
        return spec
