"""Watches busy slots: ends tasks over their timeout and cancelled ones, and takes back what waits behind a slow task.

Timers only look; what a slot is doing is read from its shared counter, so the slots pay nothing for being watched.
"""

import asyncio
import time

from fallow.node.batch import Batch
from fallow.node.lease_queue import LeaseQueue
from fallow.node.slot import Slot
from fallow.node.slots import SlotPool

CANCEL_GRACE_S = 0.02
"""A cancelled task may end by itself for so long before its slot is killed: a new slot costs more."""
LOADING_CHECK_S = 0.25
"""How often a slot that is loading a job with a timeout is looked at."""
OVERSTAY_S = 0.02
"""A batch that runs longer, and OVERSTAY times longer than expected, is cut: results that wait for the slow task are sent, and
tasks that wait behind it go to other slots or, recalled, to other nodes. Also how often batches are looked at."""
OVERSTAY = 4


class Enforcer:
    """One per dispatcher."""

    def __init__(self, pool: SlotPool, queue: LeaseQueue) -> None:
        self._pool = pool
        self._queue = queue
        self._overstay_timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self._overstay_timer is not None:
            self._overstay_timer.cancel()

    def sent(self, slot: Slot, batch: Batch) -> None:
        """A batch was sent: watch it if there is reason to."""
        if batch.timeout_s is not None and slot.timer is None:
            self._watch_timeout(slot, batch.timeout_s)
        if self._overstay_timer is None and (batch.stop - batch.start > 1 or len(slot.batches) > 1):
            self._watch_overstay()

    def cancelled(self, slot: Slot) -> None:
        """Some tasks of the slot's batches were cancelled."""
        asyncio.get_running_loop().call_later(CANCEL_GRACE_S, self._enforce_cancel, slot)

    def _watch_timeout(self, slot: Slot, wait_s: float) -> None:
        slot.timer = asyncio.get_running_loop().call_later(wait_s, self._check_timeout, slot)

    def _check_timeout(self, slot: Slot) -> None:
        slot.timer = None
        if slot.process.is_dead or slot.end_reason is not None:
            return
        timed = next((batch for batch in slot.batches if batch.timeout_s is not None), None)
        if timed is None or timed.timeout_s is None:
            return
        index, started_ns = slot.process.running_index, slot.process.started_ns
        if timed is not slot.batches[0] or index < 0 or started_ns == 0:
            self._watch_timeout(slot, min(LOADING_CHECK_S, timed.timeout_s))
            return
        left_s = timed.timeout_s - (time.monotonic_ns() - started_ns) / 1e9
        if left_s <= 0:
            slot.end("timeout", index)
        else:
            self._watch_timeout(slot, left_s)

    def _enforce_cancel(self, slot: Slot) -> None:
        if slot.process.is_dead or not slot.batches or not any(batch.cancelled for batch in slot.batches):
            return
        head = slot.batches[0]
        queued = self._queue.get(head.lease)
        index = max(slot.process.running_index, head.next)
        if head.cancelled and (queued is None or index not in queued.running):
            slot.end("cancelled")
        else:
            self.cancelled(slot)

    def _watch_overstay(self) -> None:
        self._overstay_timer = asyncio.get_running_loop().call_later(OVERSTAY_S, self._check_overstay)

    def _check_overstay(self) -> None:
        self._overstay_timer = None
        now = time.monotonic()
        is_needed = False
        for slot in self._pool:
            if not slot.batches or slot.is_cut or slot.end_reason is not None:
                continue
            head = slot.batches[0]
            index = max(slot.process.running_index, head.next)
            if index == head.next and head.stop - index <= 1 and len(slot.batches) == 1:
                continue  # no result waits for the task that runs, nor any task
            if now - head.since > max(OVERSTAY_S, OVERSTAY * head.expected_s):
                slot.cut()
            else:
                is_needed = True
        if is_needed:
            self._watch_overstay()
