"""What must hold after every event. Tests and the simulator call it; it looks at everything, so it is not cheap."""

from fallow.model.ranges import RangeSet
from fallow.scheduler.books import Books
from fallow.scheduler.job_state import Ended, JobState, Sealed
from fallow.scheduler.lease_state import LeaseState
from fallow.scheduler.node_state import NodeState, Ready
from fallow.scheduler.work_class import WorkClass


def check_books(books: Books) -> None:
    """Raise AssertionError if any part of the books contradicts another."""
    for job in books.jobs.values():
        check_job(books, job)
    for node in books.nodes.values():
        check_node(books, node)
    for work_class in books.classes.values():
        check_class(books, work_class)
    counts: dict[int, int] = {}
    for lease in books.leases.values():
        check_lease(books, lease)
        counts[lease.job.priority] = counts.get(lease.job.priority, 0) + 1
    assert counts == books.priorities, "the count of leases by priority is wrong"
    assert len(books.leases) == sum(len(node.leases) for node in books.nodes.values()), "a node has a stale lease"
    assert len(books.leases) == sum(len(job.leases) for job in books.jobs.values()), "a job has a stale lease"


def check_lease(books: Books, lease: LeaseState) -> None:
    """A lease has something left, and is where its job, its node and its copies look for it."""
    assert books.leases.get(lease.id) is lease, "a lease stands under another's id"
    assert lease.job.leases.get(lease.id) is lease, f"lease {lease.id} is missing at its job"
    assert lease.node.leases.get(lease.id) is lease, f"lease {lease.id} is missing at its node"
    assert books.jobs.get(lease.job.id) is lease.job, f"lease {lease.id} is of a job that is gone"
    assert books.nodes.get(lease.node.id) is lease.node, f"lease {lease.id} is at a node that is gone"
    lease.unfinished.check_invariants()
    assert lease.unfinished, f"lease {lease.id} has nothing left"
    if lease.original is not None:
        assert lease in lease.original.copies, f"copy {lease.id} is unknown to its original"
        assert lease.node is not lease.original.node, "a copy is on the node of its original"
        for start, stop in lease.unfinished.ranges():
            assert not lease.original.unfinished.missing(start, stop), f"copy {lease.id} has more than its original"
    for copy in lease.copies:
        assert copy.original is lease, f"lease {lease.id} lists a copy of another"


def check_job(books: Books, job: JobState) -> None:
    """Every task is in exactly one place: fresh, front, careful, one primary lease, or settled."""
    parts = [("fresh", job.fresh), ("front", job.front), ("careful", job.careful), ("settled", job.settled)]
    if not job.has_ended:
        parts += [(f"lease {each.id}", each.unfinished) for each in job.leases.values() if each.original is None]
    union = RangeSet()
    for name, part in parts:
        part.check_invariants()
        for start, stop in part.ranges():
            fresh = union.add(start, stop)
            assert fresh == [(start, stop)], f"{job.id}: {name} has [{start}, {stop}), parts of which are elsewhere too"
    whole = job.available if job.available is not None else RangeSet([(0, job.accepted)])
    if not job.has_ended:
        assert union == whole, f"{job.id}: tasks {union} are accounted for, of {whole}"
    covered = RangeSet()
    for copy in [each for each in job.leases.values() if each.original is not None]:
        for start, stop in copy.unfinished.ranges():
            assert covered.add(start, stop) == [(start, stop)], f"{job.id}: two copies of [{start}, {stop})"
    for start, stop in job.failed_set.ranges():
        assert not job.settled.missing(start, stop), f"{job.id}: tasks in [{start}, {stop}) failed and are not settled"
    assert len(job.first_failures) <= min(job.failed, books.settings.kept_failures), "too many failure records"
    for index in job.troubles:
        assert index not in job.settled, f"{job.id}: attempts of the settled task {index} are held"
    for start, stop in job.careful.ranges():
        for index in range(start, stop):
            assert index in job.troubles, f"{job.id}: task {index} is careful without a reason"
    if isinstance(job.life, Sealed):
        assert not job.is_complete, f"{job.id} is complete and has not ended"
    if isinstance(job.life, Ended):
        assert job.children or not job.was_leased, f"{job.id} has ended, nothing reads it, and it is still here"
        assert not job.leases, f"{job.id} has ended and has leases"
    check_queue(job)


def check_queue(job: JobState) -> None:
    """The job stands in its class's lists where it should."""
    work_class, key = job.work_class, job.key()
    if job.has_ended:
        assert job.id not in work_class.jobs, "an ended job is queued"
        return
    assert work_class.jobs.get(job.id) is job, "a job is missing in its class"
    if key is not None:
        assert job.queued_key is not None, f"{job.id} has pending tasks and is not queued"
        assert job.queued_key <= key, f"{job.id} is queued behind its place"
    assert (job.id in work_class.careful) == bool(job.careful), f"{job.id}: the list of careful jobs is wrong"
    in_tail = bool(job.leases) and not job.pending_count
    assert (job.id in work_class.tail) == in_tail, f"{job.id}: the list of jobs in their tail is wrong"


def check_node(books: Books, node: NodeState) -> None:
    """Reservations are within capacity and leave nothing free that a lease at the node could use."""
    slots, cores, memory_bytes = node.info.slots, node.info.cores, node.info.memory_bytes
    for lease in node.leases.values():
        assert 0 <= lease.reserved <= len(lease.unfinished), f"lease {lease.id} reserves more than it has"
        slots -= lease.reserved
        cores -= lease.reserved * lease.job.work_class.cores
        memory_bytes -= lease.reserved * lease.job.work_class.memory_bytes
    if any(lease.reserved for lease in node.leases.values()):
        assert min(slots, cores, memory_bytes) >= 0, f"{node.id} is reserved beyond its capacity"
    for lease in node.leases.values():
        if lease.reserved < len(lease.unfinished):
            assert lease.job.work_class.fit(slots, cores, memory_bytes) == 0, f"{node.id} leaves capacity unused"
    if node.alone is not None:
        assert list(node.leases.values()) == [node.alone], f"{node.id} should run one suspect task alone"
    if node.drains_for is not None:
        job, index = node.drains_for
        assert job.drains.get(index) == node.id, f"{node.id} drains for a task that does not know"
    may = type(node.presence) is Ready and node.accepting
    matching = {
        each
        for each in books.classes.values()
        if may and each.suits(node) and each.fit(node.info.slots, node.info.cores, node.info.memory_bytes)
    }
    assert set(node.capacity) == matching, f"{node.id} is matched with the wrong classes"
    for work_class, rank in node.ranks.items():
        assert work_class.hungry.rank(node) == rank, f"{node.id} has another rank in its class"
    for job in node.cached.values():
        assert node.id in job.touched, f"{node.id} caches a job that does not know"
    assert node.timer_mono <= node.deadline(books.settings), f"{node.id} would be found lost too late"


def check_class(books: Books, work_class: WorkClass) -> None:
    """The sums and lists of a class agree with its nodes; no hungry node is left beside pending work."""
    nodes = list(work_class.ready.values())
    assert work_class.slots == sum(node.capacity[work_class] for node in nodes), "slots are counted wrong"
    power = sum(node.capacity[work_class] * node.score for node in nodes)
    assert abs(work_class.power - power) <= 1e-6 * max(1.0, power), "power is counted wrong"
    for node in nodes:
        assert books.nodes.get(node.id) is node, "a lost node is still ready"
        if work_class.hungry.rank(node) is not None:
            assert work_class in node.ranks, "a node is hungry without knowing"
    assert len(work_class.hungry) == sum(work_class in node.ranks for node in nodes), "hungry nodes are miscounted"
    if work_class.peek() is not None and work_class not in books.woken:
        held = {node for each in books.classes.values() for node in each.holds}
        idle = [node.id for node in work_class.hungry.best(len(nodes), 0) if node.id not in held]
        assert not idle, f"work is pending beside {idle}, which have room"
