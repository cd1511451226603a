"""A slot as its node uses it: what it has been sent, and what it is on."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from fallow.model.ids import Digest
from fallow.model.lease import RunningTask
from fallow.node.batch import Batch
from fallow.node.node_job import NodeJob
from fallow.node.page_shelf import ShelvedPage
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_process import SlotProcess

EndReason = Literal["timeout", "cancelled", "recycled", "faulty", "limit"]


class Slot:
    """A slot with what was sent to it."""

    def __init__(self, process: SlotProcess) -> None:
        self.process = process
        self.batches: deque[Batch] = deque()
        self.owner: str | None = None
        """Whose tasks it runs, once it has run one and is sandboxed: it never runs another user's then."""
        self.runs = 0
        """Batches that it was ever sent."""
        self.cut_to = 0
        """It was asked to give back what had not begun of its batches up to this number."""
        self.jobs: set[int] = set()
        self.pages: set[int] = set()
        self.sources: dict[str, Digest] = {}
        self.messages: list[bytes] = []
        """Messages that go with the next batch."""
        self.printing: Batch | None = None
        """What output belongs to, also if it comes late."""
        self.end_reason: EndReason | None = None
        self.end_index = -1
        self.last_words = ""
        """What its task failed with, if that was of a limit."""
        self.next_kind: SlotKind | None = None
        """What takes its place when it has ended, if that is another kind."""
        self.timer: asyncio.TimerHandle | None = None
        self._seen: tuple[int, float] = (-1, 0.0)
        """The task that it was on when it was looked at last, and since when."""

    @property
    def is_idle(self) -> bool:
        return self.process.is_ready and not self.batches and self.end_reason is None and not self.process.is_dead

    @property
    def is_cut(self) -> bool:
        """Whether it runs a batch that overstays: nothing more is put behind that."""
        return bool(self.batches) and self.batches[0].number <= self.cut_to

    # --- what it knows of jobs ---

    def suits(self, job: NodeJob) -> bool:
        """Whether it may load the job."""
        spec = job.spec
        if self.process.kind != job.kind or self.owner not in {None, spec.owner}:
            return False
        held = self.sources
        if spec.environment is not None and self.runs and not spec.is_program and held.keys() != spec.sources.keys():
            return False  # what is a loose module to one may be in a wheel to the other
        return all(held.get(name, digest) == digest for name, digest in spec.sources.items())

    def load(self, job: NodeJob) -> None:
        """Make it know a job, with the next batch; raises OSError."""
        if self.process.kind.sandbox != "process":
            self.owner = job.spec.owner
        self.messages.append(job.load_message(self.process))
        self.jobs.add(job.number)
        self.sources.update(job.spec.sources)

    def forget(self, job: NodeJob) -> None:
        """Have it drop a job, if it knows it."""
        if job.number in self.jobs:
            self.jobs.discard(job.number)
            self.messages.append(job.forget_message())
            self.process.take_back(("job", job.number))

    def add_page(self, job: NodeJob, shelved: ShelvedPage, path: Path | None, refs: Mapping[Digest, Path]) -> None:
        """Give it an input page with the next batch; raises OSError. path: see `NodeJob.page_message`."""
        self.messages.append(job.page_message(shelved, path, refs, self.process))
        self.pages.add(shelved.number)

    def drop_page(self, job: NodeJob | None, number: int) -> None:
        """Have it drop an input page, if it has it. job: None if that is over: pages go with it."""
        if number in self.pages:
            self.pages.discard(number)
            self.process.take_back(("page", number))
            if job is not None:
                self.messages.append(job.forget_message(number))

    # --- what it runs ---

    def takes_early(self, job: NodeJob) -> bool:
        """Whether it may be sent a batch behind the one that it is on."""
        return (
            len(self.batches) == 1
            and self.batches[0].job_number == job.number
            and self.end_reason is None
            and not self.is_cut
        )

    def send(self, batch: Batch, message: bytes) -> None:
        """Send a batch, with all that is to go with it."""
        self.batches.append(batch)
        parts = self.messages
        if parts:
            parts.append(message)
            message = b"".join(parts)
            self.messages = []
        self.process.write(message)

    def batch_ended(self) -> None:
        """The batch that it was on is done, or was given back."""
        self.batches.popleft()
        if self.batches:
            self.batches[0].since = time.monotonic()
        elif self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def running(self) -> RunningTask | None:
        """Return the task of a lease that it is on now."""
        if not self.batches or self.batches[0].is_direct:
            self._seen = (-1, 0.0)
            return None
        now, head = time.monotonic(), self.batches[0]
        index = max(self.process.running_index, head.next)
        since = head.since
        if index != head.start:
            since = self._seen[1] if self._seen[0] == index else now
        self._seen = (index, since)
        told, fraction, message = self.process.progress
        return RunningTask(head.lease, index, now - since, *((fraction, message) if told == index else (None, "")))

    # --- its end ---

    def cut(self) -> None:
        """Ask for everything back that it has not begun."""
        self.cut_to = self.runs
        self.process.cut(self.runs)

    def end(self, reason: EndReason, index: int = -1) -> None:
        """Kill the process; the owner hears of its death soon. index: the task that is to blame."""
        if self.end_reason is None and not self.process.is_dead:
            self.end_reason, self.end_index = reason, index
            self.process.kill()
