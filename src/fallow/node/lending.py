"""Idle slots that are lent to the next lone call of a job: its caller's thread writes to the slot, and no other wakes up for that."""

import threading
import time

from fallow.model.ids import JobId
from fallow.node.batch import NO_LEASE, Batch, DirectCall
from fallow.node.node_job import NodeJob
from fallow.node.slot import Slot


class Lending:
    """Of one pool. A slot on loan holds a batch, `is_lent`, that becomes the call; it is taken back before leases need it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: dict[JobId, list[tuple[Slot, NodeJob]]] = {}

    def lend(self, slot: Slot, job: NodeJob) -> None:
        """Lend an idle slot that has the job."""
        if slot.messages:
            slot.process.write(b"".join(slot.messages))
            slot.messages = []
        slot.runs += 1
        batch = Batch(slot.runs, NO_LEASE, job.spec.id, job.number, 0, 1)
        batch.is_lent = True
        slot.batches.append(batch)
        with self._lock:
            self._lent.setdefault(job.spec.id, []).append((slot, job))

    def take(self, job: JobId, index: int, data: bytes, call: DirectCall) -> bool:
        """Hand a call to a slot on loan, if there is one for its job; return whether there was. From any thread."""
        with self._lock:  # until it is written: what the loop sends to this slot comes behind it
            lent = self._lent.get(job, [])
            while lent and not _is_lent(lent[-1][0]):
                lent.pop()
            if not lent:
                return False
            slot, held = lent[-1]
            batch = slot.batches[0]
            batch.start = batch.next = index
            batch.stop = index + 1
            batch.since = time.monotonic()
            batch.direct = call
            slot.process.write(held.direct_message(index, data, batch.number))
            batch.is_lent = False  # not earlier: Ctrl-C may come between any two lines
            return True

    def take_back(self) -> None:
        """End all loans; calls that were taken before go on."""
        with self._lock:
            for lent in self._lent.values():
                for slot, _ in lent:
                    if _is_lent(slot):
                        slot.batches.clear()
            self._lent.clear()


def _is_lent(slot: Slot) -> bool:
    return bool(slot.batches) and slot.batches[0].is_lent
