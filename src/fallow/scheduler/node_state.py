"""What the scheduler holds of one node: its link's state, its leases, its capacity."""

from math import log2
from typing import TYPE_CHECKING

import msgspec

from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.node import NodeInfo
from fallow.model.node_view import NodeView
from fallow.scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    from fallow.scheduler.job_state import JobState
    from fallow.scheduler.lease_state import LeaseState
    from fallow.scheduler.work_class import WorkClass

LEAST_SCORE, MOST_SCORE = 1e-3, 1e3
"""Scores beyond are taken for faults of the benchmark, and count as 1."""

SPEED_STEPS = 20
"""Nodes are ranked by speed in half octaves, this many to either side of the reference machine."""


class Away(msgspec.Struct, frozen=True):
    """Not connected; its leases wait for it until then."""

    until_mono: float


class Joining(msgspec.Struct, frozen=True):
    """Said hello, and delivers what it has finished; if it has not presented its leases by then, it is given up."""

    until_mono: float


class Ready(msgspec.Struct, frozen=True):
    """May be granted leases."""


Presence = Away | Joining | Ready

UNKNOWN = NodeInfo(name="", cores=0, slots=0, memory_bytes=0, os="", arch="", pythons=())
"""Of a node that is known only by the leases that the journal has for it."""


class NodeState:
    """One node in the scheduler."""

    __slots__ = (
        "accepting", "alone", "busy_mono", "cached", "capacity", "drains_for", "finished_tasks", "id", "info", "leases",
        "presence", "ranks", "reason", "score", "seen_mono", "speed_step", "timer_mono",
    )  # fmt: skip

    def __init__(self, node: NodeId, info: NodeInfo, presence: Presence, now: float) -> None:
        self.id = node
        self.info = info
        self.set_score(info.score)
        self.presence: Presence = presence
        self.accepting = True
        self.reason = ""
        self.leases: dict[LeaseId, LeaseState] = {}
        self.cached: dict[JobId, JobState] = {}
        """Unended jobs that it had leases of."""
        self.capacity: dict[WorkClass, int] = {}
        """Classes whose tasks can run here, and how many at a time."""
        self.ranks: dict[WorkClass, int] = {}
        """Classes of which the node would take a task now, and its place among their hungry nodes."""
        self.alone: LeaseState | None = None
        """The lease of a suspect task, that must be the only one here."""
        self.drains_for: tuple[JobState, int] | None = None
        """The suspect task that waits for this node to be empty."""
        self.finished_tasks = 0
        self.seen_mono = now
        self.busy_mono = now
        """When it last went from idle to having leases."""
        self.timer_mono = float("inf")
        """The earliest entry of this node among the scheduler's timers."""

    @property
    def may_be_granted(self) -> bool:
        """Whether the node is connected, has presented its leases, and takes more."""
        return self.accepting and type(self.presence) is Ready

    def set_score(self, score: float) -> None:
        """Take in a published score."""
        self.score = score if LEAST_SCORE <= score <= MOST_SCORE else 1.0
        self.speed_step = max(-SPEED_STEPS, min(SPEED_STEPS, round(log2(self.score) * 2)))
        """Place in the order of speeds: half octaves of the score."""

    def deadline(self, settings: SchedulerSettings) -> float:
        """Return when the node is lost unless it is heard of before."""
        if not isinstance(self.presence, Ready):
            return self.presence.until_mono
        if self.leases:
            return max(self.seen_mono, self.busy_mono) + settings.heartbeat_s * settings.missed_beats
        return self.seen_mono + settings.idle_heartbeat_s * settings.missed_beats

    def room(self, work_class: "WorkClass", priority: int | None = None) -> int:
        """Return how many tasks of the class fit beside what is reserved.

        Leases of lower priority than `priority` do not count: the node runs them after it.
        """
        slots, cores, memory_bytes = self.info.slots, self.info.cores, self.info.memory_bytes
        for lease in self.leases.values():
            count = lease.reserved
            if count and (priority is None or lease.job.priority >= priority):
                other = lease.job.work_class
                slots -= count
                cores -= count * other.cores
                memory_bytes -= count * other.memory_bytes
        return work_class.fit(slots, cores, memory_bytes)

    def reserve(self) -> None:
        """Share the node's capacity among its leases, highest priority first, then oldest first."""
        leases = list(self.leases.values())
        if len(leases) > 1:
            leases.sort(key=_by_priority)
        slots, cores, memory_bytes = self.info.slots, self.info.cores, self.info.memory_bytes
        for lease in leases:
            work_class = lease.job.work_class
            count = min(len(lease.unfinished), work_class.fit(slots, cores, memory_bytes))
            lease.reserved = count
            slots -= count
            cores -= count * work_class.cores
            memory_bytes -= count * work_class.memory_bytes

    def view(self, now: float) -> NodeView:
        return NodeView(
            id=self.id,
            info=self.info,
            connected=not isinstance(self.presence, Away),
            accepting=self.accepting,
            reason=self.reason,
            leases=len(self.leases),
            leased_tasks=sum(len(lease.unfinished) for lease in self.leases.values()),
            running_tasks=sum(lease.reserved for lease in self.leases.values()),
            finished_tasks=self.finished_tasks,
            silent_s=max(0.0, now - self.seen_mono),
            jobs=tuple(dict.fromkeys(lease.job.id for lease in self.leases.values())),
        )


def _by_priority(lease: "LeaseState") -> int:
    return -lease.job.priority
