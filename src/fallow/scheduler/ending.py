"""Sealing and ending jobs, and the one link between jobs: a job that goes on from another's results."""

from fallow.model.changes import EndJob, SaveSettled, SealJob
from fallow.model.events import JobEnded
from fallow.model.failure import Failure
from fallow.scheduler.books import Books
from fallow.scheduler.effects import CancelWork, ForgetJob, Persist, Tell, TellProgress
from fallow.scheduler.job_state import Ended, JobState, Open, Sealed


def seal(books: Books, job: JobState, size: int, *, input_ended: bool) -> None:
    """Fix the number of tasks of an open job, and of those that go on from it."""
    if not isinstance(job.life, Open):
        return
    size = max(size, job.accepted)
    job.life = Sealed(size, input_ended)
    books.effects.append(Persist(SealJob(job.id, size, input_ended)))
    if job.counts_up:
        open_inputs(books, job, size)
    for child in list(job.children):
        seal(books, child, size, input_ended=input_ended)
    if job.is_complete:
        end(books, job, "done")
    else:
        books.effects.append(TellProgress(job.id, ended=False))


def open_inputs(books: Books, job: JobState, stop: int) -> None:
    """The inputs up to `stop` are there."""
    if stop > job.accepted:
        job.fresh.add(job.accepted, stop)
        books.note_arrival(job, stop)
        job.accepted = stop
        books.pending_changed(job)


def save_settled(books: Books, job: JobState) -> None:
    """Snapshot the settled set for the journal."""
    job.rows = 0
    settled, failed = tuple(job.settled.flat()), tuple(job.failed_set.flat())
    change = SaveSettled(job.id, settled, failed, tuple(job.first_failures))
    books.effects.append(Persist(change))


def record_end(books: Books, job: JobState, state: str) -> None:
    """Have the journal know that the job ended and what is settled of it."""
    save_settled(books, job)
    books.effects.append(Persist(EndJob(job.id, state, books.now + books.unix_offset_s)))


def end(books: Books, job: JobState, state: str) -> None:
    """End a job that is complete or cancelled."""
    record_end(books, job, state)
    close(books, job, state)


def close(books: Books, job: JobState, state: str) -> None:
    """Stop what is out of an ended job, tell of its end, and let it leave memory unless another job reads from it."""
    _clear(books, job, state)
    books.effects.append(Tell(JobEnded(job.id, state, len(job.settled), job.failed)))
    books.effects.append(TellProgress(job.id, ended=True))
    if state == "cancelled":
        for child in list(job.children):
            end(books, child, "cancelled")
    if not job.children and job.id in books.jobs:
        books.forget_job(job)


def _clear(books: Books, job: JobState, state: str) -> None:
    """Take a job out of the queue and off the nodes."""
    holders = dict.fromkeys(lease.node.id for lease in job.leases.values())
    for lease in list(job.leases.values()):
        lease.is_recorded = False  # ending the job ends its leases in the journal too
        books.end_lease(lease)
        lease.node.reserve()
        books.vacated[lease.node.id] = lease.node
    for node_id in holders:
        books.effects.append(CancelWork(node_id, job.id))
    for node_id in job.touched:
        books.effects.append(ForgetJob(node_id, job.id))
        books.nodes[node_id].cached.pop(job.id, None)
    job.touched.clear()
    life = job.life
    size, input_ended = (None, False) if isinstance(life, Open) else (life.size, life.input_ended)
    job.life = Ended(size, input_ended, "done" if state == "done" else "cancelled")
    job.work_class.remove_job(job)
    if job.work_class.holds:  # nodes that were held for it may be free for others now
        job.work_class.holds.clear()
        books.woken.update(dict.fromkeys(books.classes.values()))
    for held in (job.fresh, job.front, job.careful):
        held.clear()
    for node_id in list(job.drains.values()):
        books.stop_draining(books.nodes[node_id])
        books.vacated[node_id] = books.nodes[node_id]
    for each in (job.troubles, job.paces, job.backlog):
        each.clear()
    parent = job.parent
    if parent is not None:
        job.parent = None
        parent.children.remove(job)
        if parent.has_ended and not parent.children and parent.id in books.jobs:
            books.forget_job(parent)


def input_failure(failure: Failure) -> Failure:
    """Return the failure that a failed input makes of the task that needs it."""
    return Failure(
        index=failure.index,
        kind="input",
        type_name=failure.type_name,
        message=failure.message,
        traceback=failure.traceback,
        exception=failure.exception,
        node=failure.node,
        attempts=0,
    )
