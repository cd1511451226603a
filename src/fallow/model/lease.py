"""Leases: ranges granted to nodes."""

import msgspec

from fallow.model.ids import JobId, LeaseId


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
