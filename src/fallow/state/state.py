"""The seam between the hub and its durable truth. Implementations: `memory.py` and `sql.py`.

Calls are synchronous. `commit` is called by one thread at a time (the journal's writer); the reading
methods may be called from other threads at the same time. What `commit` has returned from survives
`kill -9` and power loss where `is_durable` is true. `tests/unit/state/test_conformance.py` holds the contract.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from fallow.model.changes import Change, LogEntry
from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, NodeId, SessionId
from fallow.model.job import JobSpec
from fallow.model.lease import Lease
from fallow.model.page import InputPage, StoredPage
from fallow.model.ranges import Range
from fallow.model.token import Token


class RecoveredJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a restart needs to know of one unfinished job."""

    spec: JobSpec
    accepted: int
    """Number of inputs held: pages are contiguous from 0. For Counting and ResultsOf inputs: 0."""
    size: int | None
    """None while the job is open."""
    input_ended: bool
    settled: tuple[int, ...]
    """Flat ranges: the last snapshot plus the counted ranges of every result row after it."""
    failed: tuple[int, ...]
    """Flat ranges: those of the settled tasks that failed."""
    first_failures: tuple[Failure, ...]


class EndedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is done or cancelled, as lists show it and as named jobs are found again."""

    spec: JobSpec
    size: int | None
    accepted: int
    state: str
    ended_at: float
    input_ended: bool
    settled: tuple[int, ...]
    failed: tuple[int, ...]
    first_failures: tuple[Failure, ...]


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """All that a hub reads when it starts."""

    epoch: int
    """How often this state was opened, this time included; durable before `recover` returns."""
    state_id: int
    """Chosen at random when the state was made; 0 if it is in memory. Blobs are marked with it."""
    jobs: tuple[RecoveredJob, ...]
    """In order of creation."""
    leases: tuple[tuple[Lease, NodeId], ...]
    checkpoints: tuple[tuple[JobId, int, Digest], ...]
    """Of unfinished jobs, by job and task: also of tasks that were settled right before the hub ended."""
    tokens: tuple[Token, ...]
    sessions: tuple[SessionId, ...]
    """Sessions that hold blobs or own unnamed jobs, ended ones included."""


class State(Protocol):
    """Durable truth of one hub."""

    is_durable: bool
    """Whether a commit survives the process; if not, `commit` is quick and never waits for a disk."""

    def recover(self) -> Recovered:
        """Open the state and read what a restart needs.

        Raises StateInUse if another process holds it, StateTooNew if a newer Fallow wrote it.
        """
        ...

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply all changes, in order, as one transaction; durable when it returns.

        Idempotent: a job, page, token or lease that is there already stays as it is. Changes that name an unknown or
        deleted job are ignored. Raises OSError or a database error if nothing was applied.
        """
        ...

    def input_pages(self, job: JobId, start: int, stop: int) -> list[InputPage]:
        """Return the input pages that overlap `[start, stop)`, in order of start."""
        ...

    def result_pages(
        self, job: JobId, wanted: Sequence[Range], *, after: int = 0, limit_bytes: int
    ) -> tuple[list[StoredPage], int | None]:
        """Return result pages that count for `wanted`, in order of start, about `limit_bytes` of them at most, at least one if any.

        wanted: disjoint, ascending. after: pages that start before this index are left out. Returns the pages and where
        to go on (`after` of the next call), or None at the end.
        """
        ...

    def find_job(self, job: JobId) -> EndedJob | None:
        """Return an ended job; None if it is unknown or has not ended."""
        ...

    def ended_jobs(self, *, limit: int, before: float | None = None) -> list[EndedJob]:
        """Return ended jobs, latest end first, that ended before `before` (Unix time, seconds)."""
        ...

    def job_named(self, name: str) -> EndedJob | None:
        """Return the latest ended job of this name."""
        ...

    def logs(self, job: JobId, *, after: int = 0, limit: int = 1000) -> tuple[list[LogEntry], int | None]:
        """Return log entries in order of arrival from entry number `after`, and where to go on or None at the end.

        after: below 0, it counts from the end: -20 begins with the last twenty.
        """
        ...

    def log_size(self, job: JobId) -> tuple[int, int]:
        """Return how many log entries of a job are kept, and the bytes of their texts."""
        ...

    def unreferenced_blobs(self, candidates: Sequence[Digest]) -> list[Digest]:
        """Return those of `candidates` that no row refers to."""
        ...

    def blobs_held_by(self, holder: str) -> list[Digest]:
        """Return the blobs that a job or session refers to (holder: its id); candidates for sweeping once it is gone."""
        ...

    def reusable_bytes(self) -> int:
        """Return the room that deleted rows have left in the database's own file: what is written there takes no more of the disk."""
        ...

    def close(self) -> None:
        """Release the state folder or the connection."""
        ...
