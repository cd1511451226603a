"""Changes to the durable truth. The scheduler and the hub emit them; the journal commits them in groups.

A commit applies a list of changes in order, all or none. Adding what is there already changes nothing.
"""

import msgspec

from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, LeaseId, NodeId, SessionId
from fallow.model.job import JobSpec
from fallow.model.lease import Lease
from fallow.model.page import InputPage, StoredPage
from fallow.model.token import Token


class AddJob(msgspec.Struct, frozen=True, array_like=True):
    """A job was accepted. Its function, sources and refs are counted as references to blobs."""

    spec: JobSpec


class AddInputs(msgspec.Struct, frozen=True, array_like=True):
    """A page of inputs was accepted."""

    page: InputPage


class SealJob(msgspec.Struct, frozen=True, array_like=True):
    """The job has `size` tasks and takes no more inputs."""

    job: JobId
    size: int
    input_ended: bool = False


class AddResults(msgspec.Struct, frozen=True, array_like=True):
    """Result pages were accepted: one row each call, in the order of arrival."""

    job: JobId
    pages: tuple[StoredPage, ...]


class SaveSettled(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot of what is settled, so that a restart reads it and only the result rows after it."""

    job: JobId
    settled: tuple[int, ...]
    """Flat ranges. Covers every AddResults of the job before it in order of commit."""
    failed: tuple[int, ...]
    """Flat ranges: those of the settled tasks that failed."""
    first_failures: tuple[Failure, ...]


class EndJob(msgspec.Struct, frozen=True, array_like=True):
    """The job is done or cancelled; comes with a SaveSettled before it. Its leases and checkpoints are forgotten."""

    job: JobId
    state: str
    ended_at: float


class DeleteJob(msgspec.Struct, frozen=True, array_like=True):
    """Everything of the job goes; its blobs lose a reference."""

    job: JobId


class AddLease(msgspec.Struct, frozen=True, array_like=True):
    lease: Lease
    node: NodeId


class EndLease(msgspec.Struct, frozen=True, array_like=True):
    lease: LeaseId


class SaveCheckpoint(msgspec.Struct, frozen=True, array_like=True):
    """A task left a checkpoint, from which another attempt may go on. It takes the place of an earlier one."""

    job: JobId
    index: int
    digest: Digest


class DropCheckpoint(msgspec.Struct, frozen=True, array_like=True):
    """The task is settled: nobody will go on from its checkpoint."""

    job: JobId
    index: int


class AddLogs(msgspec.Struct, frozen=True, array_like=True):
    """Output of tasks; best effort, bounded per job by the hub."""

    job: JobId
    entries: tuple["LogEntry", ...]


class LogEntry(msgspec.Struct, frozen=True, array_like=True):
    """What one task printed, in one piece or several."""

    index: int
    text: str
    node: str = ""


class AddToken(msgspec.Struct, frozen=True, array_like=True):
    token: Token


class RevokeToken(msgspec.Struct, frozen=True, array_like=True):
    token_id: str


class HoldBlob(msgspec.Struct, frozen=True, array_like=True):
    """A client session refers to a blob that it has put."""

    digest: Digest
    session: SessionId


class DropSession(msgspec.Struct, frozen=True, array_like=True):
    """The session is gone; the blobs that it put lose a reference."""

    session: SessionId


Change = (
    AddJob | AddInputs | SealJob | AddResults | SaveSettled | EndJob | DeleteJob | AddLease | EndLease
    | SaveCheckpoint | DropCheckpoint | AddLogs | AddToken | RevokeToken | HoldBlob | DropSession
)  # fmt: skip
