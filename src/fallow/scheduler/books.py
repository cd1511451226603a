"""The books: all that the scheduler knows, and the few moves that keep its parts in step.

The modules beside this one decide; they change jobs, leases and nodes through what is here. Effects of the event at
hand are collected in `effects`, in the order in which the shell is to carry them out.
"""

from bisect import insort
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import chain, islice

from fallow.model.changes import AddLease, EndLease
from fallow.model.events import LeaseGranted
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.job import JobSpec
from fallow.model.lease import Lease
from fallow.model.ranges import Range
from fallow.model.requirements import Requirements
from fallow.scheduler.effects import CancelWork, Effects, GrantLease, Persist, RecallLease, Tell
from fallow.scheduler.estimate import Pace
from fallow.scheduler.job_state import JobState
from fallow.scheduler.lease_state import LeaseState
from fallow.scheduler.node_state import SPEED_STEPS, NodeState
from fallow.scheduler.settings import SchedulerSettings
from fallow.scheduler.work_class import WorkClass

EMPTY_CLASSES = 64
"""Classes without jobs that are kept, so that a job with requirements seen lately starts without a look at every node."""

STALE_LEASES = 64
"""A job's heap of backlogs, and its leases by start, are swept when they hold this many more than twice as many as it has."""


class Books:
    """Jobs, nodes, leases, classes, and what the event at hand brings about."""

    __slots__ = (
        "_arrivals", "_last_arrival", "avoiding", "cancels", "classes", "effects", "epoch", "jobs", "lease_count", "leases",
        "nodes", "now",
        "priorities", "settings", "tick_gap_s", "tick_mono", "timers", "unix_offset_s", "vacated", "woken",
    )  # fmt: skip

    def __init__(self, settings: SchedulerSettings, epoch: int, unix_offset_s: float) -> None:
        self.settings = settings
        self.epoch = epoch
        self.unix_offset_s = unix_offset_s
        self.now = 0.0
        self.effects: Effects = []
        self.cancels: dict[tuple[NodeId, JobId], list[int]] = {}
        """Tasks, as flat ranges, that nodes are yet to be told to stop."""
        self.jobs: dict[JobId, JobState] = {}
        self.nodes: dict[NodeId, NodeState] = {}
        self.leases: dict[LeaseId, LeaseState] = {}
        self.classes: dict[tuple[Requirements, frozenset[NodeId]], WorkClass] = {}
        """By what nodes must meet, and which are avoided all the same."""
        self.avoiding: dict[WorkClass, None] = {}
        """Classes of jobs that avoid nodes which lack what they need."""
        self.priorities: dict[int, int] = {}
        """How many leases are out by priority of their job."""
        self.woken: dict[WorkClass, None] = {}
        """Classes in which something became pending in this event."""
        self.vacated: dict[NodeId, NodeState] = {}
        """Nodes that lost leases in this event through no act of their own."""
        self.timers: list[tuple[float, NodeId]] = []
        """Heap of times at which a node may have to be given up; put right when they come."""
        self.tick_mono: float | None = None
        """When idle nodes look again for work to take over."""
        self.tick_gap_s = settings.tick_s
        self.lease_count = 0
        """Leases granted since the hub started."""
        self._arrivals = 0
        self._last_arrival: JobState | None = None

    # --- jobs -----------------------------------------------------------------------------------

    def add_job(self, spec: JobSpec) -> JobState:
        self._arrivals += 1
        self._last_arrival = None
        job = JobState(spec, self._arrivals, self._class_of(spec.requirements))
        job.work_class.jobs[job.id] = job
        self.jobs[job.id] = job
        return job

    def note_arrival(self, job: JobState, stop: int) -> None:
        """Give the inputs up to `stop` their place in the order of arrival."""
        arrivals = job.arrivals
        if arrivals and (self._last_arrival is job or len(arrivals) >= self.settings.arrival_runs):
            arrivals[-1] = (stop, arrivals[-1][1])
        else:
            self._arrivals += 1
            arrivals.append((stop, self._arrivals))
        self._last_arrival = job

    def make_pending(self, job: JobState, ranges: Iterable[Range]) -> None:
        """Put tasks at the front of the queue (again)."""
        for start, stop in ranges:
            job.put_back(start, stop)
        self.pending_changed(job)

    def pending_changed(self, job: JobState) -> None:
        """What is pending of the job has grown."""
        job.work_class.requeue(job)
        self.woken[job.work_class] = None

    def forget_job(self, job: JobState) -> None:
        """Take an ended job out of memory."""
        if self._last_arrival is job:
            self._last_arrival = None
        del self.jobs[job.id]

    def avoid(self, job: JobState, node: NodeState) -> None:
        """The node lacks what every task of the job needs: it gets no more of them while another node can take them."""
        job.lacking.add(node.id)
        avoided = frozenset(each for each in job.lacking if each not in job.able)  # else it has been given it since
        work_class = self._class_of(job.spec.requirements, avoided)
        if not work_class.ready:
            work_class = self._class_of(job.spec.requirements)
        if work_class is not job.work_class:
            self._move(job, work_class)
        if work_class.avoided:
            self.avoiding[work_class] = None
            self._recall_all(job, node)

    def _recall_all(self, job: JobState, node: NodeState) -> None:
        for lease in node.leases.values():
            if lease.job is job and lease.recall_until <= self.now:
                lease.recall_until = self.now + self.settings.recall_timeout_s
                self.effects.append(RecallLease(node.id, lease.id, len(lease.unfinished)))

    def admit_avoided(self) -> None:
        """Jobs that no other node can take any more are for the nodes that were avoided again."""
        for work_class in list(self.avoiding):
            if not work_class.ready:
                for job in list(work_class.jobs.values()):
                    self._move(job, self._class_of(job.spec.requirements))
            if not work_class.jobs:
                del self.avoiding[work_class]

    def _move(self, job: JobState, work_class: WorkClass) -> None:
        old = job.work_class
        old.remove_job(job)
        if old.holds:  # nodes that were held for it may be free for others now
            old.holds.clear()
            self.woken.update(dict.fromkeys(self.classes.values()))
        job.work_class = work_class
        work_class.jobs[job.id] = job
        self.pending_changed(job)

    def _class_of(self, requirements: Requirements, avoided: frozenset[NodeId] = frozenset()) -> WorkClass:
        work_class = self.classes.get((requirements, avoided))
        if work_class is None:
            empty = [each for each in self.classes.values() if not each.jobs]
            for each in islice(empty, max(0, len(empty) - EMPTY_CLASSES + 1)):
                self._drop_class(each)
            work_class = self.classes[requirements, avoided] = WorkClass(requirements, avoided)
            for node in self.nodes.values():
                if node.may_be_granted and work_class.suits(node):
                    self._match(node, work_class)
        return work_class

    def _drop_class(self, work_class: WorkClass) -> None:
        del self.classes[work_class.requirements, work_class.avoided]
        for node in work_class.ready.values():
            del node.capacity[work_class]
            node.ranks.pop(work_class, None)

    # --- nodes ----------------------------------------------------------------------------------

    def _match(self, node: NodeState, work_class: WorkClass) -> None:
        count = work_class.fit(node.info.slots, node.info.cores, node.info.memory_bytes)
        if count:
            node.capacity[work_class] = count
            work_class.add_node(node, count)
            self.woken[work_class] = None
            self.rank(node, work_class)

    def rematch(self, node: NodeState) -> None:
        """Bring the classes' lists of ready nodes up to date after the node's state or capacity changed."""
        self.unmatch(node)
        node.set_score(node.info.score)
        if node.may_be_granted:
            for work_class in self.classes.values():
                if work_class.suits(node):
                    self._match(node, work_class)
        node.reserve()

    def rank(self, node: NodeState, work_class: WorkClass) -> None:
        """Note whether the node would take a task of the class now, and how gladly.

        Nodes with room stand above those that would only fetch ahead; within both, faster ones above slower ones.
        """
        if node.alone is None and node.drains_for is None:
            if node.room(work_class) > 0:
                rank: int | None = node.speed_step + SPEED_STEPS
            else:
                rank = node.speed_step - SPEED_STEPS - 1 if self.runs_dry(node) else None
        else:
            rank = None
        if rank is None:
            if node.ranks.pop(work_class, None) is not None:
                work_class.hungry.remove(node)
        elif node.ranks.get(work_class) != rank:
            node.ranks[work_class] = rank
            work_class.hungry.put(node, rank)

    def runs_dry(self, node: NodeState, job: JobState | None = None) -> bool:
        """Whether the node's work will be done so soon that more should be on its way.

        job: what would be granted: leases of lower priority do not count, and near its end nodes fetch no further ahead
        than what is pending would last all of them. While a lease's tasks are of unknown length, or it is to measure them: no.
        """
        if len(node.leases) >= self.settings.leases_ahead + 2 * node.info.slots:
            return False
        left_s, low_s, priority = 0.0, self.settings.low_water_s, None
        if job is not None:
            priority, mean = job.priority, job.times.mean
            if mean is not None and job.work_class.power:
                low_s = min(low_s, max(self.settings.min_share_s, job.pending_count * mean / job.work_class.power))
        for lease in node.leases.values():
            if priority is not None and lease.job.priority < priority:
                continue
            each = self.seconds_per_task(lease.job, node)
            if each is None or lease.is_probe:
                return False
            slots = node.capacity.get(lease.job.work_class, 1)
            if lease.running:  # slots that are on a long task do not help
                slots -= sum(self.now - since > low_s + 4 * each for since in lease.running.values())
                if slots <= 0:
                    return False
            left_s += len(lease.unfinished) * each / slots
            if left_s >= low_s:
                return False
        return True

    def unmatch(self, node: NodeState) -> None:
        """Take the node out of all classes."""
        for work_class, count in node.capacity.items():
            work_class.remove_node(node, count)
        node.capacity.clear()
        node.ranks.clear()
        self.stop_draining(node)

    def stop_draining(self, node: NodeState) -> None:
        """The node is no longer kept free for a suspect task."""
        if node.drains_for is not None:
            job, index = node.drains_for
            job.drains.pop(index, None)
            node.drains_for = None

    def set_timer(self, node: NodeState) -> None:
        """See to it that the node is looked at no later than when it may be lost."""
        at = node.deadline(self.settings)
        if at < node.timer_mono:
            node.timer_mono = at
            heappush(self.timers, (at, node.id))

    def due_nodes(self) -> list[NodeState]:
        """Return the nodes that were not heard of in time; bounded by the entries that have come due."""
        due: dict[NodeId, NodeState] = {}
        while self.timers and self.timers[0][0] <= self.now:
            at, node_id = heappop(self.timers)
            node = self.nodes.get(node_id)
            if node is None or at != node.timer_mono:
                continue
            node.timer_mono = float("inf")
            if node.deadline(self.settings) <= self.now:
                due[node_id] = node
            else:
                self.set_timer(node)
        return list(due.values())

    # --- leases ---------------------------------------------------------------------------------

    def grant(
        self,
        job: JobState,
        node: NodeState,
        start: int,
        stop: int,
        *,
        original: LeaseState | None = None,
        is_probe: bool = False,
    ) -> LeaseState:
        """Make a lease of tasks that the caller took out of the queue (or, for a copy, that `original` holds)."""
        self.lease_count += 1
        lease_id = LeaseId(self.epoch << 32 | self.lease_count)
        lease = LeaseState(lease_id, job, node, self.now)
        lease.unfinished.add(start, stop)
        lease.original = original
        lease.is_probe = is_probe
        self.add_lease(lease, is_recorded=original is None)
        granted = Lease(lease_id, job.id, start, stop)
        if original is None:
            self.effects.append(Persist(AddLease(granted, node.id)))
        else:
            original.copies.append(lease)
        self.effects.append(GrantLease(node.id, granted))
        self.effects.append(Tell(LeaseGranted(lease_id, job.id, node.id, start, stop)))
        return lease

    def add_lease(self, lease: LeaseState, *, is_recorded: bool) -> None:
        """Enter a lease at its job and its node."""
        job, node = lease.job, lease.node
        lease.is_recorded = is_recorded
        self.leases[lease.id] = job.leases[lease.id] = lease
        insort(job.by_start, (lease.unfinished.first, lease.id))
        if len(job.by_start) > 2 * len(job.leases) + STALE_LEASES:
            job.by_start = [entry for entry in job.by_start if entry[1] in job.leases]
        if not node.leases:
            node.busy_mono = self.now
        node.leases[lease.id] = lease
        if node.id not in job.touched:
            job.touched[node.id] = None
            node.cached[job.id] = job
        job.was_leased = True
        self.priorities[job.priority] = self.priorities.get(job.priority, 0) + 1
        node.reserve()
        self.set_timer(node)
        self.note_backlog(lease)
        job.work_class.requeue(job)

    def note_backlog(self, lease: LeaseState) -> None:
        """Enter a lease with unstarted tasks among those that may be recalled."""
        job = lease.job
        count = len(lease.unfinished)
        if count > lease.reserved:
            each = self.seconds_per_task(job, lease.node) or 1.0
            ends = self.now + count * each / (lease.reserved or 1)
            heappush(job.backlog, (-ends, lease.id, lease))
            if len(job.backlog) > 2 * len(job.leases) + STALE_LEASES:
                job.backlog = [entry for entry in job.backlog if entry[1] in job.leases]
                heapify(job.backlog)

    def end_lease(self, lease: LeaseState) -> None:
        """Take out a lease of which nothing is left."""
        job, node = lease.job, lease.node
        del self.leases[lease.id], job.leases[lease.id], node.leases[lease.id]
        left = self.priorities[job.priority] - 1
        if left:
            self.priorities[job.priority] = left
        else:
            del self.priorities[job.priority]
        if lease.original is not None:
            lease.original.copies.remove(lease)
        if node.alone is lease:
            node.alone = None
        if lease.is_recorded:
            self.effects.append(Persist(EndLease(lease.id)))
        if not job.leases:
            job.work_class.tail.pop(job.id, None)

    def shrink(self, lease: LeaseState) -> None:
        """See what is left of a lease after some of its tasks were settled or given back."""
        left = len(lease.unfinished)
        if not left:
            self.end_lease(lease)
            lease.node.reserve()
        elif left < lease.reserved:
            lease.node.reserve()

    def cancel_at(self, lease: LeaseState, ranges: list[Range]) -> None:
        """Tell the lease's node, at the end of this event, to stop tasks of it."""
        self.cancels.setdefault((lease.node.id, lease.job.id), []).extend(chain.from_iterable(ranges))

    def tell_cancels(self) -> None:
        """Of each job, a node is told once in an event, however many of its leases that takes tasks from."""
        for (node, job), flat in self.cancels.items():
            self.effects.append(CancelWork(node, job, tuple(flat)))
        self.cancels.clear()

    # --- estimates ------------------------------------------------------------------------------

    def speed(self, job: JobState, node: NodeState) -> float:
        """Return how fast the node is at the job: 1.0 is the reference machine."""
        pace = job.paces.get(node.id)
        return node.score if pace is None else node.score * pace.factor

    def seconds_per_task(self, job: JobState, node: NodeState) -> float | None:
        """Return the expected duration of a task of the job on the node, None while nothing is known."""
        mean = job.times.mean
        return None if mean is None else mean / self.speed(job, node)

    def note_elapsed(self, job: JobState, node: NodeState, tasks: int, elapsed_s: float) -> None:
        """Learn from a page."""
        job.able.add(node.id)
        usual = job.times.usual
        job.times.add(tasks, elapsed_s, node.score)
        if usual is not None and elapsed_s > 0:
            pace = job.paces.get(node.id)
            if pace is None:
                pace = job.paces[node.id] = Pace()
            pace.add(tasks, elapsed_s * node.score / (tasks * usual))
