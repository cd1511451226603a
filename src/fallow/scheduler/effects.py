"""What the scheduler wants done. The hub's shell carries effects out, in order.

`Persist` goes to the journal. Work is dispatched and values are handed to watchers now, without waiting for it.
What could not be taken back is told only once all changes before it are durable: acknowledgements, the end of a job, events,
and partials of `reduce`, which can't be counted in part.
"""

import msgspec

from fallow.model.changes import Change
from fallow.model.events import Event
from fallow.model.ids import JobId, LeaseId, NodeId
from fallow.model.lease import Lease
from fallow.model.page import StoredPage


class Persist(msgspec.Struct, frozen=True):
    """Write this with the next group commit."""

    change: Change


class GrantLease(msgspec.Struct, frozen=True):
    """Send the lease to its node."""

    node: NodeId
    lease: Lease


class RecallLease(msgspec.Struct, frozen=True):
    """Ask the node to return up to `count` unstarted tasks from the lease's end."""

    node: NodeId
    lease: LeaseId
    count: int


class CancelWork(msgspec.Struct, frozen=True):
    """Tell the node to stop tasks of the job. Empty ranges: all of it."""

    node: NodeId
    job: JobId
    ranges: tuple[int, ...] = ()
    """Flat ranges."""


class ForgetJob(msgspec.Struct, frozen=True):
    """Tell the node to drop what it caches of an ended job."""

    node: NodeId
    job: JobId


class TellResults(msgspec.Struct, frozen=True):
    """Newly settled results: hand them to whoever watches the job."""

    job: JobId
    pages: tuple[StoredPage, ...]


class TellProgress(msgspec.Struct, frozen=True):
    """The job's progress changed; `ended` jobs are told as soon as that is durable, others a few times a second."""

    job: JobId
    ended: bool


class Tell(msgspec.Struct, frozen=True):
    """Something happened that event streams show."""

    event: Event


Effect = Persist | GrantLease | RecallLease | CancelWork | ForgetJob | TellResults | TellProgress | Tell
Effects = list[Effect]
