"""The simulated hub: the real scheduler, a naive journal, and the shell that carries effects out."""

from typing import Any

from fallow.link.frames import (
    Acknowledged,
    Beat,
    Cancel,
    Done,
    Forget,
    Grant,
    NodeChanged,
    NodeHello,
    Presents,
    Recall,
    Returned,
    TaskBroke,
)
from fallow.model.changes import AddInputs, AddJob, EndJob
from fallow.model.ids import JobId, NodeId
from fallow.model.job import Counting, JobSpec, ResultsOf
from fallow.model.page import InputPage
from fallow.model.ranges import RangeSet
from fallow.scheduler.effects import CancelWork, Effects, ForgetJob, GrantLease, Persist, RecallLease
from fallow.scheduler.scheduler import Scheduler
from fallow.scheduler.settings import SchedulerSettings
from fallow.simulator.clock import Clock
from fallow.simulator.journal import Journal
from fallow.simulator.network import Network, SimLink

SMALL_FLEET = 20
"""Up to this many nodes everything is checked after every event."""

CHECK_EVERY = 10_000
"""Events between full checks of larger fleets."""


class SimHub:
    """Frames in, scheduler, effects out."""

    def __init__(
        self, clock: Clock, network: Network, settings: SchedulerSettings, commit_s: float, check_every: int
    ) -> None:
        self._clock = clock
        self._network = network
        self._settings = settings
        self._commit_s = commit_s
        self._check_every = check_every
        self._commit_posted = False
        self._timer_at = float("inf")
        self._life = 0
        self.journal = Journal()
        self.scheduler = Scheduler(settings)
        self.links: dict[NodeId, SimLink] = {}
        self.is_up = False
        self.ended: dict[JobId, float] = {}
        """When each job's end was committed."""
        self.events = 0
        self.leases = 0
        self.recalls = 0
        self.cancels = 0

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again from the journal."""
        self.is_up = True
        self._life += 1
        journal = self.journal
        journal.epoch += 1
        self.scheduler = Scheduler(self._settings, epoch=journal.epoch)
        self._timer_at = float("inf")
        now = self._clock.now
        effects: Effects = []
        for row in journal.jobs.values():
            if not row.state:
                effects += self.scheduler.restore(row, now)
        for row in journal.jobs.values():
            parent = row.spec.inputs.parent if isinstance(row.spec.inputs, ResultsOf) else None
            if parent is not None and not row.state and journal.jobs[parent].state:
                effects += self._recover_parent(parent)
        for lease, node in list(journal.leases.values()):
            effects += self.scheduler.restore_lease(lease, node, now)
        self.carry_out(effects)

    def _recover_parent(self, parent: JobId) -> Effects:
        row = self.journal.jobs[parent]
        return self.scheduler.on_parent_recovered(
            row.spec,
            self._clock.now,
            size=row.size,
            settled=row.done.ranges(),
            failed=RangeSet.from_flat(row.failed).ranges(),
            first_failures=row.first_failures,
            state=row.state,
        )

    def kill(self) -> None:
        """Die: links break, what is not committed is lost."""
        self.is_up = False
        self._life += 1
        self.journal.crash()
        self._commit_posted = False
        links, self.links = list(self.links.values()), {}
        for link in links:
            link.is_open = False
            link.node.on_cut(link)

    # --- what clients do ------------------------------------------------------------------------

    def create(self, spec: JobSpec) -> None:
        """Accept a job; again after a crash, as its client would."""
        self.journal.append(AddJob(spec))
        effects: Effects = []
        if isinstance(spec.inputs, ResultsOf) and not self.scheduler.has_job(spec.inputs.parent):
            effects += self._recover_parent(spec.inputs.parent)
        self.carry_out(effects + self.scheduler.on_job_created(spec, self._clock.now))

    def add_inputs(self, job: JobId, start: int, stop: int) -> None:
        self.journal.append(AddInputs(InputPage(job, start, stop, b"")))
        self.carry_out(self.scheduler.on_inputs_added(job, stop, self._clock.now))

    def seal(self, job: JobId, size: int) -> None:
        self.carry_out(self.scheduler.on_job_sealed(job, size, self._clock.now))

    def accepted(self, spec: JobSpec) -> int | None:
        """Return how many inputs the hub has of a job, None if it does not know it."""
        if self.scheduler.has_job(spec.id):
            return 0 if isinstance(spec.inputs, Counting) else self.scheduler.accepted(spec.id)
        return None

    # --- what nodes do --------------------------------------------------------------------------

    def connect(self, link: SimLink) -> bool:
        """A node dials; False if nobody answers."""
        if not self.is_up:
            return False
        old = self.links.get(link.node.id)
        self.links[link.node.id] = link
        if old is not None:
            old.is_open = False
            old.node.on_cut(old)
        return True

    def on_cut(self, link: SimLink) -> None:
        """The link broke, as the hub sees it."""
        if self.links.get(link.node.id) is link:
            del self.links[link.node.id]
            self.carry_out(self.scheduler.on_link_closed(link.node.id, self._clock.now))

    def on_frame(self, link: SimLink, frame: Any) -> None:
        node, now, scheduler = link.node.id, self._clock.now, self.scheduler
        if not self.is_up or self.links.get(node) is not link:
            return
        if not isinstance(frame, NodeHello) and not scheduler.has_node(node):
            self._hang_up(link)  # it was given up: it has to say hello again
            return
        if isinstance(frame, Done):
            effects = scheduler.on_results(node, frame.lease, frame.job, frame.pages, now)
            self.journal.after_commit(lambda: self._network.to_node(link, Acknowledged(frame.number)))
        elif isinstance(frame, Beat):
            effects = scheduler.on_heartbeat(node, frame.running, frame.leases, now)
        elif isinstance(frame, Returned):
            unstarted = RangeSet.from_flat(frame.unstarted)
            effects = scheduler.on_returned(node, frame.lease, frame.job, unstarted.ranges(), now)
        elif isinstance(frame, TaskBroke):
            effects = scheduler.on_task_broke(node, frame.lease, frame.job, frame.failure, now)
        elif isinstance(frame, NodeHello):
            effects = scheduler.on_node_joined(node, frame.info, now)
        elif isinstance(frame, Presents):
            effects = scheduler.on_leases_presented(node, frame.leases, now, is_first=frame.is_first)
        else:
            assert isinstance(frame, NodeChanged), f"unexpected {frame}"
            effects = scheduler.on_node_changed(node, frame.info, frame.accepting, frame.reason, now)
        self.carry_out(effects)

    def _hang_up(self, link: SimLink) -> None:
        link.is_open = False
        self.links.pop(link.node.id, None)
        link.node.on_cut(link)

    # --- effects --------------------------------------------------------------------------------

    def carry_out(self, effects: Effects) -> None:
        """Do what the scheduler decided, in order; then check it."""
        for effect in effects:
            if isinstance(effect, Persist):
                self.journal.append(effect.change)
                if isinstance(effect.change, EndJob):
                    self.journal.after_commit(lambda job=effect.change.job: self._note_end(job))  # type: ignore[misc]
            elif isinstance(effect, GrantLease):
                self.leases += 1
                self._send(effect.node, Grant(effect.lease, self.scheduler.spec(effect.lease.job)))
            elif isinstance(effect, RecallLease):
                self.recalls += 1
                self._send(effect.node, Recall(effect.lease, effect.count))
            elif isinstance(effect, CancelWork):
                self.cancels += 1
                self._send(effect.node, Cancel(effect.job, effect.ranges))
            elif isinstance(effect, ForgetJob):
                self._send(effect.node, Forget(effect.job))
        if self.journal.is_dirty and not self._commit_posted:
            self._commit_posted = True
            self._clock.post(self._commit_s, self._commit, self._life)
        self._set_timer()
        self.events += 1
        if self.events % self._check_every == 0:
            self.scheduler.check_invariants()

    def _note_end(self, job: JobId) -> None:
        self.ended[job] = self._clock.now

    def _send(self, node: NodeId, frame: Any) -> None:
        link = self.links.get(node)
        if link is not None:
            self._network.to_node(link, frame)

    def _commit(self, life: int) -> None:
        if life == self._life:
            self._commit_posted = False
            self.journal.commit()

    def _set_timer(self) -> None:
        deadline = self.scheduler.next_deadline()
        if deadline is not None and deadline < self._timer_at:
            self._timer_at = deadline
            self._clock.post(max(0.0, deadline - self._clock.now), self._on_time, self._life, deadline)

    def _on_time(self, life: int, deadline: float) -> None:
        if life == self._life and deadline == self._timer_at:
            self._timer_at = float("inf")
            self.carry_out(self.scheduler.on_time(self._clock.now))
