"""Leases: ranges granted to nodes."""

import msgspec

from fallow.model.ids import Digest, JobId, LeaseId

MAX_CHECKPOINT_BYTES = 1 << 30
"""Of one task. What is larger is worth a place of its own, and would keep a node's line busy for minutes."""
MAX_PROGRESS_MESSAGE = 200
"""Characters that a task may say of its progress: a line."""


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """The tasks `[start, stop)` of one job, granted to one node. The unit of dispatch."""

    id: LeaseId
    job: JobId
    start: int
    stop: int


class HeldLease(msgspec.Struct, frozen=True, array_like=True):
    """What a node says, after it reconnected, that it still holds of a lease."""

    id: LeaseId
    job: JobId
    unfinished: tuple[int, ...]
    """Flat ranges of the tasks that it has neither finished nor returned."""


class RunningTask(msgspec.Struct, frozen=True, array_like=True):
    """A task that a slot is on, as heartbeats list them."""

    lease: LeaseId
    index: int
    running_s: float
    fraction: float | None = None
    """How much of it is done, from 0 to 1, if it says so."""
    message: str = ""
    """What it says besides."""


class TaskCheckpoint(msgspec.Struct, frozen=True, array_like=True):
    """What a task may go on from: a blob with what an earlier attempt of it left in its checkpoint folder."""

    index: int
    digest: Digest


class RunningView(msgspec.Struct, frozen=True, kw_only=True):
    """A running task as shown to people."""

    index: int
    node: str
    """Its node's name."""
    running_s: float
    fraction: float | None = None
    """How much of it is done, from 0 to 1; None if it does not say."""
    message: str = ""

    @property
    def says_something(self) -> bool:
        return self.fraction is not None or bool(self.message)
