"""Events: what happened, for people and programs that watch (SSE, later streams). Never the source of truth."""

import msgspec

from fallow.model.ids import JobId, LeaseId, NodeId


class JobCreated(msgspec.Struct, frozen=True, tag="job_created"):
    job: JobId
    name: str | None
    function_name: str


class JobEnded(msgspec.Struct, frozen=True, tag="job_ended"):
    job: JobId
    state: str
    settled: int
    failed: int


class JobDeleted(msgspec.Struct, frozen=True, tag="job_deleted"):
    job: JobId


class NodeJoined(msgspec.Struct, frozen=True, tag="node_joined"):
    node: NodeId
    name: str


class NodeLost(msgspec.Struct, frozen=True, tag="node_lost"):
    """The node's leases, `tasks` tasks in all, went back to the front of the queue."""

    node: NodeId
    name: str
    leases: int
    tasks: int


class LeaseGranted(msgspec.Struct, frozen=True, tag="lease_granted"):
    lease: LeaseId
    job: JobId
    node: NodeId
    start: int
    stop: int


class TasksSettled(msgspec.Struct, frozen=True, tag="tasks_settled"):
    job: JobId
    node: NodeId
    start: int
    stop: int
    failed: int


Event = JobCreated | JobEnded | JobDeleted | NodeJoined | NodeLost | LeaseGranted | TasksSettled


class Stamped(msgspec.Struct, frozen=True):
    """An event with its number and time."""

    number: int
    at: float
    """Unix time, seconds."""
    event: Event
