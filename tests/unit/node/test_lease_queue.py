from fallow.model.lease import HeldLease, Lease
from fallow.node.lease_queue import LeaseQueue

JOB, OTHER = "a" * 32, "b" * 32


def add(queue, lease, **needs):
    queue.hold(lease)
    return queue.specify(lease.job, **needs)


def queue_of(*leases):
    queue = LeaseQueue()
    for lease, priority in leases:
        add(queue, lease, priority=priority)
    queue.check_invariants()
    return queue


def test_order_is_by_priority_then_arrival():
    leases = [Lease(i, JOB, 0, 10) for i in range(4)]
    queue = queue_of((leases[0], 0), (leases[1], 5), (leases[2], 0), (leases[3], 5))
    assert [each.lease.id for each in queue] == [1, 3, 0, 2]


def test_a_repeated_grant_changes_nothing():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    queued = queue.get(1)
    queue.take(queued, 4, 10)
    assert add(queue, Lease(1, JOB, 0, 10), priority=0) == []
    assert queue.get(1) is queued
    assert len(queued.pending) == 6


def test_tasks_are_taken_from_the_front_and_never_across_a_bound():
    queue = queue_of((Lease(1, JOB, 10, 100), 0))
    queued = queue.get(1)
    assert queue.take(queued, 5, 100) == (10, 15)
    assert queue.take(queued, 50, 20) == (15, 20)
    assert queue.take(queued, 0, 100) == (20, 21), "at least one"
    queue.check_invariants()


def test_a_lease_ends_when_all_is_finished():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    queued = queue.get(1)
    queue.take(queued, 10, 10)
    assert not queue.finish(1, 0, 9)
    assert queue.finish(1, 9, 10)
    assert len(queue) == 0
    assert not queue.finish(1, 9, 10), "late"


def test_what_a_dead_slot_had_goes_first_again():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    queued = queue.get(1)
    queue.take(queued, 6, 10)
    queue.finish(1, 0, 2)
    queue.requeue(1, 0, 6)
    assert list(queued.pending.ranges()) == [(2, 10)]
    assert not queued.running
    queue.check_invariants()


def test_recall_takes_from_the_end_what_is_unstarted():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    queued = queue.get(1)
    queue.take(queued, 3, 10)
    assert queue.recall(1, 4) == [(6, 10)]
    queued.pending.discard(4, 5)
    assert queue.recall(1, 100) == [(3, 4), (5, 6)]
    assert queue.recall(1, 1) == []
    assert queue.recall(77, 1) == []
    queue.check_invariants()


def test_recall_of_everything_ends_the_lease():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    assert queue.recall(1, 10) == [(0, 10)]
    assert len(queue) == 0


def test_cancel_takes_pending_and_running_tasks_of_that_job_only():
    queue = queue_of((Lease(1, JOB, 0, 10), 0), (Lease(2, OTHER, 0, 10), 0))
    queue.take(queue.get(1), 4, 10)
    queue.cancel(JOB, [(2, 6)])
    assert list(queue.get(1).pending.ranges()) == [(6, 10)]
    assert list(queue.get(1).running.ranges()) == [(0, 2)]
    queue.cancel(JOB)
    assert queue.ids() == (2,)
    queue.check_invariants()


def test_held_lists_what_is_neither_finished_nor_returned():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    queue.take(queue.get(1), 4, 10)
    queue.finish(1, 0, 2)
    queue.recall(1, 3)
    assert queue.held() == [HeldLease(1, JOB, (2, 7))]


def test_return_unstarted_leaves_what_runs():
    queue = queue_of((Lease(1, JOB, 0, 10), 0), (Lease(2, JOB, 20, 30), 0))
    queue.take(queue.get(1), 4, 10)
    queue.hold(Lease(3, OTHER, 0, 10))
    assert queue.return_unstarted() == [(1, JOB, [(4, 10)]), (2, JOB, [(20, 30)]), (3, OTHER, [(0, 10)])]
    assert queue.ids() == (1,)
    queue.check_invariants()


def test_return_unfinished_leaves_nothing():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    queue.hold(Lease(2, OTHER, 0, 10))
    queue.take(queue.get(1), 4, 10)
    queue.finish(1, 1, 2)
    assert queue.return_unfinished() == [(1, JOB, [(0, 1), (2, 10)]), (2, OTHER, [(0, 10)])]
    assert queue.is_empty
    assert not queue.finish(1, 2, 4), "late"
    queue.check_invariants()


def test_a_lease_of_an_unknown_job_is_held_and_not_handed_out_until_it_is_specified():
    queue = queue_of((Lease(1, JOB, 0, 10), 0))
    queue.hold(Lease(2, OTHER, 0, 10))
    queue.hold(Lease(2, OTHER, 0, 10))
    queue.check_invariants()
    assert [each.lease.id for each in queue] == [1]
    assert len(queue) == 1
    assert queue.unspecified_jobs() == {OTHER}
    assert queue.recall(2, 4) == [(6, 10)]
    queue.cancel(OTHER, [(0, 2)])
    assert queue.held() == [HeldLease(1, JOB, (0, 10)), HeldLease(2, OTHER, (2, 6))]
    (queued,) = queue.specify(OTHER, priority=1, cores=2, memory_bytes=3)
    assert (queued.cores, queued.memory_bytes) == (2, 3)
    assert [each.lease.id for each in queue] == [2, 1]
    assert queue.unspecified_jobs() == set()
    queue.check_invariants()


def test_a_lease_of_an_unknown_job_can_be_recalled_and_cancelled_whole():
    queue = LeaseQueue()
    queue.hold(Lease(1, JOB, 0, 10))
    queue.hold(Lease(2, OTHER, 0, 10))
    assert queue.recall(1, 10) == [(0, 10)]
    queue.cancel(OTHER)
    assert queue.is_empty
    assert queue.specify(JOB, priority=0) == []
    queue.check_invariants()
