"""The queue against a naive model: a state per task."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fallow.model.lease import Lease
from fallow.node.lease_queue import LeaseQueue

pytestmark = pytest.mark.slow

JOBS = ["a" * 32, "b" * 32]


class QueueMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.queue = LeaseQueue()
        self.model = {}
        self.jobs = {}
        self.next = 1

    def pending(self, lease):
        return sorted(i for i, state in self.model.get(lease, {}).items() if state == "pending")

    def running(self, lease):
        return sorted(i for i, state in self.model.get(lease, {}).items() if state == "running")

    def drop(self, lease, indices):
        for i in indices:
            self.model[lease].pop(i, None)
        if not self.model[lease]:
            del self.model[lease]

    @rule(job=st.sampled_from(JOBS), start=st.integers(0, 20), size=st.integers(1, 20))
    def grant(self, job, start, size):
        self.queue.hold(Lease(self.next, job, start, start + size))
        self.model[self.next] = dict.fromkeys(range(start, start + size), "pending")
        self.jobs[self.next] = job
        self.next += 1

    @rule(job=st.sampled_from(JOBS), priority=st.integers(-1, 1))
    def specify(self, job, priority):
        waiting = self.queue.unspecified_jobs()
        assert bool(self.queue.specify(job, priority=priority)) == (job in waiting)

    @rule(count=st.integers(0, 10), bound=st.integers(0, 50))
    def take(self, count, bound):
        for queued in self.queue:
            start, stop = self.queue.take(queued, count, bound)
            assert self.pending(queued.lease.id)[: stop - start] == list(range(start, stop))
            for i in range(start, stop):
                self.model[queued.lease.id][i] = "running"
            break

    @rule(lease=st.integers(1, 10), start=st.integers(0, 40), size=st.integers(1, 10))
    def finish(self, lease, start, size):
        ended = self.queue.finish(lease, start, start + size)
        if lease in self.model:
            self.drop(lease, [i for i in self.running(lease) if start <= i < start + size])
            assert ended == (lease not in self.model)

    @rule(lease=st.integers(1, 10), start=st.integers(0, 40), size=st.integers(1, 10))
    def requeue(self, lease, start, size):
        self.queue.requeue(lease, start, start + size)
        for i in self.running(lease):
            if start <= i < start + size:
                self.model[lease][i] = "pending"

    @rule(lease=st.integers(1, 10), count=st.integers(1, 30))
    def recall(self, lease, count):
        got = [i for start, stop in self.queue.recall(lease, count) for i in range(start, stop)]
        assert got == self.pending(lease)[-count:]
        if lease in self.model:
            self.drop(lease, got)

    @rule(job=st.sampled_from(JOBS), start=st.integers(0, 40), size=st.integers(1, 40))
    def cancel(self, job, start, size):
        self.queue.cancel(job, [(start, start + size)])
        for lease in [lease for lease in self.model if self.jobs[lease] == job]:
            self.drop(lease, range(start, start + size))

    @invariant()
    def same(self):
        self.queue.check_invariants()
        held = {h.id: h.unfinished for h in self.queue.held()}
        assert set(held) == set(self.model)
        for lease, flat in held.items():
            assert [i for a, b in zip(flat[::2], flat[1::2], strict=True) for i in range(a, b)] == sorted(
                self.model[lease]
            )


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestQueue = QueueMachine.TestCase
