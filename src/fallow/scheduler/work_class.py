"""A class of work: all jobs with equal requirements, and the nodes that meet them.

A node that does not meet the requirements of a class skips all of it at once. Jobs stand in a heap that is updated
lazily: an entry is right or late, never early, and is put right when it comes to the top.
"""

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from fallow.model.ids import JobId, NodeId
from fallow.model.requirements import Requirements
from fallow.scheduler.hungry import HungryNodes

if TYPE_CHECKING:
    from fallow.scheduler.job_state import JobState, Key
    from fallow.scheduler.node_state import NodeState

STALE_ENTRIES = 64
"""The heap is swept when it holds this many more than twice as many entries as there are jobs."""


class WorkClass:
    """The queue of one class."""

    __slots__ = (
        "_heap", "avoided", "careful", "cores", "holds", "hungry", "jobs", "memory_bytes", "power", "ready", "requirements",
        "slots", "tail",
    )  # fmt: skip

    def __init__(self, requirements: Requirements, avoided: frozenset[NodeId] = frozenset()) -> None:
        self.requirements = requirements
        self.avoided = avoided
        """Nodes that meet the requirements, and lack what the class's jobs need all the same."""
        self.cores = max(1, requirements.cores)
        self.memory_bytes = max(0, requirements.memory_bytes)
        self.jobs: dict[JobId, JobState] = {}
        self.ready: dict[NodeId, NodeState] = {}
        """Nodes that meet the requirements and may be granted leases."""
        self.power = 0.0
        """Reference seconds of work per second that the ready nodes can do together."""
        self.slots = 0
        """Tasks of the class that the ready nodes can run at a time."""
        self.hungry = HungryNodes()
        """Ready nodes that would take a task now."""
        self.careful: dict[JobId, JobState] = {}
        """Jobs with tasks in trouble that are pending."""
        self.tail: dict[JobId, JobState] = {}
        """Jobs with leases out and nothing pending."""
        self.holds: dict[NodeId, None] = {}
        """Nodes that are kept from other classes' work until a task of this one fits."""
        self._heap: list[tuple[Key, JobId, JobState]] = []

    def suits(self, node: "NodeState") -> bool:
        """Whether the node has what the jobs need, as far as is known."""
        return node.id not in self.avoided and not self.requirements.unmet_by(node.info)

    def fit(self, slots: int, cores: int, memory_bytes: int) -> int:
        """Return how many tasks of the class fit into this much capacity."""
        count = min(slots, cores // self.cores)
        if self.memory_bytes:
            count = min(count, memory_bytes // self.memory_bytes)
        return max(0, count)

    def requeue(self, job: "JobState") -> None:
        """Bring the job's place up to date after what is pending of it has changed."""
        key = job.key()
        if job.careful:
            self.careful[job.id] = job
        elif self.careful:
            self.careful.pop(job.id, None)
        if key is None:
            if job.leases and not job.careful:
                self.tail[job.id] = job
            else:
                self.tail.pop(job.id, None)
            return
        if self.tail:
            self.tail.pop(job.id, None)
        if job.queued_key is None or key < job.queued_key:
            job.queued_key = key
            heappush(self._heap, (key, job.id, job))
            if len(self._heap) > 2 * len(self.jobs) + STALE_ENTRIES:
                self._heap = [entry for entry in self._heap if entry[0] is entry[2].queued_key]
                heapify(self._heap)

    def peek(self) -> "JobState | None":
        """Return the job that is next, None if nothing (but careful tasks) is pending."""
        heap = self._heap
        while heap:
            key, _, job = heap[0]
            if key is not job.queued_key:  # a later entry took its place
                heappop(heap)
                continue
            current = job.key()
            if current is None:
                heappop(heap)
                job.queued_key = None
            elif current == key:
                return job
            else:
                job.queued_key = current
                heapreplace(heap, (current, job.id, job))
        return None

    def remove_job(self, job: "JobState") -> None:
        """Take an ended job out; its entries in the heap go when they come to the top."""
        self.jobs.pop(job.id, None)
        self.careful.pop(job.id, None)
        self.tail.pop(job.id, None)
        job.queued_key = None

    def add_node(self, node: "NodeState", capacity: int) -> None:
        """Count a node that meets the requirements among the ready ones."""
        self.ready[node.id] = node
        self.slots += capacity
        self.power += capacity * node.score

    def remove_node(self, node: "NodeState", capacity: int) -> None:
        """Take a node out that is gone, has changed, or takes no leases."""
        del self.ready[node.id]
        self.slots -= capacity
        self.power = self.power - capacity * node.score if self.ready else 0.0
        self.hungry.remove(node)
        self.holds.pop(node.id, None)
