"""The end of a job: idle nodes take over what others have not started, or try again what others are slow at.

Recall comes first, since it costs nothing: unstarted tasks move from the lease that would end last. When nothing
can be recalled, running tasks get a second attempt where that is expected to save time (after LATE: Zaharia et al.,
2008). What a task still needs is judged from all the tasks of its job that were as long.
"""

from heapq import heappop, heappush
from itertools import islice

from fallow.scheduler.books import Books
from fallow.scheduler.effects import RecallLease
from fallow.scheduler.job_state import JobState
from fallow.scheduler.lease_state import LeaseState
from fallow.scheduler.node_state import NodeState

JOBS_SCANNED = 8
"""Jobs of a class in their tail that an idle node looks at in one event."""

LEASES_POPPED = 8
"""Leases with the most to do that are looked at for one recall."""

LEAST_SPEED = 0.2
"""Nodes slower than this part of the one at hand do not delay a job's end by more than its longest task there."""

RESCUE_COST = 2.0
"""A rescue saves at least this many times what all nodes together lose by doing again what was done of the task."""

LONGEST_GAP_S = 2.0
"""Idle nodes that find nothing to take over look again at least this often."""


def take_over(books: Books, node: NodeState) -> bool:
    """Let a node with room take over work of jobs in their tail; True if there was some."""
    found = waits = False
    for work_class in [each for each, rank in node.ranks.items() if rank >= 0]:
        if len(work_class.ready) < 2:
            continue
        for job in list(islice(work_class.tail.values(), JOBS_SCANNED)):
            waits = True
            if _recall(books, job, node) or (node.room(work_class) and _copy(books, job, node)):
                found = True
                break
    if found:
        for work_class in node.capacity:
            books.rank(node, work_class)
    if waits and books.tick_mono is None:
        books.tick_mono = books.now + books.tick_gap_s
    return found


def tick(books: Books) -> None:
    """Let idle nodes look again, the fastest first; less often while they find nothing."""
    books.tick_mono = None
    found = False
    for work_class in books.classes.values():
        if work_class.tail:
            for node in work_class.hungry.best(books.settings.scan, 0):
                found |= take_over(books, node)
    books.tick_gap_s = books.settings.tick_s if found else min(LONGEST_GAP_S, books.tick_gap_s * 2)


def _recall(books: Books, job: JobState, node: NodeState) -> bool:
    """Ask the node whose lease of the job would end last for a part of what it has not started."""
    heap, looked_at, found = job.backlog, [], False
    for _ in range(min(LEASES_POPPED, len(heap))):
        ends, lease_id, lease = heappop(heap)
        unstarted = len(lease.unfinished) - lease.reserved
        if lease_id not in job.leases or unstarted <= 0:
            continue
        looked_at.append((ends, lease_id, lease))
        if lease.recall_until > books.now or lease.node is node or not lease.node.may_be_granted or lease.copies:
            continue
        if _wait_s(books, lease, unstarted) >= books.settings.recall_min_s:
            mine, theirs = books.speed(job, node), books.speed(job, lease.node)
            count = max(1, round(unstarted * mine / (mine + theirs)))
            lease.recall_until = books.now + books.settings.recall_timeout_s
            books.effects.append(RecallLease(lease.node.id, lease.id, count))
            found = True
            break
    for entry in looked_at:
        heappush(heap, entry)
    return found


def _wait_s(books: Books, lease: LeaseState, unstarted: int) -> float:
    """Return how long the last unstarted task of the lease would wait where it is.

    At least as long as the lease has made no progress: what is slow so far stays slow.
    """
    each = books.seconds_per_task(lease.job, lease.node) or 0.0
    slots = lease.node.capacity.get(lease.job.work_class, 1)
    return max(unstarted * each / slots, books.now - lease.moved_mono)


def _copy(books: Books, job: JobState, node: NodeState) -> bool:
    """Make a second attempt at the running task that gains most by it on this node, if one does."""
    if not job.spec.speculate or (books.now < job.next_copy_scan and node.speed_step <= job.copy_scan_step):
        return False
    if _copy_best(books, job, node, 0.0):
        return True
    job.next_copy_scan, job.copy_scan_step = books.now + books.tick_gap_s, node.speed_step
    return False


def rescue(books: Books, job: JobState, node: NodeState) -> bool:
    """Before the tail: make a second attempt at a task that would outlast all that is pending where it is now.

    A long task on a slow node is best tried again on a fast one as soon as it is known to be long, not when everything
    else is done. Looked for a few times a second at most, and only if tasks are long enough for that to matter.
    """
    settings, times, power = books.settings, job.times, job.work_class.power
    if books.now < job.next_rescue or not job.spec.speculate or job.spec.reduces or not times.measured:
        return False
    rest_s = times.left(job.pending_count) / power
    if times.largest < settings.copy_min_s or rest_s * LEAST_SPEED > times.largest * node.score:
        job.next_rescue = books.now + settings.tick_s
        return False
    if books.speed(job, node) * job.work_class.slots < power:
        return False  # slower than most: what it takes over might have to be rescued again
    if _copy_best(books, job, node, rest_s):
        return True
    job.next_rescue = books.now + settings.tick_s
    return False


def _copy_best(books: Books, job: JobState, node: NodeState, rest_s: float) -> bool:
    """Copy the running task that gains most of those that would take longer than `rest_s` where they are."""
    best: tuple[float, LeaseState, int, int] | None = None
    for lease in islice(job.leases.values(), books.settings.scan):
        if lease.original is None and lease.node is not node and lease is not lease.node.alone:
            for gain, start, stop in _gains(books, lease, node, rest_s):
                if best is None or gain > best[0]:
                    best = (gain, lease, start, stop)
    if best is not None:
        books.grant(job, node, best[2], best[3], original=best[1])
    return best is not None


def _gains(books: Books, lease: LeaseState, node: NodeState, rest_s: float) -> list[tuple[float, int, int]]:
    """Return the tasks of the lease that a copy on `node` is expected to finish sooner, and by how many seconds.

    rest_s: those that need no longer than this where they are do not matter.
    """
    job, settings, gains = lease.job, books.settings, []
    if job.spec.reduces:
        return _gain_of_partial(books, lease, node)
    here, there = books.speed(job, node), books.speed(job, lease.node)
    least_s = settings.rescue_min_s if rest_s else settings.copy_min_s
    for index, since in lease.started():
        if any(index in copy.unfinished for copy in lease.copies):
            continue
        work = max(0.0, books.now - since) * there
        saved_s = job.times.saved_by_copy(work, there, here, rest_s)
        if saved_s > least_s and (not rest_s or saved_s > RESCUE_COST * work / job.work_class.power):
            gains.append((saved_s, index, index + 1))
    return gains


def _gain_of_partial(books: Books, lease: LeaseState, node: NodeState) -> list[tuple[float, int, int]]:
    """As `_gains`, for a lease that is folded into one partial: it can only be repeated whole."""
    job, settings = lease.job, books.settings
    mean = job.times.mean
    if mean is None or lease.copies or lease.unfinished.run_count != 1:
        return []
    work = len(lease.unfinished) * mean
    slots = node.capacity[job.work_class]
    age_s, copy_s = books.now - lease.moved_mono, work / books.speed(job, node) / slots
    expected_s = work / books.speed(job, lease.node) / max(1, lease.reserved)
    left_s = expected_s - age_s if expected_s > age_s else age_s
    if left_s > settings.copy_gain * copy_s and left_s - copy_s > settings.copy_min_s:
        return [(left_s - copy_s, lease.unfinished.first, lease.unfinished.end)]
    return []
