"""A state machine of random events against the scheduler, with a naive model that knows the status of each task.

The model sees only what the shell would see: effects. From them it knows which task has a result that counts, how
often, and who was granted what. Nodes here may lie about nothing, but frames come late, doubled, or never. What the
scheduler has persisted goes to a real state in groups; the hub may crash at any time, which loses the group that was not
committed, and go on from the state.
"""

from copy import copy

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fallow.hub.core.job_book import ended_view
from fallow.hub.core.recovery import absent_parents, restore
from fallow.model.changes import AddInputs, AddJob, AddResults, EndJob, SaveSettled, SealJob
from fallow.model.failure import Failure
from fallow.model.job import JobSpec, Pages, ResultsOf
from fallow.model.lease import HeldLease, RunningTask
from fallow.model.node import NodeInfo
from fallow.model.page import InputPage, ResultPage
from fallow.model.ranges import RangeSet
from fallow.model.requirements import Requirements
from fallow.scheduler.effects import CancelWork, GrantLease, Persist, RecallLease
from fallow.scheduler.scheduler import Scheduler
from fallow.scheduler.settings import SchedulerSettings
from fallow.state.memory import MemoryState

NODES = ["n0", "n1", "n2", "n3"]
REQUIREMENTS = [Requirements(), Requirements(cores=2), Requirements(memory_bytes=3), Requirements(tags=("t",))]


class Job:
    """The model of one job."""

    def __init__(self, spec):
        self.spec = spec
        self.accepted = 0
        self.size = None
        self.status = {}
        """Index → "value" or kind of failure, once settled."""
        self.state = None

    def __copy__(self):
        other = Job(self.spec)
        other.accepted, other.size, other.status, other.state = self.accepted, self.size, dict(self.status), self.state
        return other


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.settings = SchedulerSettings(snapshot_rows=3, kept_failures=4, scan=8, grants_per_event=6, arrival_runs=3)
        self.state = MemoryState()
        self.scheduler = Scheduler(self.settings, epoch=self.state.recover().epoch)
        self.changes = []
        """What was persisted since the last commit."""
        self.now = 0.0
        self.specs = []
        """Of all jobs that were ever made; a crash may take those that were not committed."""
        self.jobs = {}
        self.committed = {}
        """The model's jobs at the last commit."""
        self.grants = []
        """All leases that were ever granted: (node, lease)."""
        self.held = {}
        """What a node has of each lease that reached it: id → (lease, set of indices)."""
        self.recalls = []
        self.info = {}
        self.ready = set()

    # --- carrying out effects

    def do(self, event, *args, **options):
        self.carry_out(getattr(self.scheduler, event)(*args, now=self.now, **options))

    def carry_out(self, effects):
        for effect in effects:
            if isinstance(effect, Persist):
                self.changes.append(effect.change)
                self.persist(effect.change)
            elif isinstance(effect, GrantLease):
                self.granted(effect)
            elif isinstance(effect, RecallLease):
                self.recalls.append(effect)
            elif isinstance(effect, CancelWork):
                self.cancelled(effect)

    def persist(self, change):
        if isinstance(change, AddResults):
            job = self.jobs[change.job]
            assert job.state is None, "results of an ended job"
            for stored in change.pages:
                failures = {each.index: each.kind for each in stored.page.failures}
                counts = [i for a, b in RangeSet.from_flat(stored.counts).ranges() for i in range(a, b)]
                assert counts, "a page of which nothing counts"
                if stored.page.partial:
                    assert counts == list(range(stored.page.start, stored.page.stop))
                for index in counts:
                    assert stored.page.start <= index < stored.page.stop
                    assert index not in job.status, f"task {index} accepted twice"
                    job.status[index] = failures.get(index, "value")
                assert set(failures) <= set(counts), "a failure that does not count"
        elif isinstance(change, SealJob):
            self.jobs[change.job].size = change.size
        elif isinstance(change, SaveSettled):
            job = self.jobs[change.job]
            assert [i for a, b in RangeSet.from_flat(change.settled).ranges() for i in range(a, b)] == sorted(
                job.status
            )
            assert [i for a, b in RangeSet.from_flat(change.failed).ranges() for i in range(a, b)] == sorted(
                index for index, kind in job.status.items() if kind != "value"
            )
        elif isinstance(change, EndJob):
            job = self.jobs[change.job]
            assert job.state is None, "ended twice"
            job.state = change.state
            if change.state == "done":
                assert sorted(job.status) == list(range(job.size)), "ended with tasks missing"

    def granted(self, effect):
        node, lease = effect.node, effect.lease
        job = self.jobs[lease.job]
        assert node in self.ready, "granted to a node that is not ready"
        assert not job.spec.requirements.unmet_by(self.info[node]), "granted to a node that does not match"
        assert job.state is None
        assert 0 <= lease.start < lease.stop
        assert lease.id not in {each.id for _, each in self.grants}, "an id is used twice"
        assert not any(index in job.status for index in range(lease.start, lease.stop)), "granted although settled"
        self.grants.append((node, lease))
        self.held.setdefault(node, {})[lease.id] = (lease, set(range(lease.start, lease.stop)))

    def cancelled(self, effect):
        wanted = (
            None
            if not effect.ranges
            else {i for a, b in RangeSet.from_flat(effect.ranges).ranges() for i in range(a, b)}
        )
        for lease, tasks in self.held.get(effect.node, {}).values():
            if lease.job == effect.job:
                tasks -= set(tasks) if wanted is None else wanted

    # --- rules: jobs

    @initialize(slots=st.integers(1, 3), tasks=st.integers(1, 12), reduces=st.booleans())
    def begin(self, slots, tasks, reduces):
        """Start where it gets interesting: two nodes, one of them busy with most of a job."""
        self.join("n0", slots, 1.0, [])
        self.create_job(0, Requirements(), 0, reduces, Pages())
        self.accept(self.jobs["j0"], tasks)
        self.join("n1", 1, 1.0, ["t"])

    @rule(
        priority=st.integers(-1, 1),
        requirements=st.sampled_from(REQUIREMENTS),
        retries=st.integers(0, 1),
        reduces=st.booleans(),
        parent=st.none() | st.integers(0, 3),
    )
    @precondition(lambda self: len(self.jobs) < 6)
    def create(self, priority, requirements, retries, reduces, parent):
        inputs = Pages()
        if parent is not None and f"j{parent}" in self.jobs:
            above = self.jobs[f"j{parent}"]
            if above.state is None and not above.spec.reduces:
                inputs = ResultsOf(f"j{parent}")
        self.create_job(priority, requirements, retries, reduces, inputs)

    def create_job(self, priority, requirements, retries, reduces, inputs):
        spec = JobSpec(
            id=f"j{len(self.specs)}", stages=("reduce",) if reduces else ("map",), function="f", function_name="f",
            inputs=inputs, priority=priority, requirements=requirements, retries=retries, max_retries=1,
        )  # fmt: skip
        self.specs.append(spec)
        self.jobs[spec.id] = Job(spec)
        self.changes.append(AddJob(spec))
        self.do("on_job_created", spec)

    def accept(self, job, count):
        start, job.accepted = job.accepted, job.accepted + count
        self.changes.append(AddInputs(InputPage(job.spec.id, start, job.accepted, b"")))
        self.do("on_inputs_added", job.spec.id, job.accepted)

    def open_jobs(self, inputs=Pages):
        return [j for j in self.jobs.values() if j.state is None and isinstance(j.spec.inputs, inputs)]

    @rule(data=st.data(), count=st.integers(1, 12))
    def add_inputs(self, data, count):
        jobs = [job for job in self.open_jobs() if job.size is None]
        if jobs:
            self.accept(data.draw(st.sampled_from(jobs)), count)

    @rule(data=st.data())
    def seal(self, data):
        jobs = [job for job in self.open_jobs() if job.size is None]
        if jobs:
            job = data.draw(st.sampled_from(jobs))
            self.do("on_job_sealed", job.spec.id, job.accepted)

    @rule(data=st.data(), start=st.integers(0, 20), count=st.integers(1, 5))
    def cancel_tasks(self, data, start, count):
        if self.jobs:
            job = data.draw(st.sampled_from(list(self.jobs.values())))
            self.do("on_tasks_cancelled", job.spec.id, [(start, start + count)])

    @rule(data=st.data(), deleted=st.booleans())
    def cancel_job(self, data, deleted):
        if len(self.jobs) > 3:
            job = data.draw(st.sampled_from(list(self.jobs.values())))
            self.do("on_job_deleted" if deleted else "on_job_cancelled", job.spec.id)

    # --- rules: the hub

    @rule()
    def commit(self):
        self.state.commit(self.changes)
        self.changes = []
        self.committed = {name: copy(job) for name, job in self.jobs.items()}

    @rule(commits=st.booleans(), back=st.sets(st.sampled_from(NODES)))
    def crash(self, commits, back):
        """The hub is killed, maybe after the commit of what it did last, and started again; some nodes come back."""
        if commits:
            self.commit()
        self.changes = []
        self.jobs = {name: copy(job) for name, job in self.committed.items()}
        recovered = self.state.recover()
        found = {parent: self.state.find_job(parent) for parent in absent_parents(recovered)}
        parents = {parent: ended_view(job) for parent, job in found.items() if job is not None}
        self.scheduler = Scheduler(self.settings, epoch=recovered.epoch)
        self.ready.clear()
        self.recalls = []
        self.carry_out(restore(self.scheduler, recovered, parents, self.now))
        for node in sorted(back & self.info.keys()):
            info = self.info[node]
            self.join(node, info.slots, info.score, info.tags)

    # --- rules: nodes

    def join(self, node, slots, score, tags, *, is_first=False):
        self.info[node] = NodeInfo(
            name=node, cores=slots, slots=slots, memory_bytes=4 * slots, os="linux", arch="x", pythons=(), tags=tuple(tags), score=score,
        )  # fmt: skip
        self.ready.discard(node)
        self.do("on_node_joined", node, self.info[node])
        self.ready.add(node)
        held = [HeldLease(i, lease.job, flat(tasks)) for i, (lease, tasks) in self.held.get(node, {}).items() if tasks]
        self.do("on_leases_presented", node, held, is_first=is_first)

    @rule(
        node=st.sampled_from(NODES),
        slots=st.integers(0, 4),
        score=st.sampled_from([0.5, 1.0, 4.0]),
        tagged=st.booleans(),
        forgets=st.booleans(),
    )
    def node_joins(self, node, slots, score, tagged, forgets):
        if forgets:
            self.held.pop(node, None)
        self.join(node, slots, score, ["t"] if tagged else [], is_first=forgets)

    @rule(node=st.sampled_from(NODES))
    def link_closes(self, node):
        self.ready.discard(node)
        self.do("on_link_closed", node)

    @rule(node=st.sampled_from(NODES))
    def node_is_lost(self, node):
        """Its leases go to others; what it says later comes late."""
        self.link_closes(node)
        self.time_passes(6.0)

    @rule(node=st.sampled_from(NODES), accepting=st.booleans())
    def node_changes(self, node, accepting):
        if node in self.ready and self.scheduler.has_node(node):
            self.ready.discard(node)
            if accepting:
                self.ready.add(node)
                self.do("on_node_changed", node, self.info[node], True, "")
            else:
                self.do("on_node_changed", node, self.info[node], False, "owner is back")
                self.ready.discard(node)
                self.paused = node

    @rule(node=st.sampled_from(NODES), knows=st.booleans(), runs_s=st.floats(0, 100))
    def beat(self, node, knows, runs_s):
        if node in self.ready:
            held = {i: each for i, each in self.held.get(node, {}).items() if each[1]} if knows else {}
            running = [RunningTask(i, min(tasks), runs_s) for i, (_, tasks) in held.items()]
            if not knows:
                self.held.pop(node, None)
            self.do("on_heartbeat", node, running, list(held))

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 4.0, 20.0]))
    def time_passes(self, seconds):
        self.now += seconds
        for _ in range(50):
            deadline = self.scheduler.next_deadline()
            if deadline is None or deadline > self.now:
                break
            self.do("on_time")
        else:
            raise AssertionError("the scheduler asks to be woken again and again")
        self.ready = {node for node in self.ready if self.scheduler.has_node(node)}

    # --- rules: work; any lease that was ever granted may still speak

    def some_lease(self, data):
        return data.draw(st.sampled_from(self.grants)) if self.grants else (None, None)

    @rule(
        data=st.data(), elapsed_s=st.sampled_from([1e-6, 0.01, 1.0, 30.0]), raising=st.booleans(), whole=st.booleans()
    )
    def results(self, data, elapsed_s, raising, whole):
        node, lease = self.some_lease(data)
        if lease is None:
            return
        size = lease.stop - lease.start
        start = lease.start + (0 if whole else data.draw(st.integers(0, size - 1)))
        stop = lease.stop if whole else data.draw(st.integers(start + 1, lease.stop))
        failures = (Failure(index=data.draw(st.integers(start, stop - 1)), kind="raised"),) if raising else ()
        reduces = self.specs[int(lease.job[1:])].reduces
        page = ResultPage(start, stop, b"", failures=failures, partial=reduces, elapsed_s=elapsed_s)
        _, tasks = self.held.get(node, {}).get(lease.id, (None, set()))
        tasks -= set(range(start, stop))
        self.do("on_results", node, lease.id, lease.job, (page,))

    @rule(data=st.data(), kind=st.sampled_from(["crashed", "timeout", "environment"]))
    def breaks(self, data, kind):
        node, lease = self.some_lease(data)
        if lease is not None:
            index = data.draw(st.integers(lease.start, lease.stop - 1))
            _, tasks = self.held.get(node, {}).get(lease.id, (None, set()))
            tasks.discard(index)
            self.do(
                "on_task_broke",
                node,
                lease.id,
                lease.job,
                Failure(index=index, kind=kind, is_of_node=kind == "environment"),
            )

    @rule(data=st.data())
    def returns(self, data):
        node, lease = self.some_lease(data)
        if lease is not None:
            start = data.draw(st.integers(lease.start, lease.stop - 1))
            _, tasks = self.held.get(node, {}).get(lease.id, (None, set()))
            tasks -= set(range(start, lease.stop))
            self.do("on_returned", node, lease.id, lease.job, [(start, lease.stop)])

    @rule()
    @precondition(lambda self: self.recalls)
    def answer_recalls(self):
        recalls, self.recalls = self.recalls, []
        for recall in recalls:
            lease, tasks = self.held.get(recall.node, {}).get(recall.lease, (None, set()))
            if lease is not None:
                given = sorted(tasks)[-recall.count :]
                tasks -= set(given)
                self.do("on_returned", recall.node, lease.id, lease.job, [(i, i + 1) for i in given])

    # --- what must hold

    @invariant()
    def consistent(self):
        self.scheduler.check_invariants()

    @invariant()
    def agrees_with_the_model(self):
        for job in self.jobs.values():
            known = self.scheduler.has_job(job.spec.id)
            assert known == (job.state is None), f"{job.spec.id} is {job.state}, the scheduler says {known}"
            if known:
                progress = self.scheduler.progress(job.spec.id)
                assert progress.settled == len(job.status)
                assert progress.failed == sum(kind != "value" for kind in job.status.values())
                assert progress.size == job.size
                if isinstance(job.spec.inputs, Pages):
                    assert progress.accepted == job.accepted
                else:
                    assert progress.accepted == len(self.jobs[job.spec.inputs.parent].status)
                assert self.scheduler.explain(job.spec.id)

    @invariant()
    def leases_are_bounded(self):
        for view in self.scheduler.nodes():
            assert view.running_tasks <= max(view.info.slots, 0)
            assert view.leases <= 12 * view.info.slots + 12

    def teardown(self):
        """Whatever happened: one good node that does its work brings every job to its end."""
        self.do_all()
        for job in self.jobs.values():
            if job.state is None and job.size is None and isinstance(job.spec.inputs, Pages):
                self.do("on_job_sealed", job.spec.id, job.accepted)
        for node in NODES:
            self.ready.discard(node)
            self.do("on_link_closed", node)
        self.now += 6
        self.do_all()
        self.held.clear()
        self.join("good", 4, 1.0, ["t"])
        for _ in range(600):
            if all(job.state is not None for job in self.jobs.values()):
                return
            self.now += 0.5
            self.do("on_heartbeat", "good", (), list(self.held.get("good", {})))
            for lease, tasks in list(self.held.get("good", {}).values()):
                for index in sorted(tasks):
                    page = ResultPage(index, index + 1, b"", partial=self.jobs[lease.job].spec.reduces, elapsed_s=0.01)
                    self.do("on_results", "good", lease.id, lease.job, (page,))
                    tasks.discard(index)
                if not tasks:
                    self.held["good"].pop(lease.id, None)
            self.do_all()
            self.scheduler.check_invariants()
        waiting = [(j, self.scheduler.explain(j), self.scheduler.progress(j)) for j in self.scheduler.jobs()]
        raise AssertionError(f"stuck: {waiting}")

    def do_all(self):
        for _ in range(50):
            deadline = self.scheduler.next_deadline()
            if deadline is None or deadline > self.now:
                return
            self.do("on_time")


def flat(indices):
    return tuple(RangeSet((index, index + 1) for index in indices).flat())


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
