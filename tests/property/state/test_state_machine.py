"""Groups of random changes against every local `State`, compared with a model made of plain lists and sets."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fallow.model.changes import (
    AddInputs,
    AddJob,
    AddLease,
    AddLogs,
    AddResults,
    AddToken,
    DeleteJob,
    DropCheckpoint,
    DropSession,
    EndJob,
    EndLease,
    HoldBlob,
    LogEntry,
    RevokeToken,
    SaveCheckpoint,
    SaveSettled,
    SealJob,
)
from fallow.model.failure import Failure
from fallow.model.job import JobSpec, Pages
from fallow.model.lease import Lease
from fallow.model.page import InputPage, ResultPage, StoredPage
from fallow.model.ranges import RangeSet
from fallow.model.token import Token
from fallow.state.memory import MemoryState
from fallow.state.sql import SqlState

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where hundreds of databases are opened: nothing here depends on their syncs."""
SIZE = 60  # of the space of indices: small, so that ranges meet


def job_id(number):
    return f"{number:032x}"


def digest(number):
    return f"{number:064x}"


class Job:
    """A job as the model holds it: nothing is packed, merged or numbered."""

    def __init__(self, spec):
        self.spec = spec
        self.size = None
        self.input_ended = False
        self.state = None
        self.ended_at = None
        self.inputs = []
        self.results = []
        self.settled = set()
        self.failures = []
        self.logs = []
        self.checkpoints = {}
        self.blobs = {spec.function, *spec.refs}

    @property
    def accepted(self):
        return self.inputs[-1].stop if self.inputs else 0

    def progress(self):
        failed = sorted(failure.index for failure in self.failures)
        flat = [tuple(RangeSet((index, index + 1) for index in each).flat()) for each in (sorted(self.settled), failed)]
        return *flat, tuple(self.failures)

    def seen(self):
        return self.spec, self.accepted, self.size, self.input_ended, *self.progress()


def seen(job):
    return (
        job.spec, job.accepted, job.size, job.input_ended, job.settled, job.failed, job.first_failures
    )  # fmt: skip


numbers = st.integers(0, 2)
bounds = st.tuples(st.integers(0, SIZE), st.integers(1, 25))
blobs = st.none() | st.integers(0, 5).map(digest)
pages = st.lists(st.tuples(bounds, blobs, st.sampled_from([1, 10_000]), st.integers(0, 3)), min_size=1, max_size=3)
operations = st.one_of(
    st.tuples(st.just("job"), numbers, st.booleans(), st.sampled_from(["", "s1", "s2"])),
    st.tuples(st.just("inputs"), numbers, st.integers(1, 9), blobs, st.sampled_from([1, 10_000])),
    st.tuples(st.just("again"), numbers),
    st.tuples(st.just("results"), numbers, pages),
    st.tuples(st.just("results"), numbers, pages),
    st.tuples(st.just("snapshot"), numbers),
    st.tuples(st.just("seal"), numbers, st.integers(0, SIZE), st.booleans()),
    st.tuples(st.just("end"), numbers, st.sampled_from(["done", "cancelled"]), st.integers(0, 5)),
    st.tuples(st.just("delete"), numbers),
    st.tuples(st.just("lease"), numbers, st.integers(0, 4), bounds, st.sampled_from(["n", "m"])),
    st.tuples(st.just("end lease"), st.integers(0, 4)),
    st.tuples(st.just("checkpoint"), numbers, st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("checkpoint"), numbers, st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("drop checkpoint"), numbers, st.integers(0, 3)),
    st.tuples(st.just("logs"), numbers, st.lists(st.text(max_size=5), max_size=3)),
    st.tuples(st.just("token"), st.sampled_from("ab"), st.sampled_from(["user", "node"])),
    st.tuples(st.just("revoke"), st.sampled_from("ab")),
    st.tuples(st.just("hold"), st.integers(0, 5), st.sampled_from(["s1", "s2"])),
    st.tuples(st.just("drop"), st.sampled_from(["s1", "s2"])),
)


class StateAgainstModel(RuleBasedStateMachine):
    def build(self):
        raise NotImplementedError

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.state = self.build()
        self.epoch = self.state.recover().epoch
        self.jobs = {}  # by id, in order of creation
        self.leases = {}
        self.tokens = {}
        self.sessions = {}
        self.clock = 0

    def teardown(self):
        self.state.close()
        shutil.rmtree(self.folder)

    @rule(group=st.lists(operations, max_size=12))
    def commit(self, group):
        changes = []
        for name, *arguments in group:
            changes += getattr(self, "do_" + name.replace(" ", "_"))(*arguments)
        self.state.commit(changes)

    @rule()
    def reopen(self):
        if self.state.is_durable:
            self.state.close()
            self.state = self.build()
        recovered = self.state.recover()
        self.epoch += 1
        assert recovered.epoch == self.epoch
        assert [seen(job) for job in recovered.jobs] == [job.seen() for job in self.jobs.values() if job.state is None]
        leases = [(lease, node) for lease, node in self.leases.values() if self.jobs[lease.job].state is None]
        assert sorted(recovered.leases, key=lambda pair: pair[0].id) == sorted(leases, key=lambda pair: pair[0].id)
        assert recovered.checkpoints == tuple(
            (identity, *each)
            for identity, job in self.jobs.items()
            if job.state is None
            for each in sorted(job.checkpoints.items())
        )
        assert {token.id: token for token in recovered.tokens} == self.tokens
        of_jobs = {job.spec.session for job in self.jobs.values() if job.spec.session and job.spec.name is None}
        assert set(recovered.sessions) == of_jobs | self.sessions.keys()

    @rule(number=numbers, wanted=st.lists(bounds, max_size=3), limit_bytes=st.sampled_from([1, 300, 10**9]))
    def read_results(self, number, wanted, limit_bytes):
        wanted = list(RangeSet((start, start + length) for start, length in wanted).ranges())
        read, after = [], 0
        while after is not None:
            some, after = self.state.result_pages(job_id(number), wanted, after=after, limit_bytes=limit_bytes)
            assert some or after is None
            assert after is None or some[-1].page.start < after
            read += some
        indices = {index for start, stop in wanted for index in range(start, stop)}
        held = self.jobs[job_id(number)].results if job_id(number) in self.jobs else []
        expected = [stored for stored in held if counted(stored) & indices]
        assert [stored.page.start for stored in read] == sorted(stored.page.start for stored in expected)
        assert sorted(read, key=place) == sorted(expected, key=place)

    @rule(number=numbers, bounds=bounds)
    def read_inputs(self, number, bounds):
        start, stop = bounds[0], bounds[0] + bounds[1]
        held = self.jobs[job_id(number)].inputs if job_id(number) in self.jobs else []
        expected = [page for page in held if page.start < stop and page.stop > start]
        assert self.state.input_pages(job_id(number), start, stop) == expected

    @precondition(lambda self: self.jobs)
    @invariant()
    def the_rest_is_as_the_model_says(self):
        ended = [job for job in reversed(self.jobs.values()) if job.state is not None]
        ended.sort(key=lambda job: job.ended_at, reverse=True)
        found = self.state.ended_jobs(limit=10)
        assert [(*seen(job), job.state, job.ended_at) for job in found] == [
            (*job.seen(), job.state, job.ended_at) for job in ended
        ]
        for identity, job in self.jobs.items():
            assert (self.state.find_job(identity) is not None) == (job.state is not None)
            assert self.state.logs(identity) == (job.logs, None)
            assert self.state.blobs_held_by(identity) == sorted(job.blobs | set(job.checkpoints.values()))
        used = set().union(
            *(job.blobs | set(job.checkpoints.values()) for job in self.jobs.values()), *self.sessions.values()
        )
        every = [digest(number) for number in range(6)]
        assert self.state.unreferenced_blobs(every) == [each for each in every if each not in used]

    # Each returns changes, having done the same to the model.

    def do_job(self, number, is_named, session):
        name = "name" if is_named else None
        spec = JobSpec(
            id=job_id(number), stages=("map",), function=digest(number), function_name="f", inputs=Pages(),
            name=name, session=session or None, created_at=float(self.clock),
        )  # fmt: skip
        self.clock += 1
        self.jobs.setdefault(spec.id, Job(spec))
        return [AddJob(spec)]

    def do_inputs(self, number, length, blob, size):
        job = self.jobs.get(job_id(number))
        start = job.accepted if job else 0
        data = None if blob else bytes([start % 256]) * size
        page = InputPage(job_id(number), start, start + length, data, blob, (digest(start % 6),))
        if job is not None:
            job.inputs.append(page)
            job.blobs |= {blob, digest(start % 6)} - {None}
        return [AddInputs(page)]

    def do_again(self, number):
        job = self.jobs.get(job_id(number))
        return [AddInputs(page) for page in job.inputs] if job else []

    def do_results(self, number, drawn):
        job = self.jobs.get(job_id(number))
        stored = []
        settled = set(job.settled) if job else set()
        for (start, length), blob, size, failing in drawn:
            fresh = set(range(start, start + length)) - settled
            if not fresh:  # the scheduler keeps no page that counts for nothing
                continue
            settled |= fresh
            counts = tuple(RangeSet((index, index + 1) for index in sorted(fresh)).flat())
            failures = tuple(Failure(index=index, kind="raised") for index in range(start, start + length, 4)[:failing])
            data = None if blob else bytes([start]) * size
            stored.append(StoredPage(ResultPage(start, start + length, data, blob, failures=failures), counts))
        if not stored:
            return []
        if job is not None:
            job.settled |= settled
            job.results += stored
            job.failures += [each for page in stored for each in page.page.failures if each.index in counted(page)]
            job.blobs |= {page.page.blob for page in stored} - {None}
        return [AddResults(job_id(number), tuple(stored))]

    def do_snapshot(self, number):
        job = self.jobs.get(job_id(number))
        return [SaveSettled(job_id(number), *(job.progress() if job else ((), (), ())))]

    def do_seal(self, number, size, input_ended):
        job = self.jobs.get(job_id(number))
        if job is not None:
            job.size, job.input_ended = size, input_ended
        return [SealJob(job_id(number), size, input_ended)]

    def do_end(self, number, state, ended_at):
        job = self.jobs.get(job_id(number))
        if job is not None:
            job.state, job.ended_at = state, ended_at
            job.checkpoints = {}
            self._forget_leases(number)
        return [EndJob(job_id(number), state, ended_at)]

    def do_delete(self, number):
        if self.jobs.pop(job_id(number), None) is not None:
            self._forget_leases(number)
        return [DeleteJob(job_id(number))]

    def do_lease(self, number, lease, bounds, node):
        lease = Lease(lease, job_id(number), bounds[0], bounds[0] + bounds[1])
        if lease.job in self.jobs:
            self.leases.setdefault(lease.id, (lease, node))
        return [AddLease(lease, node)]

    def do_end_lease(self, lease):
        self.leases.pop(lease, None)
        return [EndLease(lease)]

    def do_checkpoint(self, number, index, blob):
        if job_id(number) in self.jobs:
            self.jobs[job_id(number)].checkpoints[index] = digest(blob)
        return [SaveCheckpoint(job_id(number), index, digest(blob))]

    def do_drop_checkpoint(self, number, index):
        if job_id(number) in self.jobs:
            self.jobs[job_id(number)].checkpoints.pop(index, None)
        return [DropCheckpoint(job_id(number), index)]

    def do_logs(self, number, texts):
        entries = tuple(LogEntry(index, text, "node") for index, text in enumerate(texts))
        if job_id(number) in self.jobs:
            self.jobs[job_id(number)].logs += entries
        return [AddLogs(job_id(number), entries)]

    def do_token(self, name, role):
        token = Token(id=name, role=role, name=name, hash="h", created_at=0.0)
        self.tokens.setdefault(name, token)
        return [AddToken(token)]

    def do_revoke(self, name):
        self.tokens.pop(name, None)
        return [RevokeToken(name)]

    def do_hold(self, number, session):
        self.sessions.setdefault(session, set()).add(digest(number))
        return [HoldBlob(digest(number), session)]

    def do_drop(self, session):
        self.sessions.pop(session, None)
        return [DropSession(session)]

    def _forget_leases(self, number):
        self.leases = {key: pair for key, pair in self.leases.items() if pair[0].job != job_id(number)}


def counted(stored):
    return {index for start, stop in zip(*[iter(stored.counts)] * 2, strict=True) for index in range(start, stop)}


def place(stored):
    return stored.page.start, stored.counts


class Memory(StateAgainstModel):
    def build(self):
        return MemoryState(self.folder)


class Spilling(StateAgainstModel):
    def build(self):
        return MemoryState(self.folder, limit_bytes=5_000)


class Sqlite(StateAgainstModel):
    def build(self):
        return SqlState(self.folder / "state")


def checked(machine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
    return pytest.mark.slow(machine.TestCase)


TestMemory = checked(Memory)
TestSpilling = checked(Spilling)
TestSqlite = checked(Sqlite)
