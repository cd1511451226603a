"""Blobs between node and hub: fetches what tasks need, offers large results. One per agent; goes on over reconnects."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fallow.link.frames import (
    BlobAt,
    BlobChunk,
    BlobKept,
    BlobMissing,
    BlobOffer,
    BlobWanted,
    FilesShared,
    SharesFiles,
    Welcome,
)
from fallow.link.link import Link
from fallow.link.transfer import send_blob
from fallow.log import Logger
from fallow.model.errors import BadRequest, HubFull, Unavailable
from fallow.model.ids import Digest
from fallow.node.cache import BlobCache, BlobFile, digest_of, share
from fallow.node.off_loop import OffLoop

PROBE_BYTES = 4096
"""A hub's probe file is shorter than this."""

FULL_RETRY_S = 1.0
"""How long until a large result is offered again to a hub whose disk was full."""

STORE_RETRY_S = 5.0
"""How long until a hub that could not reach its own store of blobs is asked again."""

_log = Logger("fallow.node")


class NodeBlobs:
    """What is fetched, and what is offered."""

    def __init__(
        self,
        cache: BlobCache,
        off_loop: OffLoop,
        *,
        on_arrived: Callable[[Digest], None],
        on_missing: Callable[[Digest, str], None],
        on_kept: Callable[[Digest], None],
        on_lost: Callable[[Digest], None],
        is_result: Callable[[Digest], bool],
        is_input: Callable[[Digest], bool],
        is_checkpoint: Callable[[Digest], bool] = lambda _digest: False,
    ) -> None:
        """off_loop: runs a function in a thread. on_lost: a blob that was offered is not here any more. is_result:
        whether a result that names this blob is not delivered yet. is_input: whether a job held here reads it. is_checkpoint:
        whether it is a checkpoint that the hub should have.
        """
        self._is_result = is_result
        self._is_input = is_input
        self._is_checkpoint = is_checkpoint
        self._cache = cache
        self._off_loop = off_loop
        self._on_arrived = on_arrived
        self._on_missing = on_missing
        self._on_kept = on_kept
        self._on_lost = on_lost
        self._link: Link | None = None
        self._incoming: Path | None = None
        self._hands_out_in_place = False
        self._sole: set[Digest] = set()
        """Names, no digests, of results that the hub does not have yet."""
        self._fetching: dict[Digest, BlobFile | None] = {}
        self._taking: set[Digest] = set()
        self._offered: set[Digest] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, link: Link, welcome: Welcome) -> None:
        """A new link: prove shared files if they are, and go on with what was fetched."""
        self._link = link
        self._incoming = None
        self._offered.clear()
        if welcome.probe is not None:
            with contextlib.suppress(OSError, UnicodeDecodeError), Path(welcome.probe).open("rb") as file:
                link.send(SharesFiles(file.read(PROBE_BYTES).decode()))
        for digest in self._fetching:
            self._ask(digest)

    def disconnected(self) -> None:
        self._link = None
        for digest, file in self._fetching.items():
            if file is not None:
                file.close()
                self._fetching[digest] = None
        for task in self._tasks:
            task.cancel()

    close = disconnected

    def on_frame(self, frame: Any) -> bool:
        """Handle a frame about blobs; return False if it is none."""
        match frame:
            case BlobChunk():
                self._chunk(frame)
            case BlobAt():
                if frame.digest in self._fetching:
                    self._cache.remember(frame.digest, Path(frame.path))
                    self._arrived(frame.digest)
            case BlobMissing():
                if frame.digest in self._fetching and frame.code == Unavailable.code:
                    asyncio.get_running_loop().call_later(STORE_RETRY_S, self._ask_again, frame.digest)
                elif frame.digest in self._fetching:
                    self._drop(frame.digest)
                    self._on_missing(frame.digest, frame.reason)
                elif frame.digest in self._offered:
                    self._offered.discard(frame.digest)
                    if frame.code in {HubFull.code, Unavailable.code}:  # it stays here until the hub can take it
                        asyncio.get_running_loop().call_later(FULL_RETRY_S, self._offer_again, frame.digest)
                    else:
                        self._on_lost(frame.digest)
            case BlobWanted():
                path = self._cache.path(frame.digest)
                if path is None or self._link is None:
                    self._lost(frame.digest)
                else:
                    self._spawn(send_blob(self._link, frame.digest, path, frame.offset))
            case BlobKept():
                self._offered.discard(frame.digest)
                self._sole.discard(frame.digest)
                self._on_kept(frame.digest)
                # the hub's own file is as near, but a slot may have been told this one (equal bytes have one digest)
                if self._incoming is not None and not (self._is_result(frame.digest) or self._is_input(frame.digest)):
                    self._cache.drop(frame.digest)
            case FilesShared():
                self._incoming = Path(frame.incoming)
                self._hands_out_in_place = frame.in_place
            case _:
                return False
        return True

    # --- fetching ---

    def fetch(self, digest: Digest, *, own: bool = False) -> Path | None:
        """Return where a blob lies; if it is not here, ask for it and return None: on_arrived or on_missing follows.

        own: it has to be in the node's own cache, as a slot in a sandbox sees no files of the hub's.
        """
        path = self._cache.path(digest)
        if path is not None and own and not self._cache.has_own(digest):
            if digest not in self._taking:
                self._taking.add(digest)
                self._spawn(self._take_over(digest, path))
            return None
        if path is None and digest not in self._fetching:
            self._fetching[digest] = None
            self._ask(digest)
        return path

    async def _take_over(self, digest: Digest, path: Path) -> None:
        try:
            await self._off_loop(lambda: self._cache.take_over(path, digest))
        except FileNotFoundError:  # the hub has moved it since
            self._cache.forget(digest)
            self.fetch(digest)
        except OSError as error:
            self._on_missing(digest, f"it can't be stored on the node: {error}")
        else:
            self._cache.took_over(digest)
            self._on_arrived(digest)
        finally:
            self._taking.discard(digest)

    def _ask_again(self, digest: Digest) -> None:
        if digest in self._fetching:
            self._ask(digest)

    def _ask(self, digest: Digest) -> None:
        if self._link is None:
            return
        file = self._fetching[digest]
        if file is None:
            file = self._fetching[digest] = self._cache.begin(digest)
        self._link.send(BlobWanted(digest, file.offset))

    def _chunk(self, chunk: BlobChunk) -> None:
        digest = chunk.digest
        file = self._fetching.get(digest)
        if file is None:
            return
        try:
            file.write(chunk.offset, chunk.data)
            if file.offset >= chunk.size:
                self._cache.finish(digest, file)
                self._arrived(digest)
        except BadRequest as error:
            _log.warning("blob refused", error=str(error))
            file.close()
            self._fetching[digest] = None
            self._ask(digest)
        except OSError as error:
            self._drop(digest)
            self._on_missing(digest, f"it can't be stored on the node: {error}")

    def _arrived(self, digest: Digest) -> None:
        self._drop(digest)
        self._on_arrived(digest)

    def _drop(self, digest: Digest) -> None:
        file = self._fetching.pop(digest, None)
        if file is not None:
            file.close()

    # --- offering ---

    def offer(self, digest: Digest) -> None:
        """Ask the hub to keep a blob of the cache; on_kept or on_lost follows."""
        if digest not in self._offered and self._link is not None:
            self._offered.add(digest)
            self._spawn(self._hand_over(digest, self._link))

    def offers_refused(self) -> None:
        """The hub has no room: what it has not kept may be offered again later."""
        self._offered.clear()

    def _offer_again(self, digest: Digest) -> None:
        if self._is_result(digest) or self._is_checkpoint(digest):
            self.offer(digest)

    async def _hand_over(self, digest: Digest, link: Link) -> None:
        path, is_spare = self._cache.path(digest), not self._is_result(digest)
        if is_spare and not self._is_checkpoint(digest):
            self._offered.discard(digest)  # its task has ended since
            return
        try:
            if (
                path is None or not path.exists()
            ):  # the hub took it before the link broke, or it is lost: the answer tells
                link.send(BlobOffer(digest, 0))
                return
            size, is_sole = path.stat().st_size, digest in self._sole
            if self._incoming is not None and self._hands_out_in_place:
                link.send(BlobOffer(digest, size, str(path), is_spare=is_spare, is_sole=is_sole))
                return
            if self._incoming is not None:
                place = self._incoming / digest
                try:
                    await self._off_loop(lambda: share(path, place))
                except OSError:  # no room there: the hub is asked first, and says when there is some
                    link.send(BlobOffer(digest, size, is_spare=is_spare))
                    return
                link.send(BlobOffer(digest, size, str(place), is_spare=is_spare))
                return
            link.send(BlobOffer(digest, size, is_spare=is_spare))
        except OSError as error:
            _log.warning("a large result can't be delivered", digest=digest, error=str(error))
            self._lost(digest)

    def _lost(self, digest: Digest) -> None:
        self._offered.discard(digest)
        if self._link is not None:
            self._link.send(BlobMissing(digest, "the node does not have it any more"))
        self._on_lost(digest)

    async def keep_result(self, path: Path) -> Digest:
        """Keep a file that was claimed from a slot under its digest; raises OSError."""
        digest: Digest = await self._off_loop(lambda: digest_of(path))
        self._cache.adopt(path, digest)
        return digest

    def name_result(self, path: Path) -> Digest:
        """Keep a file that was claimed from a slot under a name that no other blob has; raises OSError."""
        name = Digest(secrets.token_hex(32))
        self._cache.adopt(path, name)
        self._sole.add(name)
        return name

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
