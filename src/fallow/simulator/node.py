"""A simulated node: an agent with slots, a queue of leases, a spool, and a link to the hub."""

from random import Random
from typing import TYPE_CHECKING, Any

from fallow.link.frames import (
    Acknowledged,
    Beat,
    Cancel,
    Done,
    Grant,
    NodeChanged,
    NodeHello,
    Presents,
    Recall,
    Returned,
    TaskBroke,
)
from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.job import JobSpec
from fallow.model.lease import HeldLease, RunningTask
from fallow.model.node import NodeInfo
from fallow.model.page import ResultPage
from fallow.model.ranges import RangeSet
from fallow.simulator.network import SimLink

if TYPE_CHECKING:
    from fallow.simulator.fleet import Fleet

GROUP_S = 0.05
"""Results of this much work travel together."""

BATCH_COST_S = 0.0002
"""What handing out a batch costs."""

RESEND_S = 6.0
"""Results that were not acknowledged by then are sent again."""


class Held:
    """A lease at its node."""

    __slots__ = ("id", "job", "order", "running", "spec", "todo")

    def __init__(self, lease: LeaseId, spec: JobSpec, order: int) -> None:
        self.id = lease
        self.job = spec.id
        self.spec = spec
        self.order = order
        self.todo = RangeSet()
        """Not started."""
        self.running: list[Run] = []

    def unfinished(self) -> RangeSet:
        left = self.todo.copy()
        for run in self.running:
            left.add(run.start, run.stop)
        return left


class Run:
    """A batch in a slot."""

    __slots__ = ("begun", "held", "is_dropped", "left_s", "speed", "start", "stop", "updated")

    def __init__(self, held: Held, start: int, stop: int, now: float, work_s: float, speed: float) -> None:
        self.held = held
        self.start = start
        self.stop = stop
        self.begun = now
        self.updated = now
        self.left_s = work_s
        self.speed = speed
        self.is_dropped = False


class SimNode:
    """One node of the fleet."""

    def __init__(self, fleet: "Fleet", node: NodeId, info: NodeInfo, speed: float, random: Random) -> None:
        self.fleet = fleet
        self.id = node
        self.info = info
        self.speed = speed
        self.factor = 1.0
        """Below 1 while it is slowed down."""
        self.random = random
        self.is_up = False
        self.is_leaving = False
        self.link: SimLink | None = None
        self.leases: dict[LeaseId, Held] = {}
        self.spool: dict[int, tuple[Done, float]] = {}
        """Results that the hub has not acknowledged, and when they were last sent."""
        self._sent = 0
        self._orders = 0
        self._life = 0
        self._joined_in = 0
        """The life in which it presented its leases last."""
        self._free = info.slots

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Switch on and join."""
        if not self.is_up:
            self.is_up = True
            self.is_leaving = False
            self._life += 1
            self._dial(self._life)

    def die(self, *, keep_spool: bool) -> None:
        """Lose everything that runs, without a word."""
        if not self.is_up:
            return
        self.is_up = False
        self._life += 1
        for held in self.leases.values():
            for run in held.running:
                run.is_dropped = True
                self.fleet.note_waste(run, self.fleet.clock.now)
        self.leases.clear()
        self._free = self.info.slots
        if not keep_spool:
            self.spool.clear()

    def leave(self) -> None:
        """Give back what is not started, finish the rest, then go."""
        if not self.is_up or self.link is None:
            return
        self.is_leaving = True
        self._send(NodeChanged(self.info, accepting=False, reason="leaving"))
        for held in list(self.leases.values()):
            self._send(Returned(held.id, held.job, tuple(held.todo.flat())))
            held.todo.clear()
            self._drop_if_empty(held)
        self._go_if_done()

    def _go_if_done(self) -> None:
        if self.is_leaving and not self.leases and self.link is not None:
            self.die(keep_spool=True)
            self.fleet.cut(self)

    def slow_down(self, factor: float) -> None:
        """Run at this part of its speed from now on, running tasks included."""
        now = self.fleet.clock.now
        self.factor = factor
        for held in self.leases.values():
            for run in held.running:
                run.left_s = max(0.0, run.left_s - (now - run.updated) * run.speed)
                run.updated, run.speed = now, self.speed * factor
                self.fleet.clock.post(run.left_s / run.speed, self._end_run, run)

    # --- link -----------------------------------------------------------------------------------

    def _dial(self, life: int) -> None:
        if not self.is_up or life != self._life or self.link is not None:
            return
        link = SimLink(self)
        if not self.fleet.hub.connect(link):
            self.fleet.clock.post(self.random.uniform(0.2, 1.5), self._dial, life)
            return
        self.link = link
        self._send(NodeHello(1, self.id, self.info))
        for done, _ in list(self.spool.values()):
            self._send(done)
        leases = tuple(HeldLease(h.id, h.job, tuple(h.unfinished().flat())) for h in self.leases.values())
        self._send(Presents(leases, is_first=self._joined_in != life))
        self._joined_in = life
        self.fleet.clock.post(self.fleet.heartbeat_s, self._beat, link, 0)

    def on_cut(self, link: SimLink) -> None:
        """The link broke, as the node sees it."""
        if self.link is link:
            self.link = None
            if self.is_up:
                self.fleet.clock.post(self.random.uniform(0.05, 0.5), self._dial, self._life)

    def _send(self, frame: Any) -> None:
        if self.link is not None:
            self.fleet.network.to_hub(self.link, self.fleet.hub, frame)

    def _beat(self, link: SimLink, skipped: int) -> None:
        if self.link is not link or not self.is_up:
            return
        if self.leases or self.spool or (skipped + 1) * self.fleet.heartbeat_s >= self.fleet.idle_heartbeat_s:
            skipped, now = -1, self.fleet.clock.now
            running = tuple(
                RunningTask(held.id, run.start, now - run.begun)
                for held in self.leases.values()
                for run in held.running
            )
            for number, (done, sent) in self.spool.items():
                if now - sent > RESEND_S:
                    self.spool[number] = (done, now)
                    self._send(done)
            self._send(Beat(running, tuple(self.leases)))
        self.fleet.clock.post(self.fleet.heartbeat_s, self._beat, link, skipped + 1)

    def on_frame(self, link: SimLink, frame: Any) -> None:
        if self.link is not link or not self.is_up:
            return
        if isinstance(frame, Grant):
            self._grant(frame)
        elif isinstance(frame, Acknowledged):
            for number in [each for each in self.spool if each <= frame.number]:
                del self.spool[number]
        elif isinstance(frame, Recall):
            self._recall(frame)
        elif isinstance(frame, Cancel):
            self._cancel(frame.job, RangeSet.from_flat(frame.ranges) if frame.ranges else None)

    # --- leases ---------------------------------------------------------------------------------

    def _grant(self, grant: Grant) -> None:
        lease = grant.lease
        assert grant.spec is not None, "the simulated hub sends the spec with each grant"
        if self.is_leaving:
            self._send(Returned(lease.id, lease.job, (lease.start, lease.stop)))
        elif lease.id not in self.leases:
            self._orders += 1
            held = self.leases[lease.id] = Held(lease.id, grant.spec, self._orders)
            held.todo.add(lease.start, lease.stop)
            self._fill_slots()

    def _recall(self, recall: Recall) -> None:
        held = self.leases.get(recall.lease)
        if held is None:
            return
        returned: RangeSet = RangeSet()
        while held.todo and len(returned) < recall.count:
            stop = held.todo.end
            start = max(stop - (recall.count - len(returned)), held.todo.last[0])
            held.todo.discard(start, stop)
            returned.add(start, stop)
        self._send(Returned(held.id, held.job, tuple(returned.flat())))
        self._drop_if_empty(held)

    def _cancel(self, job: JobId, ranges: RangeSet | None) -> None:
        for held in [each for each in self.leases.values() if each.job == job]:
            parts = list(ranges.ranges()) if ranges is not None else list(held.unfinished().ranges())
            for start, stop in parts:
                held.todo.discard(start, stop)
                for run in [each for each in held.running if each.start < stop and start < each.stop]:
                    self._stop_run(run)
                    held.todo.add(run.start, run.stop)
                    held.todo.discard(start, stop)
            self._drop_if_empty(held)
        self._fill_slots()

    def _drop_if_empty(self, held: Held) -> None:
        if not held.todo and not held.running:
            self.leases.pop(held.id, None)
            self._go_if_done()

    # --- slots ----------------------------------------------------------------------------------

    def _fill_slots(self) -> None:
        while self._free:
            ready = [held for held in self.leases.values() if held.todo and self._fits(held)]
            if not ready:
                return
            held = ready[0] if len(ready) == 1 else min(ready, key=lambda each: (-each.spec.priority, each.order))
            self._start_run(held)

    def _fits(self, held: Held) -> bool:
        wants = held.spec.requirements
        if wants.cores == 1 and not wants.memory_bytes:
            return True
        running = [run.held.spec.requirements for each in self.leases.values() for run in each.running]
        cores = self.info.cores - sum(each.cores for each in running)
        memory_bytes = self.info.memory_bytes - sum(each.memory_bytes for each in running)
        return wants.cores <= cores and wants.memory_bytes <= memory_bytes

    def _start_run(self, held: Held) -> None:
        fleet = self.fleet
        durations, speed = fleet.durations[held.job], self.speed * self.factor
        start, run_stop = next(held.todo.ranges())
        stop, work_s, most_s = start + 1, durations[start], GROUP_S * speed
        while stop < run_stop and work_s < most_s:
            work_s += durations[stop]
            stop += 1
        held.todo.discard(start, stop)
        run = Run(held, start, stop, fleet.clock.now, work_s, speed)
        held.running.append(run)
        self._free -= 1
        if fleet.has_killers and fleet.is_killer(held.job, start, stop):
            fleet.clock.post(self.random.uniform(0.1, 0.9) * work_s / speed, self._killed_by, run)
        fleet.clock.post(work_s / speed + BATCH_COST_S, self._end_run, run)

    def _killed_by(self, run: Run) -> None:
        if not run.is_dropped and run in run.held.running:
            self.fleet.take_down(self)

    def _stop_run(self, run: Run) -> None:
        run.is_dropped = True
        run.held.running.remove(run)
        self._free += 1
        self.fleet.note_waste(run, self.fleet.clock.now)

    def _end_run(self, run: Run) -> None:
        now = self.fleet.clock.now
        if run.is_dropped:
            return
        if run.left_s - (now - run.updated) * run.speed > 1e-6:
            return  # it was slowed down meanwhile: a later event ends it
        run.is_dropped = True
        held, faults = run.held, self.fleet.faults
        held.running.remove(run)
        self._free += 1
        failures: list[Failure] = []
        if faults.crashing and self.random.random() < faults.crashing:
            held.todo.add(run.start + 1, run.stop)
            failure = Failure(index=run.start, kind="crashed", node=self.info.name, signal="SIGSEGV")
            self._send(TaskBroke(held.id, held.job, failure))
        else:
            if faults.raising:
                failures = [
                    Failure(
                        index=index, kind="raised", type_name="ValueError", message="simulated", node=self.info.name
                    )
                    for index in range(run.start, run.stop)
                    if self.random.random() < faults.raising
                ]
            page = ResultPage(
                run.start,
                run.stop,
                b"",
                failures=tuple(failures),
                partial=held.spec.reduces,
                elapsed_s=now - run.begun,
            )
            self._sent += 1
            done = Done(self._sent, held.id, held.job, (page,))
            self.spool[self._sent] = (done, now)
            self.fleet.note_run(held.job, run, now)
            self._send(done)
        self._drop_if_empty(held)
        if self.is_up:
            self._fill_slots()
