"""Blobs in and out over one link: offers, uploads, downloads, and files shared on one machine."""

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fallow.link.frames import (
    BlobAt,
    BlobChunk,
    BlobKept,
    BlobMissing,
    BlobOffer,
    BlobWanted,
    FilesShared,
    Refused,
    SharesFiles,
)
from fallow.link.link import Link
from fallow.link.transfer import send_blob
from fallow.model.errors import FallowError, HubFull, TooLarge, Unavailable
from fallow.model.ids import Digest
from fallow.model.lease import MAX_CHECKPOINT_BYTES

if TYPE_CHECKING:
    from fallow.hub.core.blob_house import BlobHouse
    from fallow.state.blobs import BlobWriter

MAX_BLOB_BYTES = 64 << 30
"""Largest blob that a link may offer."""


class BlobDesk:
    """One per link. Several links may offer the same blob at once: the first uploads, the others wait for it."""

    def __init__(
        self, house: "BlobHouse", link: Link, on_held: Callable[[Digest], None], *, is_submitting: bool
    ) -> None:
        """on_held: called when a blob that the sender wants held is kept (`BlobOffer.hold`).

        is_submitting: whether the blobs are new work, which must leave the reserve; results of accepted work use it.
        """
        self._is_submitting = is_submitting
        self._house = house
        self._link = link
        self._on_held = on_held
        self._writers: dict[Digest, BlobWriter] = {}
        self._held: set[Digest] = set()
        self._sole: set[Digest] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.shares_files = False
        self.is_closed = False

    def on_frame(self, frame: object) -> bool:
        """Handle a blob frame; return False if it is none."""
        match frame:
            case BlobOffer():
                if self._house.is_local:
                    self._offered(frame)
                else:
                    self._spawn(self._look_up(frame))
            case BlobChunk():
                self._chunk(frame)
            case BlobWanted():
                if self._house.is_local:
                    self._hand_out(frame, self._house.blobs.path(frame.digest))
                else:
                    self._spawn(self._fetch(frame))
            case BlobMissing():
                self._abandon(frame.digest)
            case SharesFiles():
                if hmac.compare_digest(frame.proof.encode(), self._house.proof.encode()):
                    self.shares_files = True
                    in_place = self._house.takes_in_place and not self._is_submitting
                    self._link.send(FilesShared(str(self._house.blobs.incoming), in_place))
            case _:
                return False
        return True

    def close(self) -> None:
        """The link is gone: let others go on with what it was uploading."""
        self.is_closed = True
        self._on_held = _nobody  # it holds the shell that holds this
        for digest in list(self._writers):
            self._abandon(digest)
        for task in self._tasks:
            task.cancel()

    async def _look_up(self, offer: BlobOffer) -> None:
        try:
            is_kept = await self._house.is_kept(offer.digest)
        except FallowError as error:
            self._refuse(offer.digest, error)
        else:
            self._offered(offer, is_kept=is_kept)

    def _offered(self, offer: BlobOffer, *, is_kept: bool | None = None) -> None:
        """is_kept: what the store has answered; None to ask it, as it is local."""
        if offer.hold:
            self._held.add(offer.digest)
        if offer.is_sole:
            self._sole.add(offer.digest)
        try:
            if self._house.blobs.size(offer.digest) is not None if is_kept is None else is_kept:
                self._kept(offer.digest)
            else:
                self._take(offer)
        except (FallowError, OSError) as error:
            self._refuse(offer.digest, error)

    def _take(self, offer: BlobOffer) -> None:
        digest = offer.digest
        if not 0 <= offer.size <= MAX_BLOB_BYTES:
            raise TooLarge(
                f"a blob of {offer.size} bytes is over the limit of {MAX_BLOB_BYTES} bytes; send it in several parts"
            )
        if offer.is_spare and offer.size > MAX_CHECKPOINT_BYTES:
            raise TooLarge(f"a checkpoint of {offer.size} bytes is over the limit of {MAX_CHECKPOINT_BYTES} bytes")
        is_here = offer.path is not None and self.shares_files
        is_submission = self._is_submitting or offer.is_spare
        if not self._house.has_room(offer.size, is_submission=is_submission, is_here=is_here):
            raise HubFull(f"no room for a blob of {offer.size} bytes; accepted work is safe, try again later")
        if offer.path is not None and self.shares_files:
            self._spawn(self._adopt(digest, Path(offer.path)))
        elif self._house.begin_upload(digest, self):
            self.upload(digest, offer.size)
        else:
            self._house.wait_for_upload(digest, self, offer.size)

    def upload(self, digest: Digest, size: int) -> None:
        """Ask the other end for the blob, from where an earlier upload broke off."""
        try:
            writer = self._writers[digest] = self._house.blobs.writer(digest, size)
        except (FallowError, OSError) as error:
            self._house.end_upload(digest, kept=False)
            self._refuse(digest, error)
            return
        if writer.offset >= size:
            self._spawn(self._finish(digest))
        else:
            self._link.send(BlobWanted(digest, writer.offset))

    def kept_elsewhere(self, digest: Digest) -> None:
        """Another link has uploaded what this one offered."""
        self._kept(digest)

    def _chunk(self, chunk: BlobChunk) -> None:
        writer = self._writers.get(chunk.digest)
        if writer is None or writer.offset >= writer.size:
            return  # refused or abandoned meanwhile, or a repeated frame of what is complete
        try:
            writer.write(chunk.offset, chunk.data)
        except (FallowError, OSError) as error:
            self._abandon(chunk.digest)
            self._refuse(chunk.digest, error)
            return
        if writer.offset >= writer.size:
            self._spawn(self._finish(chunk.digest))

    async def _finish(self, digest: Digest) -> None:
        writer = self._writers.pop(digest)
        try:
            await self._house.off_loop(writer.finish)
        except (FallowError, OSError) as error:
            self._house.end_upload(digest, kept=False)
            self._refuse(digest, error)
            return
        self._kept(digest)
        self._house.end_upload(digest, kept=True)

    async def _adopt(self, digest: Digest, path: Path) -> None:
        try:
            await self._house.off_loop(lambda: self._house.blobs.adopt(path, digest))
        except (FallowError, OSError) as error:
            self._refuse(digest, error)
            return
        self._kept(digest)

    def _kept(self, digest: Digest) -> None:
        if digest in self._sole:  # nobody else waits to name it
            self._sole.discard(digest)
        else:
            self._house.confirmed(digest)
        if digest in self._held:
            self._held.discard(digest)
            self._on_held(digest)
            self._house.after_commit(lambda: self._link.send(BlobKept(digest)))
        else:
            self._link.send(BlobKept(digest))

    async def _fetch(self, wanted: BlobWanted) -> None:
        try:
            path = await self._house.off_loop(lambda: self._house.blobs.path(wanted.digest))
        except (FallowError, OSError) as error:
            code = error.code if isinstance(error, FallowError) else Unavailable.code
            self._link.send(BlobMissing(wanted.digest, str(error), code))
        else:
            self._hand_out(wanted, path)

    def _hand_out(self, wanted: BlobWanted, path: Path | None) -> None:
        if path is None:
            self._link.send(BlobMissing(wanted.digest, "the hub does not have it"))
        elif self.shares_files:
            self._link.send(BlobAt(wanted.digest, str(path)))
        else:
            self._spawn(send_blob(self._link, wanted.digest, path, wanted.offset))

    def _abandon(self, digest: Digest) -> None:
        if self._writers.pop(digest, None) is not None:
            self._house.end_upload(digest, kept=False)

    def _refuse(self, digest: Digest, error: Exception) -> None:
        code = error.code if isinstance(error, FallowError) else HubFull.code
        self._held.discard(digest)
        self._sole.discard(digest)
        self._link.send(BlobMissing(digest, str(error), code))
        self._link.send(Refused(code, f"blob {digest[:12]}…: {error}"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nobody(_digest: Digest) -> None:
    """Stands in for who asked to be told of held blobs and has gone."""
