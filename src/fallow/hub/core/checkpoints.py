"""The latest checkpoint of each unsettled task: what its next attempt begins with, and which one may take its place.

The fence is the lease: only the lease that holds a task may replace its checkpoint. An attempt whose lease has gone back
(its node was silent for too long) comes too late, and a second attempt of a slow task replaces nothing while the first one goes on.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fallow.link.frames import Checkpoint
from fallow.model.changes import DropCheckpoint, SaveCheckpoint
from fallow.model.errors import NotFound, TooLarge
from fallow.model.ids import Digest, JobId, NodeId
from fallow.model.lease import MAX_CHECKPOINT_BYTES, TaskCheckpoint
from fallow.state.state import Recovered

if TYPE_CHECKING:
    from fallow.hub.core.hub import Hub

GRANTED_CHECKPOINTS = 2_000
"""Sent with one lease: tasks that last long enough to leave one come a few at a time. About 140 KB."""


class CheckpointDesk:
    """One per hub."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._latest: dict[JobId, dict[int, Digest]] = {}

    def restore(self, recovered: Recovered) -> None:
        """Go on from the state; what is left there of tasks that were settled at the very end goes."""
        for job, index, digest in recovered.checkpoints:
            self._latest.setdefault(job, {})[index] = digest
        for each in recovered.jobs:
            self.settled(each.spec.id, each.settled)

    def save(self, node: NodeId, frame: Checkpoint) -> None:
        """Keep a checkpoint, unless its task is settled or not that lease's; raises NotFound, TooLarge."""
        hub, job, digest = self._hub, frame.job, frame.digest
        if not hub.scheduler.holds(node, frame.lease, job, frame.index):
            return
        size = hub.blobs.size(digest)
        if size is None:
            raise NotFound(f"the hub lacks blob {digest[:12]}… of a checkpoint; offer it first")
        if size > MAX_CHECKPOINT_BYTES:
            raise TooLarge(f"a checkpoint of {size} bytes is over the limit of {MAX_CHECKPOINT_BYTES} bytes")
        latest = self._latest.setdefault(job, {})
        before = latest.get(frame.index)
        if before != digest:
            latest[frame.index] = digest
            hub.journal.append(SaveCheckpoint(job, frame.index, digest))
            if before is not None:
                hub.house.sweep([before])

    def of(self, job: JobId, start: int, stop: int) -> tuple[TaskCheckpoint, ...]:
        """Return what the tasks of a lease may go on from."""
        found = self._within(job, start, stop)
        return tuple(TaskCheckpoint(index, self._latest[job][index]) for index in found[:GRANTED_CHECKPOINTS])

    def settled(self, job: JobId, counts: Sequence[int]) -> None:
        """Tasks have their results: their checkpoints go. counts: flat ranges."""
        if job not in self._latest:
            return
        dropped = []
        for start, stop in zip(counts[::2], counts[1::2], strict=True):
            for index in self._within(job, start, stop):
                dropped.append(self._latest[job].pop(index))
                self._hub.journal.append(DropCheckpoint(job, index))
        self._hub.house.sweep(dropped)

    def forget(self, job: JobId) -> None:
        """The job has ended; the state forgets its checkpoints with that."""
        self._hub.house.sweep(self._latest.pop(job, {}).values())

    def _within(self, job: JobId, start: int, stop: int) -> list[int]:
        latest = self._latest.get(job)
        if not latest:
            return []
        if len(latest) < stop - start:
            return sorted(index for index in latest if start <= index < stop)
        return [index for index in range(start, stop) if index in latest]
