"""The simulated hub: the real scheduler on a real state, and the shell that carries effects out.

Changes are committed to a `State` as the real hub's journal commits them, and a restart goes through the real hub's
recovery. A naive journal referees both.
"""

from collections.abc import Callable, Sequence
from typing import Any

from fallow.hub.core.job_book import EndedView, ended_view
from fallow.hub.core.recovery import absent_parents, restore, restore_parent
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
from fallow.model.changes import AddInputs, AddJob, Change, EndJob
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
from fallow.state.state import State

SMALL_FLEET = 20
"""Up to this many nodes everything is checked after every event."""

CHECK_EVERY = 10_000
"""Events between full checks of larger fleets."""

ENDED_JOBS = 1_000_000
"""More than any simulation has: all of them are compared after a restart."""


class SimHub:
    """Frames in, scheduler, effects out."""

    def __init__(
        self,
        clock: Clock,
        network: Network,
        settings: SchedulerSettings,
        open_state: Callable[[], State],
        *,
        commit_s: float,
        check_every: int,
    ) -> None:
        """open_state: called at each start, for what the last life left. commit_s: from a change to its commit."""
        self._clock = clock
        self._open_state = open_state
        self._network = network
        self._settings = settings
        self._commit_s = commit_s
        self._check_every = check_every
        self._commit_posted = False
        self._timer_at = float("inf")
        self._life = 0
        self._effects_left: int | None = None
        """How many more effects are carried out before the hub dies; None: it lives."""
        self._on_death: Callable[[], None] = lambda: None
        self.state: State | None = None
        self.journal = Journal()
        self.scheduler = Scheduler(settings)
        self._touched = self.scheduler.touched_check()
        self.links: dict[NodeId, SimLink] = {}
        self.is_up = False
        self.ended: dict[JobId, float] = {}
        """When each job's end was committed."""
        self.events = 0
        self.leases = 0
        self.recalls = 0
        self.cancels = 0
        self.torn = 0
        """Deaths between two effects."""

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again from what was committed."""
        self.is_up = True
        self._life += 1
        self._timer_at = float("inf")
        self.journal.epoch += 1
        state = self.state = self._open_state()
        recovered = state.recover()
        self.journal.check_recovered(recovered, state.ended_jobs(limit=ENDED_JOBS))
        self.scheduler = Scheduler(self._settings, epoch=recovered.epoch)
        parents = {parent: view for parent in absent_parents(recovered) if (view := self._ended(parent)) is not None}
        effects = restore(self.scheduler, recovered, parents, self._clock.now)
        self._touched = self.scheduler.touched_check()
        self.carry_out(effects)

    def _ended(self, job: JobId) -> EndedView | None:
        assert self.state is not None, "the hub is down"
        ended = self.state.find_job(job)
        return None if ended is None else ended_view(ended)

    def stop(self) -> None:
        """Release the state; nothing more is committed."""
        if self.state is not None:
            self.state.close()
            self.state = None

    def kill(self) -> None:
        """Die: links break, what is not committed is lost."""
        self.is_up = False
        self._life += 1
        self._effects_left = None
        self.journal.crash()
        self.stop()
        self._commit_posted = False
        links, self.links = list(self.links.values()), {}
        for link in links:
            link.is_open = False
            link.node.on_cut(link)

    def die_within(self, effects: int, on_death: Callable[[], None]) -> None:
        """Die after so many more effects (or answers behind a commit), wherever that is, then call `on_death`."""
        self._effects_left, self._on_death = effects, on_death

    def _dies_here(self) -> bool:
        """Count an effect; True if the hub dies before it."""
        if self._effects_left is None:
            return False
        self._effects_left -= 1
        if self._effects_left >= 0:
            return False
        self.torn += 1
        self.kill()
        self._on_death()
        return True

    # --- what clients do ------------------------------------------------------------------------

    def create(self, spec: JobSpec) -> None:
        """Accept a job; again after a crash, as its client would."""
        effects: Effects = []
        if isinstance(spec.inputs, ResultsOf) and not self.scheduler.has_job(spec.inputs.parent):
            parent = self._ended(spec.inputs.parent)
            if parent is None:
                return  # its end is being committed; the client asks again
            effects += restore_parent(self.scheduler, parent, self._clock.now)
        self.journal.append(AddJob(spec))
        self.carry_out(effects + self.scheduler.on_job_created(spec, self._clock.now), job=spec.id)

    def add_inputs(self, job: JobId, start: int, stop: int) -> None:
        self.journal.append(AddInputs(InputPage(job, start, stop, b"")))
        self.carry_out(self.scheduler.on_inputs_added(job, stop, self._clock.now), job=job)

    def seal(self, job: JobId, size: int) -> None:
        self.carry_out(self.scheduler.on_job_sealed(job, size, self._clock.now), job=job)

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
            node = link.node.id
            del self.links[node]
            self.carry_out(self.scheduler.on_link_closed(node, self._clock.now), node=node)

    def on_frame(self, link: SimLink, frame: Any) -> None:
        node, now, scheduler = link.node.id, self._clock.now, self.scheduler
        if not self.is_up or self.links.get(node) is not link:
            return
        if not isinstance(frame, NodeHello) and not scheduler.has_node(node):
            self._hang_up(link)  # it was given up: it has to say hello again
            return
        if isinstance(frame, Done):
            effects = scheduler.on_results(node, frame.lease, frame.job, frame.pages, now)
            self._after_commit(lambda: self._network.to_node(link, Acknowledged(frame.number)))
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
        self.carry_out(effects, node=node, job=getattr(frame, "job", None))

    def _hang_up(self, link: SimLink) -> None:
        link.is_open = False
        self.links.pop(link.node.id, None)
        link.node.on_cut(link)

    # --- effects --------------------------------------------------------------------------------

    def carry_out(self, effects: Effects, *, job: JobId | None = None, node: NodeId | None = None) -> None:
        """Do what the scheduler decided, in order; then check it. job, node: what the event was about."""
        for effect in effects:
            if self._dies_here():
                return
            if isinstance(effect, Persist):
                self.journal.append(effect.change)
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
        self._touched.check(effects, jobs=[job] if job else [], nodes=[node] if node else [])
        if self.events % self._check_every == 0:
            self.scheduler.check_invariants()

    def _send(self, node: NodeId, frame: Any) -> None:
        link = self.links.get(node)
        if link is not None:
            self._network.to_node(link, frame)

    def _commit(self, life: int) -> None:
        if life == self._life:
            self._commit_posted = False
            self.journal.commit(self._write)

    def _write(self, changes: Sequence[Change]) -> None:
        assert self.state is not None, "the hub is down"
        self.state.commit(changes)
        for change in changes:
            if isinstance(change, EndJob):
                self.ended[change.job] = self._clock.now

    def _after_commit(self, callback: Callable[[], None]) -> None:
        life = self._life

        def call() -> None:
            if life == self._life and not self._dies_here():
                callback()

        self.journal.after_commit(call)

    def _set_timer(self) -> None:
        deadline = self.scheduler.next_deadline()
        if deadline is not None and deadline < self._timer_at:
            self._timer_at = deadline
            self._clock.post(max(0.0, deadline - self._clock.now), self._on_time, self._life, deadline)

    def _on_time(self, life: int, deadline: float) -> None:
        if life == self._life and deadline == self._timer_at:
            self._timer_at = float("inf")
            self.carry_out(self.scheduler.on_time(self._clock.now))
