"""What the scheduler holds of one lease."""

from itertools import islice
from typing import TYPE_CHECKING

from fallow.model.ids import LeaseId
from fallow.model.ranges import RangeSet

if TYPE_CHECKING:
    from fallow.scheduler.job_state import JobState
    from fallow.scheduler.node_state import NodeState


class LeaseState:
    """A range that is out at a node.

    Every unsettled task that is out belongs to one lease, its primary. A second attempt is a lease of its own, a copy:
    it points at the primary as its `original`, and its tasks are a part of the original's.
    """

    __slots__ = (
        "copies", "granted_mono", "id", "is_careful", "is_probe",
        "is_recorded", "job", "missed_mono", "moved_mono", "node", "original",
        "recall_until", "reserved", "running", "unfinished",
    )  # fmt: skip

    def __init__(self, lease: LeaseId, job: "JobState", node: "NodeState", now: float) -> None:
        self.id = lease
        self.job = job
        self.node = node
        self.unfinished = RangeSet()
        """Tasks that are neither settled nor back in the queue."""
        self.reserved = 0
        """Tasks for which the node's capacity is set aside; the rest wait at the node for theirs."""
        self.granted_mono = now
        self.moved_mono = now
        """When the lease was granted or last brought a result: its running tasks are no younger."""
        self.missed_mono: float | None = None
        """When a heartbeat first did not list the lease, if the last one did not either."""
        self.running: dict[int, float] = {}
        """Start times of tasks that the last heartbeat said are running."""
        self.original: LeaseState | None = None
        self.copies: list[LeaseState] = []
        self.recall_until = 0.0
        """A recall is out, or came back empty; not again before this time."""
        self.is_careful = False
        """Of one task in trouble."""
        self.is_probe = False
        """Granted to measure the job with; until its first result comes the node is granted nothing ahead."""
        self.is_recorded = False
        """Whether the journal knows it; copies are not recorded."""

    def started(self) -> list[tuple[int, float]]:
        """Return the tasks that are taken to be running, with their start times.

        What the last heartbeat listed, or else the first ones, as many as the node has capacity for.
        """
        known = [(index, since) for index, since in self.running.items() if index in self.unfinished]
        if known:
            return known
        indices = (index for start, stop in self.unfinished.ranges() for index in range(start, stop))
        return [(index, self.moved_mono) for index in islice(indices, self.reserved)]
