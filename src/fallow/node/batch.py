"""A batch: what a slot is handed at a time."""

from pathlib import Path
from typing import Protocol

from fallow.model.ids import JobId, LeaseId
from fallow.model.page import ResultPage
from fallow.slot.protocol import CUT_NOTE, MAX_PRINTED_BYTES

NO_LEASE = LeaseId(-1)


class DirectCall(Protocol):
    """A task that came straight from the client whose process the node runs in: the hub knows nothing of it.

    Its job is one that the hub has leased tasks of before, so that function and environment are here.
    """

    def done(self, page: ResultPage, path: Path | None) -> None:
        """It has run. path: the file with the page's bytes, if they are many; the slot's, for the moment."""
        ...

    def lost(self) -> int | None:
        """Its slot has ended before it did: return the index with which the hub will lease it, None if nobody waits for it."""
        ...


class Batch:
    """Tasks [start, stop) of a lease, in a slot; those before `next` are done."""

    def __init__(self, number: int, lease: LeaseId, job: JobId, job_number: int, start: int, stop: int) -> None:
        """number: of the run in its slot, from 1 on."""
        self.number = number
        self.lease = lease
        self.job = job
        self.job_number = job_number
        self.start = start
        self.stop = stop
        self.next = start
        self.cores = 1
        self.memory_bytes = 0
        self.timeout_s: float | None = None
        self.is_first = False
        self.expected_s = 0.0
        self.since = 0.0
        self.ran_s = 0.0
        self.result_bytes = 0
        self.last_of_page = -1
        """Number of the input page, if it is a large one that this batch ends."""
        self.cancelled = False
        """Some of its tasks were cancelled: the slot is killed if it comes to one."""
        self.direct: DirectCall | None = None
        """What it is, if it is of no lease."""
        self.is_lent = False
        """It is what the next direct call will be: see `Lending`."""
        self._output_bytes: dict[int, int] = {}

    @property
    def is_direct(self) -> bool:
        return self.lease == NO_LEASE

    def bounded_output(self, index: int, data: bytes) -> bytes:
        """Return what is kept of a task's output, whichever way it came, with a note where it is cut."""
        used = self._output_bytes.get(index, 0)
        self._output_bytes[index] = used + len(data)
        room = MAX_PRINTED_BYTES - used
        if len(data) <= room:
            return data
        return data[:room] + CUT_NOTE if room >= 0 else b""
