"""A `State` in this process's memory, for the embedded grid. Page bytes beyond a limit go to temporary files.

`commit` is on the path of every round trip, so it costs about a microsecond per change and never waits for a disk
while the pages fit in memory. Page structs are kept as they came, never copied.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from fallow.model.changes import (
    AddInputs,
    AddJob,
    AddLease,
    AddLogs,
    AddResults,
    AddToken,
    Change,
    DeleteJob,
    DropCheckpoint,
    DropSession,
    EndJob,
    EndLease,
    HoldBlob,
    LogEntry,
    RevokeToken,
    SaveCheckpoint,
    SaveSettled,
    SealJob,
)
from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, LeaseId, NodeId, SessionId
from fallow.model.job import JobSpec
from fallow.model.lease import Lease
from fallow.model.page import InputPage, StoredPage
from fallow.model.ranges import Range
from fallow.model.token import Token
from fallow.state.packing import FIRST_FAILURES, Wanted, counted_failures, merge_ranges, page_bytes
from fallow.state.spill import Spilled, SpillFile
from fallow.state.state import EndedJob, Recovered, RecoveredJob

MEMORY_BYTES = 256 * 10**6
"""Page bytes held in memory by default: enough that most scripts never touch the disk, little on any desktop."""

SPILL_BYTES = 8 * 1024
"""Pages below this stay in memory even beyond the limit, so that many small jobs do not need a file each."""


class _Job:
    """One job with its pages. `starts` of inputs and results are sorted and run beside their pages."""

    __slots__ = (
        "ended_at", "failed", "failures", "held_bytes", "input_ended", "input_pages", "input_starts", "logs",
        "result_pages", "result_starts", "settled", "size", "span", "spec", "spill", "state", "tail",
    )  # fmt: skip

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.size: int | None = None
        self.input_ended = False
        self.state: str | None = None
        self.ended_at = 0.0
        self.settled: tuple[int, ...] = ()
        self.failed: tuple[int, ...] = ()
        self.failures: tuple[Failure, ...] = ()
        self.tail: list[StoredPage] = []  # pages that came after the snapshot, in order of arrival
        self.input_starts: list[int] = []
        self.input_pages: list[tuple[InputPage, Spilled | None]] = []
        self.result_starts: list[int] = []
        self.result_pages: list[tuple[StoredPage, Spilled | None]] = []
        self.span = 0  # no result page is wider
        self.logs: list[LogEntry] = []
        self.spill: SpillFile | None = None
        self.held_bytes = 0

    @property
    def accepted(self) -> int:
        return self.input_pages[-1][0].stop if self.input_pages else 0

    def progress(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Failure, ...]]:
        """Return settled, failed and the first failures: the snapshot and what came after it."""
        settled = merge_ranges(self.settled, [stored.counts for stored in self.tail])
        late = [failure for stored in self.tail for failure in counted_failures(stored)]
        failed = merge_ranges(self.failed, [(failure.index, failure.index + 1) for failure in late])
        return settled, failed, (*self.failures, *late)[:FIRST_FAILURES]

    def load(self, place: Spilled) -> bytes | None:
        """Return a page's bytes from the spill file; None if the job was deleted meanwhile."""
        return self.spill.read(place) if self.spill is not None else None


class MemoryState:
    """A `State` that ends with its process."""

    is_durable = False

    def __init__(self, spill_folder: Path | None = None, *, limit_bytes: int = MEMORY_BYTES) -> None:
        """Make an empty state.

        spill_folder: where temporary files go, which must exist; None: the system's. limit_bytes: page bytes held in
        memory before larger pages go to files.
        """
        self._spill_folder = spill_folder
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._epoch = 0
        self._lock = threading.Lock()
        self._jobs: dict[JobId, _Job] = {}
        self._leases: dict[LeaseId, tuple[Lease, NodeId]] = {}
        self._checkpoints: dict[JobId, dict[int, Digest]] = {}
        self._tokens: dict[str, Token] = {}
        self._job_blobs: dict[JobId, set[Digest]] = {}
        self._session_blobs: dict[SessionId, set[Digest]] = {}
        self._spilled: dict[tuple[JobId, int], Spilled] = {}  # of the commit under way, by job and id() of the bytes
        self._apply: dict[type[Change], Callable[[Any], None]] = {
            AddJob: self._add_job,
            AddInputs: self._add_inputs,
            SealJob: self._seal_job,
            AddResults: self._add_results,
            SaveSettled: self._save_settled,
            EndJob: self._end_job,
            DeleteJob: self._delete_job,
            AddLease: self._add_lease,
            EndLease: self._end_lease,
            SaveCheckpoint: self._save_checkpoint,
            DropCheckpoint: self._drop_checkpoint,
            AddLogs: self._add_logs,
            AddToken: self._add_token,
            RevokeToken: self._revoke_token,
            HoldBlob: self._hold_blob,
            DropSession: self._drop_session,
        }

    def recover(self) -> Recovered:
        with self._lock:
            self._epoch += 1
            unfinished = [job for job in self._jobs.values() if job.state is None]
            sessions = {job.spec.session for job in self._jobs.values() if job.spec.name is None and job.spec.session}
            return Recovered(
                epoch=self._epoch,
                state_id=0,
                jobs=tuple(map(_recovered, unfinished)),
                leases=tuple(each for each in self._leases.values() if self._jobs[each[0].job].state is None),
                checkpoints=tuple(
                    (job.spec.id, index, digest)
                    for job in unfinished
                    for index, digest in sorted(self._checkpoints.get(job.spec.id, {}).items())
                ),
                tokens=tuple(self._tokens.values()),
                sessions=tuple(sorted(sessions | self._session_blobs.keys())),
            )

    def commit(self, changes: Sequence[Change]) -> None:
        with self._lock:
            # Only writing to a file can fail, so that comes first. One group may go over the limit.
            if self._held_bytes > self._limit_bytes:
                self._spilled = self._spill(changes)
            apply = self._apply
            for change in changes:
                apply[type(change)](change)
            if self._spilled:
                self._spilled = {}

    def input_pages(self, job: JobId, start: int, stop: int) -> list[InputPage]:
        with self._lock:
            found = self._jobs.get(job)
            if found is None or start >= stop:
                return []
            low = max(bisect_right(found.input_starts, start) - 1, 0)
            rows = found.input_pages[low : bisect_left(found.input_starts, stop)]
        pages = []
        for page, place in rows:
            if page.stop > start:
                if place is None:
                    pages.append(page)
                elif (data := found.load(place)) is not None:
                    pages.append(msgspec.structs.replace(page, data=data))
        return pages

    def result_pages(
        self, job: JobId, wanted: Sequence[Range], *, after: int = 0, limit_bytes: int
    ) -> tuple[list[StoredPage], int | None]:
        pages: list[StoredPage] = []
        with self._lock:
            found = self._jobs.get(job)
            if found is None or not wanted:
                return [], None
            rows, on = self._choose_results(found, Wanted(wanted), after, limit_bytes)
        for stored, place in rows:
            if place is None:
                pages.append(stored)
            elif (data := found.load(place)) is not None:
                page = msgspec.structs.replace(stored.page, data=data)
                pages.append(StoredPage(page, stored.counts))
        return pages, on

    def find_job(self, job: JobId) -> EndedJob | None:
        with self._lock:
            found = self._jobs.get(job)
            return _ended(found) if found is not None and found.state is not None else None

    def ended_jobs(self, *, limit: int, before: float | None = None) -> list[EndedJob]:
        with self._lock:
            return [_ended(job) for job in islice(self._latest_ended(before), limit)]

    def job_named(self, name: str) -> EndedJob | None:
        with self._lock:
            for job in self._latest_ended(None):
                if job.spec.name == name:
                    return _ended(job)
            return None

    def logs(self, job: JobId, *, after: int = 0, limit: int = 1000) -> tuple[list[LogEntry], int | None]:
        with self._lock:
            found = self._jobs.get(job)
            if found is None:
                return [], None
            after = after if after >= 0 else max(0, len(found.logs) + after)
            on = after + limit
            return found.logs[after:on], on if on < len(found.logs) else None

    def log_size(self, job: JobId) -> tuple[int, int]:
        with self._lock:
            found = self._jobs.get(job)
            entries = found.logs if found is not None else []
            return len(entries), sum(len(entry.text.encode()) for entry in entries)

    def unreferenced_blobs(self, candidates: Sequence[Digest]) -> list[Digest]:
        with self._lock:
            checkpoints = (saved.values() for saved in self._checkpoints.values())
            used = set().union(*self._job_blobs.values(), *self._session_blobs.values(), *checkpoints)
        return [digest for digest in candidates if digest not in used]

    def blobs_held_by(self, holder: str) -> list[Digest]:
        with self._lock:
            of_job = {*self._job_blobs.get(JobId(holder), ()), *self._checkpoints.get(JobId(holder), {}).values()}
            return sorted(of_job | self._session_blobs.get(SessionId(holder), set()))

    def reusable_bytes(self) -> int:
        return 0

    def close(self) -> None:
        with self._lock:
            for job in self._jobs.values():
                if job.spill is not None:
                    job.spill.close()

    def _spill(self, group: Sequence[Change]) -> dict[tuple[JobId, int], Spilled]:
        """Write the large pages of a group to files, before anything is applied."""
        places = {}
        for change in group:
            if isinstance(change, AddInputs):
                job_id, pages = change.page.job, [change.page.data]
            elif isinstance(change, AddResults):
                job_id, pages = change.job, [stored.page.data for stored in change.pages]
            else:
                continue
            job = self._jobs.get(job_id)
            for data in pages:
                if job is not None and data is not None and len(data) >= SPILL_BYTES:
                    if job.spill is None:
                        job.spill = SpillFile(self._spill_folder)
                    places[job_id, id(data)] = job.spill.append(data)
        return places

    def _place(self, job: _Job, data: bytes | None) -> Spilled | None:
        """Account for a page's bytes; return where they were spilled to, or None if they stay in memory."""
        if data is None:
            return None
        if self._spilled and job.spill is not None:
            place = self._spilled.get((job.spec.id, id(data)))
            if place is not None:
                return place
        job.held_bytes += len(data)
        self._held_bytes += len(data)
        return None

    def _choose_results(
        self, job: _Job, wanted: Wanted, after: int, limit_bytes: int
    ) -> tuple[list[tuple[StoredPage, Spilled | None]], int | None]:
        rows: list[tuple[StoredPage, Spilled | None]] = []
        room = limit_bytes
        low = bisect_left(job.result_starts, max(after, wanted.first - job.span))
        high = bisect_left(job.result_starts, wanted.stop)
        last = -1
        for at in range(low, high):
            stored, place = job.result_pages[at]
            if not wanted.touches(stored.counts):
                continue
            if room <= 0 and stored.page.start != last:  # pages of one start must not be parted: `after` is a start
                return rows, stored.page.start
            rows.append((stored, place))
            last = stored.page.start
            room -= page_bytes(stored.page) + (place.length if place is not None else 0)
        return rows, None

    def _latest_ended(self, before: float | None) -> Iterator[_Job]:
        ended = [job for job in reversed(self._jobs.values()) if job.state is not None]
        ended.sort(key=lambda job: job.ended_at, reverse=True)
        return (job for job in ended if before is None or job.ended_at < before)

    def _add_job(self, change: AddJob) -> None:
        spec = change.spec
        if spec.id not in self._jobs:
            self._jobs[spec.id] = _Job(spec)
            self._job_blobs[spec.id] = set(spec.blobs)

    def _add_inputs(self, change: AddInputs) -> None:
        page = change.page
        job = self._jobs.get(page.job)
        if job is None:
            return
        starts = job.input_starts
        at = bisect_left(starts, page.start)
        if at < len(starts) and starts[at] == page.start:
            return
        place = self._place(job, page.data)
        if place is not None:
            page = msgspec.structs.replace(page, data=None)
        starts.insert(at, page.start)
        job.input_pages.insert(at, (page, place))
        if page.refs:
            self._job_blobs[page.job].update(page.refs)
        if page.blob is not None:
            self._job_blobs[page.job].add(page.blob)

    def _seal_job(self, change: SealJob) -> None:
        job = self._jobs.get(change.job)
        if job is not None:
            job.size, job.input_ended = change.size, change.input_ended

    def _add_results(self, change: AddResults) -> None:
        job = self._jobs.get(change.job)
        if job is None:
            return
        starts, rows = job.result_starts, job.result_pages
        for stored in change.pages:
            page = stored.page
            at = bisect_right(starts, page.start)
            if at and starts[at - 1] == page.start and _is_there(rows, at, stored):
                continue
            place = self._place(job, page.data)
            if place is not None:
                stored = StoredPage(msgspec.structs.replace(page, data=None), stored.counts)  # noqa: PLW2901
            starts.insert(at, page.start)
            rows.insert(at, (stored, place))
            job.tail.append(stored)
            job.span = max(job.span, page.stop - page.start)
            self._job_blobs[change.job].update(page.blobs)

    def _save_settled(self, change: SaveSettled) -> None:
        job = self._jobs.get(change.job)
        if job is not None:
            job.settled, job.failed = change.settled, change.failed
            job.failures = change.first_failures[:FIRST_FAILURES]
            job.tail = []

    def _end_job(self, change: EndJob) -> None:
        job = self._jobs.get(change.job)
        if job is not None:
            job.state, job.ended_at = change.state, change.ended_at
            self._forget_leases(change.job)
            self._checkpoints.pop(change.job, None)

    def _delete_job(self, change: DeleteJob) -> None:
        job = self._jobs.pop(change.job, None)
        if job is not None:
            self._held_bytes -= job.held_bytes
            del self._job_blobs[change.job]
            self._forget_leases(change.job)
            self._checkpoints.pop(change.job, None)
            if job.spill is not None:
                job.spill.close()

    def _forget_leases(self, job: JobId) -> None:
        for lease in [key for key, (lease, _) in self._leases.items() if lease.job == job]:
            del self._leases[lease]

    def _add_lease(self, change: AddLease) -> None:
        if change.lease.job in self._jobs:
            self._leases.setdefault(change.lease.id, (change.lease, change.node))

    def _end_lease(self, change: EndLease) -> None:
        self._leases.pop(change.lease, None)

    def _save_checkpoint(self, change: SaveCheckpoint) -> None:
        if change.job in self._jobs:
            self._checkpoints.setdefault(change.job, {})[change.index] = change.digest

    def _drop_checkpoint(self, change: DropCheckpoint) -> None:
        self._checkpoints.get(change.job, {}).pop(change.index, None)

    def _add_logs(self, change: AddLogs) -> None:
        job = self._jobs.get(change.job)
        if job is not None:
            job.logs += change.entries

    def _add_token(self, change: AddToken) -> None:
        self._tokens.setdefault(change.token.id, change.token)

    def _revoke_token(self, change: RevokeToken) -> None:
        self._tokens.pop(change.token_id, None)

    def _hold_blob(self, change: HoldBlob) -> None:
        self._session_blobs.setdefault(change.session, set()).add(change.digest)

    def _drop_session(self, change: DropSession) -> None:
        self._session_blobs.pop(change.session, None)


def _is_there(rows: list[tuple[StoredPage, Spilled | None]], at: int, stored: StoredPage) -> bool:
    """Return whether a page of this start that counts from the same index is there, just before position `at`."""
    for before in range(at - 1, -1, -1):
        each = rows[before][0]
        if each.page.start != stored.page.start:
            return False
        if each.counts[:1] == stored.counts[:1]:
            return True
    return False


def _recovered(job: _Job) -> RecoveredJob:
    settled, failed, failures = job.progress()
    return RecoveredJob(
        spec=job.spec,
        accepted=job.accepted,
        size=job.size,
        input_ended=job.input_ended,
        settled=settled,
        failed=failed,
        first_failures=failures,
    )


def _ended(job: _Job) -> EndedJob:
    settled, failed, failures = job.progress()
    return EndedJob(
        spec=job.spec,
        size=job.size,
        accepted=job.accepted,
        state=job.state or "",
        ended_at=job.ended_at,
        input_ended=job.input_ended,
        settled=settled,
        failed=failed,
        first_failures=failures,
    )
