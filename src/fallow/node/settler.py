"""What slots say of their batches, and what becomes of the tasks with that: settled, put back, or blamed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from fallow.model.changes import LogEntry
from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId
from fallow.model.page import ResultPage
from fallow.node.batch import Batch, DirectCall
from fallow.node.blame import blamed_task, failure_of
from fallow.node.checkpoints import Checkpoints
from fallow.node.inputs import Inputs
from fallow.node.lease_queue import LeaseQueue
from fallow.node.node_job import NodeJob
from fallow.node.node_jobs import NodeJobs
from fallow.node.slot import Slot
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_result import read_result
from fallow.node.slots import SlotPool


class SettlerOwner(Protocol):
    """Who tells the hub of it."""

    def finished(
        self,
        lease: LeaseId,
        job: JobId,
        page: ResultPage,
        path: Path | None = None,
        files: Sequence[Path] = (),
        *,
        at_once: bool,
    ) -> None:
        """A page of results. path: the file that its bytes are in, if they are many. files: what its values refer to."""
        ...

    def broke(self, lease: LeaseId, job: JobId, failure: Failure) -> None: ...

    def printed(self, job: JobId, entries: Sequence[LogEntry]) -> None: ...

    def slots_unavailable(self, reason: str | None) -> None: ...

    def progressed(self) -> None:
        """A task has said how far it is."""
        ...

    def settled(self) -> None:
        """No slot is busy any more."""
        ...


class Settler:
    """The owner of the pool's slots."""

    def __init__(
        self,
        node: str,
        pool: SlotPool,
        queue: LeaseQueue,
        jobs: NodeJobs,
        inputs: Inputs,
        checkpoints: Checkpoints,
        owner: SettlerOwner,
        *,
        dispatch: Callable[[], None],
        on_direct: Callable[[Slot, DirectCall, NodeJob | None, ResultPage, Path | None], None],
    ) -> None:
        """node: its name, for failures. dispatch: slots or tasks are free again. on_direct: the direct call that a slot was on is done."""
        self._node = node
        self._pool = pool
        self._queue = queue
        self._jobs = jobs
        self._inputs = inputs
        self._checkpoints = checkpoints
        self._owner = owner
        self._dispatch = dispatch
        self._on_direct = on_direct
        self._losing: list[Batch] = []
        """Direct calls that are lost, and whose last checkpoint is being stored."""

    # --- slots ---

    def slot_ready(self) -> None:
        self._dispatch()

    def slots_unavailable(self, reason: str | None) -> None:
        self._owner.slots_unavailable(reason)

    def kind_unusable(self, kind: SlotKind, reason: str) -> None:
        self._jobs.kind_unusable(kind, reason)

    # --- batches ---

    def slot_done(self, slot: Slot, key: int, numbers: tuple[int, int, int, int], body: memoryview) -> None:
        start, stop, head_bytes, elapsed_ns = numbers
        batch = slot.batches[0] if slot.batches else None
        if batch is None or key != batch.job_number or start != batch.next or not start < stop <= batch.stop:
            slot.end("faulty")
            return
        job = self._jobs.get(batch.job)
        try:
            page, path, files = read_result(
                (start, stop),
                body,
                head_bytes,
                elapsed_ns,
                partial=job is not None and job.spec.reduces,
                node=self._node,
                folder=slot.process.folder,
                memory_folder=slot.process.memory_folder,
                is_program=job is not None and job.spec.is_program,
            )
        except ValueError:
            slot.end("faulty")
            return
        if page.failures and slot.process.guard is not None and slot.process.guard.see() is not None:
            slot.last_words = page.failures[0].traceback
            slot.end("limit", page.failures[0].index)  # it has failed of that
            return
        if batch.direct is not None:
            self._checkpoints.ended(batch.job, start, stop)
            self._on_direct(slot, batch.direct, job, page, path)
            return
        batch.next = stop
        batch.ran_s += elapsed_ns / 1e9
        batch.result_bytes += body.nbytes
        if stop == batch.stop:
            self._batch_ended(slot, batch, job)
        self._checkpoints.ended(batch.job, start, stop)
        ended = self._queue.finish(batch.lease, start, stop)
        self._dispatch()  # before anything else: the slot is idle
        if page.failures and page.failures[0].kind == "environment":
            self._owner.broke(batch.lease, batch.job, page.failures[0])
        else:
            at_once = ended or not self._pool.is_busy
            self._owner.finished(batch.lease, batch.job, page, path, files, at_once=at_once)
        if self._inputs.is_over:
            self._inputs.trim(self._queue.held(), self._pool)
        self._tell_if_settled()

    def slot_gave(self, slot: Slot, number: int, at: int, cut: int) -> None:
        """Put back what a slot has not begun: it was asked to give it up, as its batch overstays. cut: which time of several."""
        for batch in list(slot.batches):
            is_direct_unbegun = batch.is_direct and batch.number == number and at != batch.stop
            if number < batch.number <= min(cut, slot.cut_to) or is_direct_unbegun:
                slot.batches.remove(batch)
                self._lose(batch)
                self._queue.requeue(batch.lease, batch.start, batch.stop)
            elif batch.number == number and at != batch.stop:
                if batch is not slot.batches[0] or not batch.next <= at < batch.stop:
                    slot.end("faulty")
                    return
                self._queue.requeue(batch.lease, at, batch.stop)
                batch.stop, batch.last_of_page = at, -1
                if batch.next == at:  # its results came first
                    self._batch_ended(slot, batch, self._jobs.get(batch.job))
        self._dispatch()
        self._tell_if_settled()

    def _batch_ended(self, slot: Slot, batch: Batch, job: NodeJob | None) -> None:
        slot.batch_ended()
        if job is not None:
            tasks = batch.stop - batch.start
            job.sizer.note(tasks, batch.ran_s, batch.result_bytes, is_first=batch.is_first)
            if batch.last_of_page >= 0:
                slot.drop_page(job, batch.last_of_page)

    def _tell_if_settled(self) -> None:
        if not self._pool.is_busy:
            self._owner.settled()

    # --- tasks, while they run ---

    def slot_printed(self, slot: Slot, entries: Sequence[tuple[int, bytes]]) -> None:
        if slot.batches:
            slot.printing = slot.batches[0]
        batch = slot.printing
        if batch is not None and not batch.is_direct:
            kept = [(index, batch.bounded_output(index, data)) for index, data in entries]
            logged = [LogEntry(i, data.decode("utf-8", "replace"), self._node) for i, data in kept if data]
            if logged:
                self._owner.printed(batch.job, logged)

    def slot_saved(self, slot: Slot, index: int, path: Path) -> None:
        batch = slot.batches[0] if slot.batches else None
        is_running = batch is not None and batch.next <= index < batch.stop
        if batch is not None and is_running and self._jobs.get(batch.job) is not None:
            self._checkpoints.saved(batch.lease, batch.job, index, path)
        else:
            path.unlink(missing_ok=True)  # its task has ended

    def checkpoint_taken(self) -> None:
        losing, self._losing = self._losing, []
        for batch in losing:
            self._lose(batch)
        self._dispatch()

    def _lose(self, batch: Batch) -> None:
        """Have it go on as a task of the hub's, if it is a direct call, with the last checkpoint that it has left."""
        if batch.direct is None:
            return
        if self._checkpoints.is_being_taken(batch.job, batch.start):
            self._losing.append(batch)
        else:
            self._checkpoints.move(batch.job, batch.start, batch.direct.lost())

    def slot_progressed(self) -> None:
        self._owner.progressed()

    # --- deaths ---

    def slot_died(self, slot: Slot, exit_code: int | None, signal_name: str | None) -> None:
        """Blame the task that it was on, unless the death was ours; put the others back."""
        batches = list(slot.batches)
        slot.batches.clear()
        for batch in batches:
            self._lose(batch)
        for batch in batches[1:]:
            self._queue.requeue(batch.lease, batch.start, batch.stop)
        if batches:
            head = batches[0]
            blamed = blamed_task(slot, head)
            if blamed is None:
                self._queue.requeue(head.lease, head.next, head.stop)
            else:
                self._queue.requeue(head.lease, head.next, blamed)
                self._queue.requeue(head.lease, blamed + 1, head.stop)
                self._blame(slot, head, blamed, exit_code, signal_name)
        self._dispatch()
        self._tell_if_settled()

    def _blame(self, slot: Slot, batch: Batch, index: int, exit_code: int | None, signal_name: str | None) -> None:
        queued = self._queue.get(batch.lease)
        if queued is None or index not in queued.running:
            return  # cancelled
        self._queue.finish(batch.lease, index, index + 1)
        job = self._jobs.get(batch.job)
        is_program = job is not None and job.spec.is_program
        failure = failure_of(slot, batch, index, exit_code, signal_name, is_program=is_program, node=self._node)
        self._owner.broke(batch.lease, batch.job, failure)
