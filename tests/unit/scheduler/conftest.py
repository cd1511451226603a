"""A bench for the scheduler: short calls, a clock, and a full check of the invariants after every event."""

import pytest

from fallow.model.changes import AddResults, EndJob, SaveSettled, SealJob
from fallow.model.failure import Failure
from fallow.model.job import Counting, JobSpec, Pages, ResultsOf
from fallow.model.lease import HeldLease, RunningTask
from fallow.model.node import NodeInfo
from fallow.model.page import ResultPage
from fallow.model.ranges import RangeSet
from fallow.model.requirements import Requirements
from fallow.scheduler.effects import (
    CancelWork,
    ForgetJob,
    GrantLease,
    Persist,
    RecallLease,
    Tell,
    TellProgress,
    TellResults,
)
from fallow.scheduler.scheduler import Scheduler
from fallow.scheduler.settings import SchedulerSettings


class Bench:
    """Drives one scheduler. Effects of the last event are in `effects`."""

    def __init__(self, **settings):
        self.scheduler = Scheduler(SchedulerSettings(**settings), epoch=7, unix_offset_s=1000.0)
        self.now = 0.0
        self.effects = []

    def __call__(self, event, *args, **options):
        self.effects = getattr(self.scheduler, event)(*args, now=self.now, **options)
        self.scheduler.check_invariants()
        return self

    # --- events

    def node(self, name="a", *, slots=1, held=(), presents=True, **info):
        self("on_node_joined", name, self.info(name, slots=slots, **info))
        return self("on_leases_presented", name, held) if presents else self

    @staticmethod
    def info(name="a", *, slots=1, cores=None, memory_bytes=8_000_000_000, **info):
        about = {"os": "linux", "arch": "x86_64", "pythons": ("3.11",)} | info
        return NodeInfo(name=name, slots=slots, cores=cores or slots, memory_bytes=memory_bytes, **about)

    @staticmethod
    def spec(job="j", *, follows=None, counting=False, requires=None, stages=("map",), **options):
        inputs = ResultsOf(follows) if follows else Counting(0, 1) if counting else Pages()
        return JobSpec(
            id=job, stages=stages, function="f" * 64, function_name="f", inputs=inputs,
            requirements=Requirements(**(requires or {})), **options,
        )  # fmt: skip

    def job(self, job="j", tasks=None, *, seal=True, **options):
        """Create a job; with `tasks`, give it that many inputs and seal it. Effects of all are kept together."""
        all_effects = self("on_job_created", self.spec(job, **options)).effects
        if tasks is not None and not options.get("follows"):
            if not options.get("counting"):
                all_effects += self("on_inputs_added", job, tasks).effects
            if seal:
                all_effects += self("on_job_sealed", job, tasks).effects
        self.effects = all_effects
        return self

    def after(self, seconds):
        """Let time pass, and wake the scheduler whenever it asked to be."""
        until, collected = self.now + seconds, []
        while (deadline := self.scheduler.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            collected += self("on_time").effects
        self.now, self.effects = until, collected
        return self

    def beat(self, node="a", running=(), leases=None):
        leases = [lease.id for lease in self.held_by(node)] if leases is None else leases
        return self("on_heartbeat", node, [RunningTask(*each) for each in running], leases)

    def beats(self, seconds, *nodes, running=None):
        """Let time pass while these nodes beat; running: for each node, its running tasks at the end."""
        collected = []
        for _ in range(int(seconds)):
            self.now += 1.0
            for node in nodes:
                collected += self.beat(node, (running or {}).get(node, ())).effects
            if (deadline := self.scheduler.next_deadline()) is not None and deadline <= self.now:
                collected += self("on_time").effects
        self.effects = collected
        return self

    def done(
        self,
        lease,
        start=None,
        stop=None,
        *,
        node=None,
        elapsed_s=0.1,
        failures=(),
        partial=False,
        after=0.0,
        kept=None,
    ):
        """The lease's node delivers a page of it: all of it unless start and stop say otherwise."""
        self.now += after
        start = lease.lease.start if start is None else start
        stop = lease.lease.stop if stop is None else stop
        failures = tuple(
            each if isinstance(each, Failure) else Failure(index=each, kind="raised", type_name="ValueError")
            for each in failures
        )
        page = ResultPage(start, stop, b"x", elapsed_s=elapsed_s, failures=failures, partial=partial, kept=kept)
        return self("on_results", node or lease.node, lease.lease.id, lease.lease.job, (page,))

    def broke(self, lease, index=None, *, kind="crashed", **about):
        index = lease.lease.start if index is None else index
        failure = Failure(index=index, kind=kind, **about)
        return self("on_task_broke", lease.node, lease.lease.id, lease.lease.job, failure)

    def returned(self, lease, *ranges):
        return self("on_returned", lease.node, lease.lease.id, lease.lease.job, RangeSet(ranges).ranges())

    # --- what came of it

    def of(self, kind):
        return [each for each in self.effects if isinstance(each, kind)]

    @property
    def grants(self):
        return self.of(GrantLease)

    @property
    def grant(self):
        (grant,) = self.grants
        return grant

    @property
    def granted(self):
        """(node, start, stop) of each grant."""
        return [(each.node, each.lease.start, each.lease.stop) for each in self.grants]

    @property
    def recalls(self):
        return self.of(RecallLease)

    @property
    def cancels(self):
        return [(each.node, each.job, each.ranges) for each in self.of(CancelWork)]

    @property
    def forgets(self):
        return [(each.node, each.job) for each in self.of(ForgetJob)]

    def changes(self, kind):
        return [each.change for each in self.of(Persist) if isinstance(each.change, kind)]

    @property
    def counts(self):
        """Flat ranges that count of each accepted page."""
        return [page.counts for change in self.changes(AddResults) for page in change.pages]

    @property
    def failures(self):
        return [each for change in self.changes(AddResults) for page in change.pages for each in page.page.failures]

    @property
    def ends(self):
        return [(change.job, change.state) for change in self.changes(EndJob)]

    @property
    def told(self):
        return [each.event for each in self.of(Tell)]

    @property
    def story(self):
        """The kinds of all effects, in order; of Persist the change's."""
        return [type(each.change if isinstance(each, Persist) else each).__name__ for each in self.effects]

    def progress(self, job="j"):
        return self.scheduler.progress(job)

    def held_by(self, node):
        return list(self.scheduler._books.nodes[node].leases.values())

    def explain(self, job="j"):
        return self.scheduler.explain(job)


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def make_bench():
    return Bench


@pytest.fixture
def held():
    """Make what a node presents."""
    return lambda lease, job, *flat: HeldLease(lease, job, tuple(flat))


@pytest.fixture
def kinds():
    """Changes and effects that tests look for, without importing each in each file."""
    return {each.__name__: each for each in (SaveSettled, SealJob, EndJob, AddResults, TellProgress, TellResults)}
