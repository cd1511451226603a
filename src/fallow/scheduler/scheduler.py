"""The scheduler: events in, effects out. Owns who has which tasks; knows nothing of sockets, files, clocks or bytes.

Every `on_…` method takes the time (`now`: monotonic seconds) and returns what is to be done, in order. It never
raises for what nodes and clients send: what is stale, doubled or unknown has no effect. A success counts from any
lease, however late, while its task is unsettled; failures and returns count only from the lease that holds the task.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from fallow.model.changes import DeleteJob, EndLease
from fallow.model.errors import JobNotFound
from fallow.model.events import JobCreated, JobDeleted, NodeJoined
from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.job import JobInfo, JobProgress, JobSpec, ResultsOf
from fallow.model.lease import HeldLease, Lease, RunningTask
from fallow.model.node import NodeInfo
from fallow.model.node_view import NodeView
from fallow.model.page import ResultPage
from fallow.model.ranges import Range, RangeSet
from fallow.scheduler import ending, leaving, presenting, settling, tail
from fallow.scheduler.books import Books
from fallow.scheduler.effects import Effects, Persist, Tell
from fallow.scheduler.explain import explain
from fallow.scheduler.granting import distribute
from fallow.scheduler.invariants import check_books
from fallow.scheduler.job_state import Ended, JobState, Open, Sealed
from fallow.scheduler.lease_state import LeaseState
from fallow.scheduler.node_state import UNKNOWN, Away, Joining, NodeState, Ready
from fallow.scheduler.settings import SchedulerSettings
from fallow.scheduler.touched import TouchedCheck


class JobRecord(Protocol):
    """What the journal has of an unfinished job (`state.RecoveredJob`)."""

    @property
    def spec(self) -> JobSpec: ...
    @property
    def accepted(self) -> int: ...
    @property
    def size(self) -> int | None: ...
    @property
    def input_ended(self) -> bool: ...
    @property
    def settled(self) -> tuple[int, ...]: ...
    @property
    def failed(self) -> tuple[int, ...]: ...
    @property
    def first_failures(self) -> tuple[Failure, ...]: ...


class Scheduler:
    """Decides which node runs which tasks."""

    __slots__ = ("_books", "settings")

    def __init__(
        self, settings: SchedulerSettings = SchedulerSettings(), *, epoch: int = 1, unix_offset_s: float = 0.0
    ) -> None:
        """epoch: start count of the hub, part of every lease's id. unix_offset_s: Unix time minus `now`."""
        self.settings = settings
        self._books = Books(settings, epoch, unix_offset_s)

    def _begin(self, now: float) -> Books:
        books = self._books
        books.now = max(books.now, now)  # a clock that went back is taken to stand still
        return books

    def _finish(self, *nodes: NodeState) -> Effects:
        books = self._books
        if books.vacated:
            nodes = (*nodes, *books.vacated.values())
            books.vacated = {}
        if books.cancels:
            books.tell_cancels()
        if books.avoiding:
            books.admit_avoided()
        distribute(books, *nodes)
        effects, books.effects = books.effects, []
        return effects

    def _open_job(self, job: JobId) -> JobState | None:
        found = self._books.jobs.get(job)
        return None if found is None or type(found.life) is Ended else found

    # --- jobs -----------------------------------------------------------------------------------

    def on_job_created(self, spec: JobSpec, now: float) -> Effects:
        """A job was accepted; the shell has recorded it. A known id has no effect."""
        books = self._begin(now)
        if spec.id not in books.jobs:
            job = books.add_job(spec)
            books.effects.append(Tell(JobCreated(spec.id, spec.name, spec.function_name)))
            self._link(job)
        return self._finish()

    def on_inputs_added(self, job: JobId, stop: int, now: float) -> Effects:
        """The job's inputs up to `stop` are there; the shell has recorded them."""
        books = self._begin(now)
        found = self._open_job(job)
        if found is not None and found.available is None:
            if isinstance(found.life, Sealed):
                stop = min(stop, found.life.size)
            ending.open_inputs(books, found, stop)
        return self._finish()

    def on_job_sealed(self, job: JobId, size: int, now: float, *, input_ended: bool = False) -> Effects:
        """The job has `size` tasks, no fewer than it has inputs. A second seal has no effect.

        A job that goes on from another's results is sealed with it; of its own it can't be.
        """
        books = self._begin(now)
        found = self._open_job(job)
        if found is not None and found.available is None:
            ending.seal(books, found, size, input_ended=input_ended)
        return self._finish()

    def on_tasks_cancelled(self, job: JobId, ranges: Iterable[Range], now: float) -> Effects:
        """Somebody cancelled these tasks: the unsettled ones of them settle as cancelled, running ones are stopped."""
        books = self._begin(now)
        found = self._open_job(job)
        if found is not None:
            whole = found.available if found.available is not None else RangeSet([(0, found.accepted)])
            unsettled = [
                part
                for start, stop in ranges
                for begin, end in whole.within(max(0, start), stop)
                for part in found.settled.missing(begin, end)
            ]
            failures = [
                Failure(index=index, kind="cancelled", type_name="CancelledError", attempts=0)
                for start, stop in RangeSet(unsettled).ranges()
                for index in range(start, stop)
            ]
            if failures:
                settling.fail_tasks(books, found, None, failures)
        return self._finish()

    def on_job_cancelled(self, job: JobId, now: float) -> Effects:
        """End the job as it is, and every job that goes on from it."""
        books = self._begin(now)
        found = self._open_job(job)
        if found is not None:
            ending.end(books, found, "cancelled")
        return self._finish()

    def on_job_deleted(self, job: JobId, now: float) -> Effects:
        """Cancel the job if it has not ended, and have everything of it removed."""
        books = self._begin(now)
        found = books.jobs.get(job)
        if found is not None:
            if not found.has_ended:
                ending.end(books, found, "cancelled")
            for child in list(found.children):
                ending.end(books, child, "cancelled")
            if job in books.jobs:
                books.forget_job(found)
        books.effects += [Persist(DeleteJob(job)), Tell(JobDeleted(job))]
        return self._finish()

    # --- nodes ----------------------------------------------------------------------------------

    def on_node_joined(self, node: NodeId, info: NodeInfo, now: float) -> Effects:
        """A node said hello, for the first time or again. It is granted nothing until it has presented its leases."""
        books = self._begin(now)
        found = books.nodes.get(node)
        if found is None:
            found = books.nodes[node] = NodeState(node, info, self._joining(), now)
            books.effects.append(Tell(NodeJoined(node, info.name)))
        else:
            if found.info is UNKNOWN:
                books.effects.append(Tell(NodeJoined(node, info.name)))
            found.info, found.presence = info, self._joining()
            books.rematch(found)
        found.accepting, found.reason = True, ""
        self._seen(found)
        return self._finish()

    def on_leases_presented(
        self, node: NodeId, held: Sequence[HeldLease], now: float, *, is_first: bool = False
    ) -> Effects:
        """After its hello, and behind its finished results, a node says which leases it holds. is_first: since it started."""
        books = self._begin(now)
        found = books.nodes.get(node)
        if found is None or isinstance(found.presence, Away):
            return self._finish()
        presenting.present(books, found, held, is_first=is_first)
        found.presence = Ready()
        books.rematch(found)
        self._seen(found)
        return self._finish(found)

    def on_node_changed(self, node: NodeId, info: NodeInfo, accepting: bool, reason: str, now: float) -> Effects:
        """A node has another score or capacity, or stops or resumes taking leases."""
        books = self._begin(now)
        found = books.nodes.get(node)
        if found is None:
            return self._finish()
        found.info, found.accepting, found.reason = info, accepting, reason
        books.rematch(found)
        self._seen(found)
        return self._finish(found)

    def on_heartbeat(
        self, node: NodeId, running: Sequence[RunningTask], leases: Sequence[LeaseId], now: float
    ) -> Effects:
        """A node says what it runs and which leases it holds; leases that it never received are reclaimed."""
        books = self._begin(now)
        found = books.nodes.get(node)
        if found is None:
            return self._finish()
        leaving.heard(books, found, running, leases)
        self._seen(found)
        is_full = sum(lease.reserved for lease in found.leases.values()) >= found.info.slots
        if is_full and not any(work_class.careful for work_class in found.capacity):
            return self._finish()  # nothing to decide: spares nine of ten looks of a large busy fleet
        return self._finish(found)

    def on_link_closed(self, node: NodeId, now: float) -> Effects:
        """The node's connection is gone. Its leases wait a moment for it to come back."""
        books = self._begin(now)
        found = books.nodes.get(node)
        if found is not None and not isinstance(found.presence, Away):
            found.presence = Away(books.now + self.settings.grace_s)
            books.rematch(found)
            books.set_timer(found)
        return self._finish()

    def _joining(self) -> Joining:
        settings = self.settings
        return Joining(self._books.now + settings.heartbeat_s * settings.missed_beats)

    def _seen(self, node: NodeState) -> None:
        node.seen_mono = self._books.now
        self._books.set_timer(node)

    # --- work -----------------------------------------------------------------------------------

    def on_results(self, node: NodeId, lease: LeaseId, job: JobId, pages: Sequence[ResultPage], now: float) -> Effects:
        """A node delivered pages of a lease, perhaps late, perhaps again."""
        books = self._begin(now)
        sender = books.nodes.get(node)
        found = self._open_job(job)
        if sender is not None:
            sender.seen_mono = books.now
            if type(sender.presence) is Joining:  # it delivers what it finished: that may take a while
                sender.presence = self._joining()
            sender.finished_tasks += sum(page.stop - page.start for page in pages)
        if found is not None:
            settling.take_results(books, found, self._held(sender, lease, found), node, pages)
        return self._finish() if sender is None else self._finish(sender)

    def on_task_broke(self, node: NodeId, lease: LeaseId, job: JobId, failure: Failure, now: float) -> Effects:
        """A task came to no result: its slot died (kind "crashed") or it ran over its time ("timeout")."""
        books = self._begin(now)
        sender = books.nodes.get(node)
        found = self._open_job(job)
        held = self._held(sender, lease, found)
        if sender is None or held is None or failure.index not in held.unfinished:
            return self._finish()
        sender.seen_mono = books.now
        leaving.task_broke(books, held, failure)
        return self._finish(sender)

    def on_returned(self, node: NodeId, lease: LeaseId, job: JobId, unstarted: Iterable[Range], now: float) -> Effects:
        """A node gives unstarted tasks back: recalled, cancelled, or because it is leaving."""
        books = self._begin(now)
        sender = books.nodes.get(node)
        held = self._held(sender, lease, self._open_job(job))
        if sender is None or held is None:
            return self._finish()
        sender.seen_mono = books.now
        leaving.take_back(books, held, unstarted)
        return self._finish(sender)

    def _held(self, node: NodeState | None, lease: LeaseId, job: JobState | None) -> LeaseState | None:
        """Return the lease if this node holds it for this job: its id is its own fencing number."""
        held = None if node is None else node.leases.get(lease)
        return held if held is not None and held.job is job else None

    # --- time -----------------------------------------------------------------------------------

    def on_time(self, now: float) -> Effects:
        """The time is now at least what `next_deadline` said: give up silent nodes, let idle ones look for work."""
        books = self._begin(now)
        for node in books.due_nodes():
            leaving.lose_node(books, node)
        if books.tick_mono is not None and books.tick_mono <= books.now:
            tail.tick(books)
        return self._finish()

    def next_deadline(self) -> float | None:
        """Return when `on_time` should be called next, None if nothing is waited for."""
        books = self._books
        first = books.timers[0][0] if books.timers else None
        if first is None or books.tick_mono is None:
            return first if books.tick_mono is None else books.tick_mono
        return min(first, books.tick_mono)

    # --- restart --------------------------------------------------------------------------------

    def restore(self, record: JobRecord, now: float) -> Effects:
        """Take an unfinished job from the journal; in order of creation, before any lease."""
        books = self._begin(now)
        if record.spec.id in books.jobs:
            return self._finish()
        job = books.add_job(record.spec)
        job.settled = RangeSet.from_flat(record.settled)
        job.failed_set = RangeSet.from_flat(record.failed)
        job.first_failures = list(record.first_failures[: books.settings.kept_failures])
        job.was_leased = bool(job.settled)
        if record.size is not None:
            job.life = Sealed(record.size, record.input_ended)
        if job.available is None:
            accepted = record.size if job.counts_up and record.size is not None else record.accepted
            job.accepted = accepted
            for start, stop in job.settled.missing(0, accepted):
                job.fresh.add(start, stop)
            books.note_arrival(job, accepted)
            books.pending_changed(job)
        else:
            for part in job.settled.ranges():
                job.available.add(*part)
        self._link(job)
        if job.id in books.jobs and job.is_complete:
            ending.end(books, job, "done")
        return self._finish()

    def restore_lease(self, lease: Lease, node: NodeId, now: float) -> Effects:
        """Hold a recorded lease for its node until it comes back, for a few seconds."""
        books = self._begin(now)
        job = self._open_job(lease.job)
        taken = RangeSet(job.take_pending(lease.start, lease.stop)) if job is not None else RangeSet()
        if job is None or not taken or lease.id in books.leases:
            books.effects.append(Persist(EndLease(lease.id)))
            return self._finish()
        holder = books.nodes.get(node)
        if holder is None:
            holder = books.nodes[node] = NodeState(node, UNKNOWN, Away(books.now + self.settings.hold_s), now)
        presenting.adopt(books, LeaseState(lease.id, job, holder, now), taken)
        return self._finish()

    def on_parent_recovered(
        self,
        spec: JobSpec,
        now: float,
        *,
        size: int | None,
        settled: Iterable[Range],
        failed: Iterable[Range] = (),
        first_failures: Sequence[Failure] = (),
        state: str = "done",
        input_ended: bool = False,
    ) -> Effects:
        """Take an ended job back into memory, as the parent of a job that is here already or is created next.

        It leaves again with the last job that goes on from it.
        """
        books = self._begin(now)
        if spec.id not in books.jobs:
            parent = books.add_job(spec)
            parent.work_class.remove_job(parent)
            parent.settled = RangeSet(settled)
            parent.accepted = size or 0
            parent.first_failures = list(first_failures[: books.settings.kept_failures])
            parent.failed_set = RangeSet(failed)
            parent.life = Ended(size, input_ended, "done" if state == "done" else "cancelled")
            for job in [each for each in books.jobs.values() if each.parent is None and not each.has_ended]:
                if isinstance(job.spec.inputs, ResultsOf) and job.spec.inputs.parent == spec.id:
                    self._link(job)
        return self._finish()

    def _link(self, job: JobState) -> None:
        """Tie a job that goes on from another's results to that other, and give it what is there already."""
        books, inputs = self._books, job.spec.inputs
        parent = books.jobs.get(inputs.parent) if isinstance(inputs, ResultsOf) else None
        if parent is None:
            return
        job.parent = parent
        parent.children.append(job)
        if isinstance(parent.life, Ended) and parent.life.state == "cancelled":
            ending.end(books, job, "cancelled")
            return
        records = {each.index: each for each in parent.first_failures}
        failures = [
            records.get(index) or Failure(index=index, kind="input", message=f"task {index} of the parent job failed")
            for start, stop in parent.failed_set.ranges()
            for index in range(start, stop)
        ]
        settling.feed(books, job, list(parent.settled.ranges()), failures)
        if not isinstance(parent.life, Open) and not job.has_ended:
            ending.seal(books, job, parent.life.size or 0, input_ended=parent.life.input_ended)

    # --- views ----------------------------------------------------------------------------------

    def _known(self, job: JobId) -> JobState:
        found = self._books.jobs.get(job)
        if found is None:
            raise JobNotFound(f"there is no unfinished job {job!r}")
        return found

    def has_job(self, job: JobId) -> bool:
        """Whether the job is known and has not ended."""
        return self._open_job(job) is not None

    def has_node(self, node: NodeId) -> bool:
        """Whether the node is known; one that was given up has to say hello again."""
        return node in self._books.nodes

    def jobs(self) -> list[JobId]:
        """Return the unfinished jobs in order of creation."""
        return [job.id for job in self._books.jobs.values() if not job.has_ended]

    def spec(self, job: JobId) -> JobSpec:
        return self._known(job).spec

    def accepted(self, job: JobId) -> int:
        """Return how many inputs the job has."""
        found = self._known(job)
        return found.accepted if found.available is None else len(found.available)

    def settled(self, job: JobId) -> RangeSet:
        """Return the settled tasks; to be read only."""
        return self._known(job).settled

    def progress(self, job: JobId) -> JobProgress:
        return self._known(job).progress()

    def info(self, job: JobId) -> JobInfo:
        return self._known(job).info()

    def holds(self, node: NodeId, lease: LeaseId, job: JobId, index: int) -> bool:
        """Whether the task is out to this node in this lease, and that is not a second attempt beside another."""
        held = self._held(self._books.nodes.get(node), lease, self._open_job(job))
        return held is not None and held.original is None and index in held.unfinished

    def running(self, job: JobId, now: float) -> Iterator[tuple[NodeId, NodeInfo, RunningTask]]:
        """Yield the job's tasks that run, as last heard, and where. To be read at once."""
        found = self._open_job(job)
        for lease in found.leases.values() if found is not None else ():
            for index, since in lease.running.items():
                if index in lease.unfinished:
                    yield lease.node.id, lease.node.info, RunningTask(lease.id, index, max(0.0, now - since))

    def nodes(self) -> list[NodeView]:
        """Return the nodes that have joined, in that order."""
        books = self._books
        return [node.view(books.now) for node in books.nodes.values() if node.info is not UNKNOWN]

    def explain(self, job: JobId) -> list[str]:
        """Return in plain words why the job is not done."""
        return explain(self._books, self._known(job))

    def check_invariants(self) -> None:
        """Raise AssertionError if the scheduler contradicts itself."""
        check_books(self._books)

    def touched_check(self) -> TouchedCheck:
        """Return a check of what each event from now on touches; whoever calls `on_…` then tells it of every event."""
        return TouchedCheck(self._books)
