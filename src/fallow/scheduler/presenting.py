"""After a restart or a reconnect: which leases a node still holds.

Truth is what nodes present. A presented lease is adopted as far as its tasks are unsettled and nobody else has them,
even if it was never recorded; a known lease shrinks to what is presented of it.
"""

from collections.abc import Sequence

from fallow.model.changes import AddLease
from fallow.model.ids import LeaseId
from fallow.model.lease import HeldLease, Lease
from fallow.model.ranges import RangeSet
from fallow.scheduler.books import Books
from fallow.scheduler.effects import CancelWork, Persist
from fallow.scheduler.lease_state import LeaseState
from fallow.scheduler.leaving import blame, reclaim
from fallow.scheduler.node_state import NodeState
from fallow.scheduler.settling import give_back


def present(books: Books, node: NodeState, held: Sequence[HeldLease], *, is_first: bool) -> None:
    """Bring the node's leases in line with what it says that it holds.

    is_first: its agent has just started. What an earlier one ran it had received; a lease that is missing after a mere
    reconnect may never have come.
    """
    presented: set[LeaseId] = set()
    for each in held:
        presented.add(each.id)
        lease = books.leases.get(each.id)
        unfinished = _read(each)
        if lease is not None and lease.node is node and lease.job.id == each.job:
            _shrink_to(books, lease, unfinished)
        elif lease is None:
            _adopt(books, node, each, unfinished)
    for lease in [lease for lease in node.leases.values() if lease.id not in presented]:
        blame(books, lease, how="restarted" if is_first else "listed")
        if lease.id in books.leases:
            reclaim(books, lease)


def _read(held: HeldLease) -> RangeSet:
    try:
        return RangeSet.from_flat(held.unfinished)
    except ValueError:  # not pairs: as if it had nothing left
        return RangeSet()


def _shrink_to(books: Books, lease: LeaseState, unfinished: RangeSet) -> None:
    gone = [part for run in lease.unfinished.ranges() for part in unfinished.missing(*run)]
    over = [part for run in unfinished.ranges() for part in lease.unfinished.missing(*run)]
    if gone:
        give_back(books, lease, gone)
    if over:  # settled meanwhile, or given to others
        books.cancel_at(lease, over)
    lease.granted_mono = books.now
    books.shrink(lease)


def _adopt(books: Books, node: NodeState, held: HeldLease, unfinished: RangeSet) -> None:
    job = books.jobs.get(held.job)
    if job is None or job.has_ended:
        books.effects.append(CancelWork(node.id, held.job))
        return
    taken = RangeSet(part for run in unfinished.ranges() for part in job.take_pending(*run))
    refused = [part for run in unfinished.ranges() for part in taken.missing(*run)]
    lease = LeaseState(held.id, job, node, books.now)
    if refused:
        books.cancel_at(lease, refused)
    if taken:
        adopt(books, lease, taken)
        books.effects.append(Persist(AddLease(Lease(held.id, job.id, taken.first, taken.end), node.id)))


def adopt(books: Books, lease: LeaseState, taken: RangeSet) -> None:
    """Enter a lease that this scheduler did not grant; its tasks were taken out of the queue."""
    lease.unfinished = taken
    books.add_lease(lease, is_recorded=True)
