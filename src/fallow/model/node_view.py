"""A node as pages, REST and the command line show it."""

import msgspec

from fallow.model.ids import JobId, NodeId
from fallow.model.node import NodeInfo


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub knows of one node at one moment."""

    id: NodeId
    info: NodeInfo
    connected: bool
    accepting: bool
    """Whether it takes new leases."""
    reason: str = ""
    """Why not."""
    leases: int = 0
    leased_tasks: int = 0
    """Unfinished tasks of its leases."""
    running_tasks: int = 0
    """Tasks that its capacity is reserved for."""
    finished_tasks: int = 0
    """Tasks finished since the hub started or the node was last lost."""
    silent_s: float = 0.0
    """Seconds since it was last heard of."""
    jobs: tuple[JobId, ...] = ()
    """Jobs that it holds leases of."""
