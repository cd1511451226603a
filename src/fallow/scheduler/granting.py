"""Who gets what: pairs what is pending with nodes that have room.

A node asks when something of its own changed (`offer`); a class asks when something became pending (`distribute`).
Neither looks at more nodes than it grants to, but for a bounded few.
"""

from itertools import islice

from fallow.scheduler.books import Books
from fallow.scheduler.job_state import JobState
from fallow.scheduler.node_state import NodeState
from fallow.scheduler.sizing import cut, lease_size
from fallow.scheduler.tail import rescue, take_over
from fallow.scheduler.work_class import WorkClass

JOBS_SCANNED = 8
"""Jobs of a class with tasks in trouble that a node looks at in one event."""


def distribute(books: Books, *nodes: NodeState) -> None:
    """Grant what this event made grantable: to the nodes that it was about, then to whoever is hungry."""
    for node in nodes:
        offer(books, node)
    budget = books.settings.grants_per_event
    while books.woken and budget > 0:
        work_class = next(iter(books.woken))
        del books.woken[work_class]
        budget = _distribute_class(books, work_class, budget)
    if books.woken:
        books.tick_mono = books.now


def _distribute_class(books: Books, work_class: WorkClass, budget: int) -> int:
    passed: list[tuple[NodeState, int]] = []
    while (job := work_class.peek()) is not None or work_class.careful:
        node = work_class.hungry.first()
        if node is None or len(passed) > books.settings.scan:
            if job is not None:
                _offer_urgent(books, work_class, job)
            break
        if budget <= 0:
            books.woken[work_class] = None
            break
        before, had_room = books.lease_count, node.ranks[work_class] >= 0
        offer(books, node)
        budget -= books.lease_count - before
        rank = work_class.hungry.rank(node)
        if books.lease_count == before and rank is not None:  # it may not have what is left
            work_class.hungry.remove(node)
            passed.append((node, rank))
            if not had_room:  # none of the others has room either, and all of them will ask again
                break
    for node, rank in passed:
        work_class.hungry.put(node, rank)
    return budget


def _offer_urgent(books: Books, work_class: WorkClass, job: JobState) -> None:
    """Find a node that is full, but of work of lower priority: the job goes before it there."""
    if job.priority <= min(books.priorities, default=job.priority):
        return
    for node in list(islice(work_class.ready.values(), books.settings.scan)):
        del work_class.ready[node.id]  # to the end, so that other nodes are looked at next time
        work_class.ready[node.id] = node
        offer(books, node)
        if not job.pending_count:
            break


def offer(books: Books, node: NodeState) -> None:
    """Grant the node all that it should have now, then note what else it would take."""
    if not node.may_be_granted:
        return
    if node.drains_for is not None or any(work_class.careful for work_class in node.capacity):
        _offer_careful(books, node)
    if node.alone is None and node.drains_for is None:
        for _ in range(2 * node.info.slots + 2):
            if not _grant_next(books, node):
                break
    looks_on = False
    for work_class in node.capacity:
        books.rank(node, work_class)
        looks_on |= bool(work_class.tail) and len(work_class.ready) > 1
    if looks_on:
        take_over(books, node)


def _grant_next(books: Books, node: NodeState) -> bool:
    """Grant one lease of the job that is next among those that the node has room for; False if there is none."""
    jobs = [job for work_class in node.capacity if (job := work_class.peek()) is not None]
    if len(jobs) > 1:
        jobs.sort(key=_place)
    for job in jobs:
        work_class = job.work_class
        room = node.room(work_class, job.priority)
        if room or books.runs_dry(node, job):
            if room and books.now >= job.next_rescue and rescue(books, job, node):
                return True
            count, is_probe = lease_size(books, job, node, room)
            start, stop = cut(books, job, count)
            books.grant(job, node, start, stop, is_probe=is_probe)
            if work_class.holds:  # nodes that were held for this job may be free for others now
                work_class.holds.pop(node.id, None)
                books.woken.update(node.capacity.fromkeys(node.capacity))
            return True
        if _holds(books, node, job):
            return False
    return False


def _place(job: JobState) -> tuple[int, int, int]:
    assert job.queued_key is not None
    return job.queued_key


def _holds(books: Books, node: NodeState, job: JobState) -> bool:
    """Whether the node should be kept from later jobs' work until a task of this one fits.

    Only for tasks that need more than one core or some memory: smaller ones of other jobs could keep them out for
    ever. No more nodes are held than the job has tasks, and none that would take long to have room.
    """
    work_class = job.work_class
    work_class.holds.pop(node.id, None)
    if (work_class.cores == 1 and not work_class.memory_bytes) or len(work_class.holds) >= job.pending_count:
        return False
    for lease in node.leases.values():
        if (books.seconds_per_task(lease.job, node) or 0.0) > books.settings.drain_limit_s:
            return False
    work_class.holds[node.id] = None
    return True


# --- tasks in trouble ---------------------------------------------------------------------------


def _offer_careful(books: Books, node: NodeState) -> None:
    """Grant tasks in trouble, one by one, ahead of others of their priority."""
    if node.drains_for is not None:
        job, index = node.drains_for
        is_wanted = index in job.careful and not job.has_ended
        if is_wanted and node.leases:
            return
        books.stop_draining(node)
        if is_wanted:
            _grant_careful(books, job, node, index, alone=True)
            return
    for work_class in node.capacity:
        best = work_class.peek()
        for job in list(islice(work_class.careful.values(), JOBS_SCANNED)):
            if best is not None and best.priority > job.priority:
                continue
            for index in job.careful.lowest(books.settings.scan):
                if node.alone is not None or node.drains_for is not None:
                    return
                _consider(books, node, job, index)


def _consider(books: Books, node: NodeState, job: JobState, index: int) -> None:
    trouble, work_class = job.troubles[index], job.work_class
    if node.id in trouble.nodes and any(
        each not in trouble.nodes for each in islice(work_class.ready, len(trouble.nodes) + 1)
    ):
        return  # elsewhere, as long as there is an elsewhere
    if trouble.lost < books.settings.losses_before_alone:
        if node.room(work_class, job.priority) or _flows(books, node):
            _grant_careful(books, job, node, index, alone=False)
    elif not node.leases:
        _grant_careful(books, job, node, index, alone=True)
    elif index not in job.drains:
        job.drains[index] = node.id
        node.drains_for = (job, index)


def _flows(books: Books, node: NodeState) -> bool:
    """Whether the node, though full, will soon come to a task that is put before its other work.

    Long leases of short tasks follow each other without a gap, so tasks in trouble must not wait for room.
    """
    if sum(lease.is_careful for lease in node.leases.values()) >= node.info.slots:
        return False
    lengths = [books.seconds_per_task(lease.job, node) for lease in node.leases.values()]
    return all(each is not None and each <= books.settings.target_lease_s for each in lengths)


def _grant_careful(books: Books, job: JobState, node: NodeState, index: int, *, alone: bool) -> None:
    job.careful.discard(index, index + 1)
    lease = books.grant(job, node, index, index + 1)
    lease.is_careful = True
    if alone:
        node.alone = lease
