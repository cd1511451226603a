"""The fleet: builds hub, nodes and faults from a plan, runs it, and reports."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec

from fallow.model.ids import Digest, JobId, NodeId
from fallow.model.job import Counting, Inputs, JobSpec, Pages, ResultsOf
from fallow.model.node import NodeInfo
from fallow.model.ranges import RangeSet
from fallow.scheduler.settings import SchedulerSettings
from fallow.simulator.clock import Clock
from fallow.simulator.durations import draw
from fallow.simulator.hub import CHECK_EVERY, SMALL_FLEET, SimHub
from fallow.simulator.network import Network
from fallow.simulator.node import Run, SimNode
from fallow.simulator.plan import Plan, Work
from fallow.state.memory import MemoryState
from fallow.state.state import State

CLIENT_LOOKS_S = 1.0
"""How often a client looks whether the hub has all that it sent (after a crash of the hub it may not)."""


MOST_EFFECTS = 40
"""A hub that is to die between two effects does so within this many."""

FAST_FOLDER = Path("/dev/shm")  # noqa: S108  # a folder of random name is made in it
"""Linux's folder in memory: the simulated hub's database needs no disk."""


class Stuck(AssertionError):
    """The run did not come to an end in time."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a run came out. Times are virtual seconds unless they say otherwise."""

    makespan_s: float
    bound_s: float
    """Lower bound: max(work / total speed, longest task / fastest node)."""
    tasks: int
    failed: int
    executed: int
    """Task results that nodes produced, second ones included."""
    repeated: int
    """Of these, results of tasks that had one already."""
    utilisation: float
    """Part of the fleet's capacity that went into results that count, over the makespan."""
    leases: int
    recalls: int
    cancels: int
    frames: int
    events: int
    hub_starts: int
    torn: int
    """Deaths of the hub between two effects of one event."""
    wall_s: float
    """Real seconds that the simulation took."""

    @property
    def ratio(self) -> float:
        return self.makespan_s / self.bound_s if self.bound_s else 1.0


class Fleet:
    """One simulated grid."""

    def __init__(self, plan: Plan, settings: SchedulerSettings = SchedulerSettings()) -> None:
        self.plan = plan
        self.faults = plan.faults
        self.clock = Clock()
        self.random = Random(f"fleet {plan.seed}")
        self.network = Network(self.clock, Random(f"network {plan.seed}"), plan.latency_s, plan.faults)
        every = plan.check_every or (1 if plan.nodes <= SMALL_FLEET else CHECK_EVERY)
        self._memory = MemoryState()
        self._folder: Path | None = None
        self.hub = SimHub(
            self.clock, self.network, settings, self._open_state, commit_s=plan.commit_s, check_every=every
        )
        self.heartbeat_s = settings.heartbeat_s
        self.idle_heartbeat_s = settings.idle_heartbeat_s
        self.durations: dict[JobId, list[float]] = {}
        self.executed: dict[JobId, RangeSet] = {}
        self._specs = [self._spec(number, work) for number, work in enumerate(plan.work)]
        self._killers: set[tuple[JobId, int]] = set()
        for _ in range(plan.faults.killers):
            spec = self.random.choice(self._specs)
            self._killers.add((spec.id, self.random.randrange(len(self.durations[spec.id]))))
        self.has_killers = bool(self._killers)
        self.nodes = [self._node(number) for number in range(plan.nodes)]
        self._executed_count = 0
        self._repeated = 0
        self._wasted_s = 0.0

    def _spec(self, number: int, work: Work) -> JobSpec:
        inputs: Inputs = Pages()
        if work.follows is not None:
            inputs = ResultsOf(JobId(f"job{work.follows}"))
        elif work.counting:
            inputs = Counting(0, 1)
        spec = JobSpec(
            id=JobId(f"job{number}"),
            stages=("reduce",) if work.reduces else ("map",),
            function=Digest("0" * 64),
            function_name="simulated",
            inputs=inputs,
            requirements=work.requirements,
            priority=work.priority,
            retries=work.retries,
            speculate=work.speculate,
        )
        self.durations[spec.id] = draw(work.durations, work.tasks, work.median_s, self.plan.seed * 1000 + number)
        self.executed[spec.id] = RangeSet()
        return spec

    def _node(self, number: int) -> SimNode:
        plan = self.plan
        part = number / (plan.nodes - 1) if plan.nodes > 1 else 0.0
        speed = plan.slowest + (plan.fastest - plan.slowest) * part
        score = speed * (1 + plan.score_error * self.random.uniform(-1, 1))
        info = NodeInfo(
            name=f"node{number}",
            cores=plan.slots,
            slots=plan.slots,
            memory_bytes=4_000_000_000 * plan.slots,
            os="linux",
            arch="x86_64",
            pythons=("3.11",),
            score=score,
        )
        return SimNode(self, NodeId(f"node{number}"), info, speed, Random(f"node {plan.seed} {number}"))

    # --- running --------------------------------------------------------------------------------

    def run(self) -> Report:
        """Run until all jobs have ended; raises AssertionError if anything is lost, doubled or stuck."""
        if self.plan.state == "memory":
            return self._run()
        with TemporaryDirectory(
            prefix="fallow-simulator-", dir=FAST_FOLDER if FAST_FOLDER.is_dir() else None
        ) as folder:
            self._folder = Path(folder)
            try:
                return self._run()
            finally:
                self.hub.stop()

    def _open_state(self) -> State:
        if self._folder is None:
            return self._memory  # it outlives the simulated hub
        from fallow.state.sql import SqlState  # needs fallow[hub]

        return SqlState(self._folder)

    def _run(self) -> Report:
        began = time.perf_counter()
        clock, plan = self.clock, self.plan
        self.hub.start()
        for node in self.nodes:
            clock.post(self.random.uniform(0, plan.join_over_s), node.start)
        for work, spec in zip(plan.work, self._specs, strict=True):
            clock.post(work.at_s, self._feed, work, spec)
        self._plant_faults()
        wanted = len(self._specs)
        while len(self.hub.ended) < wanted:
            if not clock.step() or clock.now > plan.limit_s:
                raise Stuck(self._what_is_stuck())
        return self._report(time.perf_counter() - began)

    def _what_is_stuck(self) -> str:
        scheduler = self.hub.scheduler
        lines = [f"{job} {scheduler.progress(job)}: {'; '.join(scheduler.explain(job))}" for job in scheduler.jobs()]
        return f"at {self.clock.now:.0f} s virtual time: " + " | ".join(lines)

    def _feed(self, work: Work, spec: JobSpec) -> None:
        """Act as the job's client: create it and send its inputs, again if the hub forgot them in a crash."""
        hub, again_s = self.hub, CLIENT_LOOKS_S
        row = hub.journal.jobs.get(spec.id)
        if row is not None and (row.size is not None or row.state) and not work.follows:
            return
        if spec.id in hub.ended:
            return
        parent = spec.inputs.parent if isinstance(spec.inputs, ResultsOf) else None
        if hub.is_up and (parent is None or parent in hub.journal.jobs):
            accepted = hub.accepted(spec)
            if accepted is None:
                if row is None or not row.state:
                    hub.create(spec)
                again_s = 0.0 if parent is None else CLIENT_LOOKS_S
            elif parent is None and accepted < work.tasks and not work.counting:
                hub.add_inputs(spec.id, accepted, min(accepted + work.page, work.tasks))
                again_s = work.page_gap_s
            elif parent is None:
                hub.seal(spec.id, work.tasks)
        self.clock.post(again_s, self._feed, work, spec)

    # --- faults ---------------------------------------------------------------------------------

    def _plant_faults(self) -> None:
        faults = self.faults
        for node in self.nodes:
            self._plant(faults.agent_killed_s, self._kill_agent, node)
            self._plant(faults.node_gone_s, self.take_down, node)
            self._plant(faults.node_leaves_s, self._let_leave, node)
            self._plant(faults.link_cut_s, self.cut, node)
            self._plant(faults.link_mute_s, self._mute, node)
            self._plant(faults.slowdown_s, self._slow_down, node)
        self._plant(faults.hub_killed_s, self._kill_hub, None)
        if self.plan.calm_after_s < float("inf"):
            self.clock.post(self.plan.calm_after_s, self._calm)

    def _plant(self, mean_s: float, fault: Callable[..., None], node: SimNode | None) -> None:
        if mean_s:
            self.clock.post(self.random.expovariate(1 / mean_s), self._strike, mean_s, fault, node)

    def _strike(self, mean_s: float, fault: Callable[..., None], node: SimNode | None) -> None:
        if self.clock.now < self.plan.calm_after_s:
            if node is None:
                fault()
            else:
                fault(node)
            self._plant(mean_s, fault, node)

    def _calm(self) -> None:
        self.network.is_calm = True

    def _kill_agent(self, node: SimNode) -> None:
        node.die(keep_spool=True)
        self.cut(node)
        self.clock.post(self.random.uniform(0.5, 30), node.start)

    def take_down(self, node: SimNode) -> None:
        """The node vanishes; nobody is told, and it comes back later with nothing."""
        if node.is_up:
            node.die(keep_spool=False)
            node.link = None  # the hub's end of the link stays open, and silent
            self.clock.post(self.random.uniform(20, 300), node.start)

    def _let_leave(self, node: SimNode) -> None:
        node.leave()
        self.clock.post(self.random.uniform(20, 300), node.start)

    def cut(self, node: SimNode) -> None:
        """The node's link breaks; both ends notice."""
        link = node.link
        if link is not None and link.is_open:
            link.is_open = False
            node.on_cut(link)
            self.hub.on_cut(link)

    def _mute(self, node: SimNode) -> None:
        link = node.link
        if link is not None:
            if self.random.random() < 0.5:
                link.hub_is_mute = True
            else:
                link.node_is_mute = True
            self.clock.post(self.random.uniform(1, 60), self.cut, node)

    def _slow_down(self, node: SimNode) -> None:
        node.slow_down(1 / self.random.uniform(2, 20))
        self.clock.post(self.random.uniform(5, 120), node.slow_down, 1.0)

    def _kill_hub(self) -> None:
        if not self.hub.is_up:
            return
        if self.random.random() < 0.5:
            self.hub.kill()
            self._restart_hub()
        else:
            self.hub.die_within(self.random.randrange(MOST_EFFECTS), self._restart_hub)

    def _restart_hub(self) -> None:
        self.clock.post(self.random.uniform(0.5, 20), self._start_hub)

    def _start_hub(self) -> None:
        if not self.hub.is_up:
            self.hub.start()

    # --- what nodes tell ------------------------------------------------------------------------

    def is_killer(self, job: JobId, start: int, stop: int) -> bool:
        """Whether a task of the range takes its node down."""
        return any((job, index) in self._killers for index in range(start, stop))

    def note_run(self, job: JobId, run: Run, now: float) -> None:
        """A node finished a batch."""
        fresh = self.executed[job].add(run.start, run.stop)
        count = sum(stop - start for start, stop in fresh)
        self._executed_count += run.stop - run.start
        self._repeated += run.stop - run.start - count

    def note_waste(self, run: Run, now: float) -> None:
        """A batch was given up half way."""
        self._wasted_s += now - run.begun

    # --- report ---------------------------------------------------------------------------------

    def _report(self, wall_s: float) -> Report:
        rows = self.hub.journal.jobs
        for spec in self._specs:
            row = rows[spec.id]
            assert row.state == "done", f"{spec.id} is {row.state}"
            assert row.size == len(self.durations[spec.id]), f"{spec.id} was sealed at {row.size}"
        speeds = [node.speed * node.info.slots for node in self.nodes]
        work_s = sum(map(sum, self.durations.values()))
        longest_s = max(max(each, default=0.0) for each in self.durations.values())
        fastest = max(node.speed for node in self.nodes)
        makespan_s = max(self.hub.ended.values()) - min(work.at_s for work in self.plan.work)
        return Report(
            makespan_s=makespan_s,
            bound_s=max(work_s / sum(speeds), longest_s / fastest),
            tasks=sum(map(len, self.durations.values())),
            failed=sum(len(row.failures) for row in rows.values()),
            executed=self._executed_count,
            repeated=self._repeated,
            utilisation=work_s / (sum(speeds) * makespan_s) if makespan_s else 0.0,
            leases=self.hub.leases,
            recalls=self.hub.recalls,
            cancels=self.hub.cancels,
            frames=self.network.frames,
            events=self.hub.events,
            hub_starts=self.hub.journal.epoch,
            torn=self.hub.torn,
            wall_s=wall_s,
        )
