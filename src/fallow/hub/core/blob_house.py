"""The hub's blobs as all its links see them: who is uploading what, room left, and sweeping."""

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fallow.hub.core.journal import Journal
from fallow.log import Logger
from fallow.model.errors import StateError
from fallow.model.ids import Digest
from fallow.state.blobs import BlobStore, LocalBlobs
from fallow.state.state import State

if TYPE_CHECKING:
    from fallow.hub.core.blob_desk import BlobDesk

FREE_SPACE_CHECK_S = 0.5
"""How old a reading of the free space may be."""

ON_DISK = 0.25
"""Part of the reserve that must be free on the disk itself, for large results and the database's log."""

CONFIRMED_S = 5.0
"""How long a blob that a peer was told is kept stays without anything that refers to it."""
CONFIRMED_BLOBS = 10_000
DELETE_RETRY_S = 60.0
"""Wait before a blob that a store far away refused to delete is tried again."""

T = TypeVar("T")
_log = Logger("fallow.hub")


class BlobHouse:
    """One per hub."""

    def __init__(self, blobs: BlobStore, state: State, journal: Journal, folder: Path, reserve_bytes: int) -> None:
        self.blobs = blobs
        self.is_local = isinstance(blobs, LocalBlobs)
        """Whether the store answers at once; one far away is asked beside the loop."""
        self.takes_in_place = isinstance(blobs, LocalBlobs) and blobs.is_trusting
        """Whether it takes files of this process's node from wherever they lie."""
        self.proof = secrets.token_urlsafe(32)
        self._state = state
        self._journal = journal
        self._probe = folder / f"probe-{secrets.token_hex(4)}"
        self._reserve_bytes = reserve_bytes
        self._free_bytes = 0
        self._reusable_bytes = 0
        self._free_read_at = float("-inf")
        self._confirmed_mono: dict[Digest, float] = {}
        self._uploads: dict[Digest, list[tuple[BlobDesk, int]]] = {}
        self._doubtful: set[Digest] = set()
        """Confirmed to somebody a moment ago, and referred to by nothing yet: to be looked at again."""
        self._look_timer: asyncio.TimerHandle | None = None
        self._deletions: dict[Digest, asyncio.Future[None]] = {}
        self._is_closed = False

    @property
    def probe(self) -> str:
        """The file that another process on this machine can read to prove that it shares the filesystem."""
        return str(self._probe)

    def open(self) -> None:
        self.blobs.incoming.mkdir(parents=True, exist_ok=True)
        for stale in self._probe.parent.glob("probe-*"):
            stale.unlink(missing_ok=True)
        self._probe.touch(mode=0o600)
        self._probe.write_text(self.proof)

    def close(self) -> None:
        self._is_closed = True
        self._probe.unlink(missing_ok=True)

    def has_room(self, size_bytes: int = 0, *, is_submission: bool = True, is_here: bool = False) -> bool:
        """Whether a submission of this size leaves the reserve for results of accepted work; they fit while anything does.

        is_here: it lies on this disk already, in a file that is only to be taken over.
        """
        now = time.monotonic()
        if now - self._free_read_at > FREE_SPACE_CHECK_S:
            self._free_bytes, self._free_read_at = self.blobs.free_bytes(), now
            with contextlib.suppress(StateError):  # it is being opened again
                self._reusable_bytes = self._state.reusable_bytes()
        free = self.blobs.free_bytes() if is_here else self._free_bytes - size_bytes
        if not is_submission:
            return free >= 0
        # The database's file does not shrink when jobs are deleted: results go into the room that they have left there.
        return free >= self._reserve_bytes * ON_DISK and free + self._reusable_bytes >= self._reserve_bytes

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Run what may wait for a disk or a store beside the loop; inline where nothing is durable."""
        if self._state.is_durable or not self.is_local:
            return await asyncio.to_thread(work)
        return work()

    async def is_kept(self, digest: Digest) -> bool:
        """Ask a store far away; raises Unavailable."""
        self.confirmed(digest)  # first: it is not swept between the answer and whatever refers to it
        if (deletion := self._deletions.get(digest)) is not None:
            await asyncio.wait([deletion])
        return await self.off_loop(lambda: self.blobs.size(digest)) is not None

    def confirmed(self, digest: Digest) -> None:
        """A peer was told that this blob is kept: what refers to it is on its way, so it is not swept just now."""
        now = time.monotonic()
        self._confirmed_mono[digest] = now
        if len(self._confirmed_mono) > CONFIRMED_BLOBS:
            self._confirmed_mono = {each: at for each, at in self._confirmed_mono.items() if now - at < CONFIRMED_S}

    def was_confirmed(self, digest: Digest, within_s: float) -> bool:
        return time.monotonic() - self._confirmed_mono.get(digest, float("-inf")) < within_s

    def has(self, digest: Digest) -> bool:
        """Whether a blob is kept that is about to be named: it is not swept before that is durable."""
        self.confirmed(digest)
        return digest not in self._deletions and self.blobs.size(digest) is not None

    def after_commit(self, callback: Callable[[], None]) -> None:
        self._journal.after_commit(callback)

    def begin_upload(self, digest: Digest, desk: "BlobDesk") -> bool:
        """Return True if nobody uploads this blob yet: then `desk` does."""
        if digest in self._uploads:
            return False
        self._uploads[digest] = []
        return True

    def wait_for_upload(self, digest: Digest, desk: "BlobDesk", size: int) -> None:
        self._uploads[digest].append((desk, size))

    def end_upload(self, digest: Digest, *, kept: bool) -> None:
        """The upload ended: tell those who wait, or let the next of them upload."""
        waiting = [(desk, size) for desk, size in self._uploads.pop(digest, []) if not desk.is_closed]
        if kept:
            for desk, _ in waiting:
                desk.kept_elsewhere(digest)
        elif waiting:
            (desk, size), *rest = waiting
            self._uploads[digest] = rest
            desk.upload(digest, size)

    def set_aside(self, digests: Iterable[Digest]) -> None:
        """Let the memory in which the system holds these files go to the next ones: no task will read them again."""
        if isinstance(self.blobs, LocalBlobs) and self._state.is_durable:
            for digest in digests:
                asyncio.get_running_loop().run_in_executor(None, self.blobs.set_aside, digest)

    def sweep(self, candidates: Iterable[Digest]) -> None:
        """Once all changes so far are durable, delete those of the blobs that no row refers to."""
        digests = list(candidates)
        if digests:
            self._journal.after_commit(lambda: self._delete_unreferenced(digests))

    def _delete_unreferenced(self, digests: list[Digest]) -> None:
        if self._is_closed:
            return
        for digest in self._state.unreferenced_blobs(digests):
            if self.was_confirmed(digest, CONFIRMED_S):
                self._look_again(digest)
            elif digest in self._uploads:
                continue
            elif self.is_local:
                self.blobs.delete(digest)
            elif digest not in self._deletions:
                deletion = asyncio.get_running_loop().run_in_executor(None, self.blobs.delete, digest)
                self._deletions[digest] = deletion
                deletion.add_done_callback(functools.partial(self._deletion_ended, digest))

    def _deletion_ended(self, digest: Digest, deletion: "asyncio.Future[None]") -> None:
        del self._deletions[digest]
        if not deletion.cancelled() and (error := deletion.exception()) is not None:
            _log.warning("a blob could not be deleted; it is tried again", digest=digest, error=str(error))
            asyncio.get_running_loop().call_later(DELETE_RETRY_S, self._delete_unreferenced, [digest])

    def _look_again(self, digest: Digest) -> None:
        if not self._doubtful:
            self._look_timer = asyncio.get_running_loop().call_later(CONFIRMED_S, self._delete_doubtful)
        self._doubtful.add(digest)

    def _delete_doubtful(self) -> None:
        digests, self._doubtful = list(self._doubtful), set()
        self._delete_unreferenced(digests)
