"""Results come in: which of them count, what is tried again, and what follows from it.

The first result of a task that is accepted wins, whichever lease it comes from and however late. A failure counts
only from the lease that holds the task. A partial of `reduce` counts whole or not at all.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

from msgspec.structs import replace

from fallow.model.changes import AddResults
from fallow.model.events import TasksSettled
from fallow.model.failure import Failure
from fallow.model.ids import NodeId
from fallow.model.page import ResultPage, StoredPage
from fallow.model.ranges import Range, RangeSet
from fallow.scheduler.books import Books
from fallow.scheduler.effects import Persist, Tell, TellProgress, TellResults
from fallow.scheduler.ending import close, input_failure, record_end, save_settled
from fallow.scheduler.job_state import JobState
from fallow.scheduler.lease_state import LeaseState

NOBODY = NodeId("")
"""In place of a node: the hub itself settled the tasks."""


def take_results(
    books: Books, job: JobState, lease: LeaseState | None, node: NodeId, pages: Sequence[ResultPage]
) -> None:
    """Settle what the pages bring. lease: the one they come from, if the node still holds it."""
    stored: list[StoredPage] = []
    failures: list[Failure] = []
    for page in pages:
        if job.covers(page.start, page.stop):
            kept = _settle_page(books, job, lease, page, failures)
            if kept is not None:
                stored.append(kept)
    if lease is not None:
        lease.moved_mono = books.now
        lease.is_probe = False
        books.shrink(lease)
    if stored:
        publish(books, job, stored, failures, node)


def _settle_page(
    books: Books, job: JobState, lease: LeaseState | None, page: ResultPage, failures: list[Failure]
) -> StoredPage | None:
    """Settle what counts of one page and return it; failures that settle their tasks are added to `failures`."""
    start, stop = page.start, page.stop
    if lease is not None:
        books.note_elapsed(job, lease.node, stop - start, page.elapsed_s)
        if not page.failures and not lease.copies and lease.original is None:
            removed = lease.unfinished.discard(start, stop)
            if len(removed) == 1 and removed[0] == (start, stop):  # nearly always: all of it is this lease's
                job.settled.add(start, stop)
                job.forget_troubles(start, stop)
                return StoredPage(page, removed[0])
            for part in removed:
                lease.unfinished.add(*part)
    return _settle_mixed(books, job, lease, page, failures)


def _settle_mixed(
    books: Books, job: JobState, lease: LeaseState | None, page: ResultPage, failures: list[Failure]
) -> StoredPage | None:
    """As `_settle_page`, for pages of which a part may be settled, another's, or failed."""
    start, stop = page.start, page.stop
    final, again, stale = _sort_failures(job, lease, page)
    fresh = job.settled.missing(start, stop)
    for failure in again:
        job.trouble(failure.index).raised += 1
    if page.partial and (again or stale or fresh != [(start, stop)]):
        if lease is not None:
            give_back(books, lease, [(start, stop)])
        return None
    if lease is not None:
        give_back(books, lease, [(failure.index, failure.index + 1) for failure in again])
    counts = RangeSet(fresh)
    for index in chain((failure.index for failure in again), stale):
        counts.discard(index, index + 1)
    if not counts:
        return None
    if len(final) != len(page.failures) or job.troubles:
        final = [_with_attempts(job, failure) for failure in final]
        page = replace(page, failures=tuple(final))
    settle(books, job, lease, list(counts.ranges()))
    job.note_failures(final, books.settings.kept_failures)
    failures += final
    return StoredPage(page, tuple(counts.flat()))


def _sort_failures(
    job: JobState, lease: LeaseState | None, page: ResultPage
) -> tuple[list[Failure], list[Failure], list[int]]:
    """Part a page's failures in those that settle their task, those to be tried again, and indices of stale ones."""
    final, again, stale = [], [], []
    for index, failure in {each.index: each for each in page.failures if page.start <= each.index < page.stop}.items():
        if index in job.settled:
            continue
        if lease is None or index not in lease.unfinished:
            stale.append(index)
        elif failure.kind == "raised" and _raised(job, index) < job.spec.retries:
            again.append(failure)
        else:
            final.append(failure)
    return final, again, stale


def _raised(job: JobState, index: int) -> int:
    trouble = job.troubles.get(index)
    return 0 if trouble is None else trouble.raised


def _with_attempts(job: JobState, failure: Failure) -> Failure:
    trouble = job.troubles.get(failure.index)
    return failure if trouble is None else replace(failure, attempts=trouble.attempts + 1)


def settle(books: Books, job: JobState, winner: LeaseState | None, ranges: Sequence[Range]) -> None:
    """Mark unsettled tasks as settled and take them from everyone else who has them.

    ranges: ascending. winner: the lease that brought the result; the caller looks at what is left of it.
    """
    left = 0
    for start, stop in ranges:
        job.settled.add(start, stop)
        job.forget_troubles(start, stop)
        left += stop - start
    if winner is not None:
        removed = [part for start, stop in ranges for part in winner.unfinished.discard(start, stop)]
        rivals = winner.copies
        if winner.original is None:
            left -= sum(b - a for a, b in removed)
        else:
            rivals = [winner.original, *(each for each in winner.original.copies if each is not winner)]
        for rival in rivals[:]:
            left -= _take_from(books, rival, ranges)
    if left:
        pending = [part for start, stop in ranges for part in job.take_pending(start, stop)]
        if pending:
            left -= sum(b - a for a, b in pending)
            job.work_class.requeue(job)
    if left:
        wanted = RangeSet(ranges)
        for lease in job.holders(wanted.end):
            if lease is winner or lease.original is not None:
                continue
            parts = wanted.within(lease.unfinished.first, lease.unfinished.end) if lease.unfinished else []
            found = _take_from(books, lease, parts)
            if found:
                for copy in lease.copies[:]:
                    _take_from(books, copy, parts)
                left -= found
                if not left:
                    break


def _take_from(books: Books, lease: LeaseState, ranges: Iterable[Range]) -> int:
    """Take settled tasks from a lease, tell its node to stop them, and return how many were counted as out by it."""
    removed = [part for start, stop in ranges for part in lease.unfinished.discard(start, stop)]
    if not removed:
        return 0
    books.cancel_at(lease, removed)
    books.shrink(lease)
    books.vacated[lease.node.id] = lease.node
    return sum(b - a for a, b in removed) if lease.original is None else 0


def give_back(books: Books, lease: LeaseState, ranges: Iterable[Range]) -> int:
    """Put tasks of a lease back at the front of the queue; returns how many it had of them.

    Those that have a second attempt elsewhere stay there: the copy becomes their primary lease. The caller looks at
    what is left of the lease.
    """
    loose = [part for start, stop in ranges for part in lease.unfinished.discard(start, stop)]
    count = sum(stop - start for start, stop in loose)
    if not count or lease.original is not None:
        return count
    back = RangeSet(loose)
    for copy in list(lease.copies):
        held = [part for start, stop in loose for part in copy.unfinished.within(start, stop)]
        if sum(stop - start for start, stop in held) == len(copy.unfinished):
            copy.original = None
            lease.copies.remove(copy)
            for part in held:
                back.discard(*part)
        else:
            for part in held:
                copy.unfinished.discard(*part)
            books.shrink(copy)
    if back:
        books.make_pending(lease.job, back.ranges())
    return count


def fail_tasks(books: Books, job: JobState, lease: LeaseState | None, failures: Sequence[Failure]) -> None:
    """Settle unsettled tasks with failures that the hub makes up: in pages without data, ascending by index.

    They are settled and published some thousands at a time, which fits into a message however many pages it takes.
    """
    ordered = sorted(failures, key=lambda each: each.index)
    size = books.settings.failures_per_page
    for at in range(0, len(ordered), size):
        some = ordered[at : at + size]
        breaks = [at for at in range(1, len(some)) if some[at].index != some[at - 1].index + 1]
        stored = []
        for low, high in pairwise([0, *breaks, len(some)]):
            chunk = [_with_attempts(job, each) if each.kind != "input" else each for each in some[low:high]]
            start, stop = chunk[0].index, chunk[-1].index + 1
            job.note_failures(chunk, books.settings.kept_failures)
            stored.append(StoredPage(ResultPage(start, stop, kept=(), failures=tuple(chunk)), (start, stop)))
        settle(books, job, lease, [(each.page.start, each.page.stop) for each in stored])
        publish(books, job, stored, some, NOBODY)


def publish(books: Books, job: JobState, stored: list[StoredPage], failures: list[Failure], node: NodeId) -> None:
    """Record settled pages, tell of them, feed the jobs that go on from them, and end the job if that was all."""
    effects, pages = books.effects, tuple(stored)
    is_complete = job.is_complete
    effects.append(Persist(AddResults(job.id, pages)))
    job.rows += 1
    if is_complete:  # the end is persisted beside the results, before anything is told
        record_end(books, job, "done")
    elif job.rows >= books.settings.snapshot_rows:
        save_settled(books, job)
    effects.append(TellResults(job.id, pages))
    for each in pages:
        effects.append(Tell(TasksSettled(job.id, node, each.page.start, each.page.stop, len(each.page.failures))))
    if job.children:
        ranges = [(each.counts[at], each.counts[at + 1]) for each in pages for at in range(0, len(each.counts), 2)]
        for child in list(job.children):
            feed(books, child, ranges, failures)
    if is_complete:
        close(books, job, "done")
    else:
        effects.append(TellProgress(job.id, ended=False))


def feed(books: Books, child: JobState, ranges: Sequence[Range], failures: Sequence[Failure]) -> None:
    """Make tasks of `child` pending whose parent's tasks are settled; those whose input failed fail too."""
    assert child.available is not None, "only a job that goes on from another is fed"
    failed = {each.index: each for each in failures}
    new = RangeSet(
        part
        for start, stop in ranges
        for begin, end_ in child.available.add(start, stop)
        for part in child.settled.missing(begin, end_)
    )
    broken = [failed[index] for index in failed if index in new]
    for failure in broken:
        new.discard(failure.index, failure.index + 1)
    for start, stop in new.ranges():
        child.fresh.add(start, stop)
    books.pending_changed(child)
    if broken:
        fail_tasks(books, child, None, [input_failure(each) for each in broken])
