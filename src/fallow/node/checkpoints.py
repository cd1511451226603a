"""Checkpoints on a node: those that its tasks go on from, and those that its tasks leave, on their way to the hub.

Of each task one checkpoint travels at a time, and the newest one of those that came meanwhile follows: one that takes
longer to send than the next one to come is still sent whole.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from fallow.link.frames import Checkpoint, CheckpointKept
from fallow.log import Logger
from fallow.model.ids import Digest, JobId, LeaseId
from fallow.model.lease import MAX_CHECKPOINT_BYTES, TaskCheckpoint
from fallow.node.batch import NO_LEASE
from fallow.node.blobs import NodeBlobs
from fallow.node.cache import BlobCache

Task = tuple[JobId, int]

_log = Logger("fallow.node")


class Checkpoints:
    """One per agent."""

    def __init__(
        self,
        cache: BlobCache,
        blobs: NodeBlobs,
        send: Callable[[Checkpoint], None],
        is_needed: Callable[[Digest], bool],
        on_taken: Callable[[], None],
    ) -> None:
        """send: drops the frame if there is no link. is_needed: whether anything here uses a blob. on_taken: something that
        `is_being_taken` was true of has been taken.
        """
        self._cache = cache
        self._blobs = blobs
        self._send = send
        self._is_needed = is_needed
        self._on_taken = on_taken
        self._taking: dict[Task, int] = {}  # which one of a task's, counted as in `_came`: the last that came
        self._latest: dict[JobId, dict[int, Digest]] = {}
        self._sending: dict[Task, Checkpoint] = {}
        self._next: dict[Task, Checkpoint] = {}
        self._came = 0
        self._newest: dict[Task, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    # --- what tasks go on from ---

    def granted(self, job: JobId, checkpoints: Iterable[TaskCheckpoint]) -> None:
        for each in checkpoints:
            self._latest.setdefault(job, {})[each.index] = each.digest

    def of(self, job: JobId, index: int) -> Digest | None:
        of_job = self._latest.get(job)
        return None if of_job is None else of_job.get(index)

    def is_being_taken(self, job: JobId, index: int) -> bool:
        """Whether an earlier attempt here has just left one, which is being stored."""
        return (job, index) in self._taking

    def first_within(self, job: JobId, start: int, stop: int) -> int:
        """Return the first task of [start, stop) that has a checkpoint, `stop` if none has."""
        return min((index for index in self._latest.get(job, ()) if start <= index < stop), default=stop)

    def ended(self, job: JobId, start: int, stop: int) -> None:
        """Tasks have come to their end here."""
        if self._latest or self._newest:
            known = [*self._newest, *((job, index) for index in self._latest.get(job, ()))]
            for task in known:
                if task[0] == job and start <= task[1] < stop:
                    self._end(task)

    def move(self, job: JobId, index: int, to: int | None) -> None:
        """A direct call has become the hub's task `to`, or None."""
        digest = self.of(job, index)
        if digest is not None and to is not None:
            self._latest[job][to] = digest
        self.ended(job, index, index + 1)

    def forget(self, job: JobId) -> None:
        for task in [*self._newest, *((job, index) for index in self._latest.get(job, ()))]:
            if task[0] == job:
                self._end(task)
        self._latest.pop(job, None)

    def missing(self, digest: Digest) -> list[Task]:
        """A checkpoint can't be had: forget it, and return whose it is."""
        tasks = [(job, index) for job, held in self._latest.items() for index, each in held.items() if each == digest]
        for task in tasks:
            self._end(task)
        return tasks

    def needs(self, digest: Digest) -> bool:
        """Whether a blob is a checkpoint that a task may go on from here, or that is on its way."""
        return self.is_on_its_way(digest) or any(digest in held.values() for held in self._latest.values())

    def _end(self, task: Task) -> None:
        self._newest.pop(task, None)  # what is being hashed comes too late
        self._sending.pop(task, None)
        self._next.pop(task, None)
        self._release(self._latest.get(task[0], {}).pop(task[1], None))

    def _release(self, digest: Digest | None) -> None:
        if digest is not None and not self._is_needed(digest):
            self._cache.drop(digest)

    # --- what tasks leave ---

    def saved(self, lease: LeaseId, job: JobId, index: int, path: Path) -> None:
        """A slot has packed the folder of its task into this file. lease: NO_LEASE for a direct call, whose checkpoint stays here."""
        try:
            claimed = self._cache.claim(path)
            if claimed.stat().st_size > MAX_CHECKPOINT_BYTES:
                claimed.unlink()
                return  # a slot of ours does not make one
        except OSError as error:
            _log.warning("a checkpoint can't be taken", job=job, index=index, error=str(error))
            return
        self._came += 1
        self._newest[job, index] = self._came
        self._taking[job, index] = self._came
        self._spawn(self._take_and_tell(lease, job, index, claimed, self._came))

    async def _take_and_tell(self, lease: LeaseId, job: JobId, index: int, path: Path, number: int) -> None:
        try:
            await self._take(lease, job, index, path, number)
        finally:
            if self._taking.get((job, index)) == number:
                del self._taking[job, index]
        self._on_taken()

    async def _take(self, lease: LeaseId, job: JobId, index: int, path: Path, number: int) -> None:
        try:
            digest = await self._blobs.keep_result(path)
        except OSError as error:
            _log.warning("a checkpoint can't be kept", job=job, index=index, error=str(error))
            if self._newest.get((job, index)) == number:
                del self._newest[job, index]
            with contextlib.suppress(OSError):
                path.unlink()
            return
        if self._newest.get((job, index)) != number:
            self._release(digest)  # a later one was faster, or the task has ended
            return
        before = self.of(job, index)
        self._latest.setdefault(job, {})[index] = digest
        frame = Checkpoint(lease, job, index, digest)
        if lease == NO_LEASE:
            pass  # a direct call's: the hub does not know it
        elif (job, index) in self._sending:
            self._next[job, index] = frame
        else:
            self._offer(frame)
        if before != digest:
            self._release(before)

    def _offer(self, frame: Checkpoint) -> None:
        self._sending[frame.job, frame.index] = frame
        self._blobs.offer(frame.digest)

    def is_on_its_way(self, digest: Digest) -> bool:
        return any(frame.digest == digest for each in (self._sending, self._next) for frame in each.values())

    def connected(self) -> None:
        """There is a new link: what is not durable at the hub is offered again."""
        for frame in self._sending.values():
            self._blobs.offer(frame.digest)

    def blob_kept(self, digest: Digest) -> None:
        for frame in list(self._sending.values()):
            if frame.digest == digest:
                self._send(frame)

    def blob_lost(self, digest: Digest) -> None:
        for task, frame in list(self._sending.items()):
            if frame.digest == digest:
                self._go_on(task)

    def kept(self, frame: CheckpointKept) -> None:
        """The hub has it, or wants it no more."""
        sent = self._sending.get((frame.job, frame.index))
        if sent is not None and sent.digest == frame.digest:
            self._go_on((frame.job, frame.index))

    def _go_on(self, task: Task) -> None:
        del self._sending[task]
        following = self._next.pop(task, None)
        if following is not None:
            self._offer(following)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
