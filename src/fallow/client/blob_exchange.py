"""Blobs between this client and the hub: offered and kept, wanted and fetched; repeated after a broken connection.

Runs on the event loop's thread, for the session, which has the link.
"""

import asyncio
import shutil
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
from fallow.model.errors import BY_CODE, FallowError, HubFull
from fallow.model.ids import Digest

FULL_RETRY_S = 1.0
"""How long to wait before a page is sent again to a hub whose disk was full."""


class _Memory:
    """Holds a blob that comes in."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def size(self) -> int:
        return len(self._data)

    def write(self, data: bytes) -> None:
        self._data += data

    def content(self) -> bytes:
        return bytes(self._data)


class _File:
    """Puts a blob that comes in into a file, behind what an earlier attempt has left there."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self.size = self._file.tell()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)

    def content(self) -> bytes:
        return b""

    def close(self) -> None:
        self._file.close()


_Sink = _Memory | _File


class BlobExchange:
    """One for each session."""

    def __init__(self, send: Callable[[Any], None], spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """send: does nothing while there is no connection."""
        self._send = send
        self._spawn = spawn
        self._uploads: dict[Digest, tuple[bytes | Path, int, asyncio.Future[None], bool]] = {}
        self._kept: set[Digest] = set()
        self._downloads: dict[Digest, tuple[_Sink, asyncio.Future[bytes | Path]]] = {}
        self.incoming: Path | None = None
        """The hub's folder for blobs of those who share its filesystem; None if this client does not."""

    # --- connections ---

    def came(self, welcome: Welcome) -> None:
        """The hub is connected: show it that its files can be read here, if they can."""
        if welcome.probe is None:
            return
        try:
            proof = Path(welcome.probe).read_text()
        except (OSError, UnicodeDecodeError):
            return  # another machine, or another user
        self._send(SharesFiles(proof))

    def went(self) -> None:
        """The connection is lost."""
        self.incoming = None

    def repeat_offers(self) -> None:
        """Offer again what the hub has not confirmed; what it confirmed, another hub process may not keep."""
        self._kept.clear()
        for digest, (source, size, _, hold) in self._uploads.items():
            self._offer(digest, source, size, hold)

    def repeat_wishes(self) -> None:
        """Ask for the rest of what has not come whole."""
        for digest, (data, _) in self._downloads.items():
            self._send(BlobWanted(digest, data.size))

    def waiting(self) -> list[asyncio.Future[Any]]:
        """Return what is waited for."""
        uploads: list[asyncio.Future[Any]] = [upload[2] for upload in self._uploads.values()]
        return uploads + [future for _, future in self._downloads.values()]

    # --- what the client asks for ---

    async def keep(self, digest: Digest, source: bytes | Path, *, hold: bool = True) -> None:
        """Return once the hub keeps this blob, on behalf of this session if `hold`; raises HubFull, TooLarge."""
        if digest in self._kept:
            return
        known = self._uploads.get(digest)
        if known is not None:
            await asyncio.shield(known[2])
            return
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._uploads[digest] = (source, size, future, hold)
        self._offer(digest, source, size, hold)
        await asyncio.shield(future)

    async def keep_page(self, digest: Digest, source: bytes | Path) -> None:
        """Return once the hub keeps the blob of a page; of a job that it accepted, so it is offered until there is room."""
        while True:
            try:
                return await self.keep(digest, source, hold=False)
            except HubFull:
                await asyncio.sleep(FULL_RETRY_S)

    def _offer(self, digest: Digest, source: bytes | Path, size: int, hold: bool) -> None:
        is_shared = isinstance(source, Path) and source.parent == self.incoming
        self._send(BlobOffer(digest, size, str(source) if is_shared else None, hold))

    async def fetch(self, digest: Digest) -> bytes | Path:
        """Return a blob's bytes, or the file that it lies in if the hub shares its files. Raises NotFound."""
        known = self._downloads.get(digest)
        if known is None:
            known = self._downloads[digest] = (_Memory(), asyncio.get_running_loop().create_future())
            self._send(BlobWanted(digest, 0))
        return await asyncio.shield(known[1])

    async def fetch_to(self, digest: Digest, place: Path) -> None:
        """Write a blob into a file, going on behind what is there of it. Raises NotFound, OSError; does not check the digest."""
        while (busy := self._downloads.get(digest)) is not None:  # somebody else fetches it
            await asyncio.wait([busy[1]])
        sink = _File(place)
        future: asyncio.Future[bytes | Path] = asyncio.get_running_loop().create_future()
        self._downloads[digest] = (sink, future)
        self._send(BlobWanted(digest, sink.size))
        try:
            found = await future
        finally:
            sink.close()
        if isinstance(found, Path):
            await asyncio.to_thread(shutil.copyfile, found, place)

    # --- frames ---

    def on_frame(self, frame: Any, link: Link | None) -> None:
        """Handle a frame about blobs."""
        match frame:
            case BlobKept():
                upload = self._uploads.pop(frame.digest, None)
                if upload is not None:
                    if upload[3]:  # held for this session; others go with the job that they were for
                        self._kept.add(frame.digest)
                    if not upload[2].done():
                        upload[2].set_result(None)
            case BlobWanted():
                upload = self._uploads.get(frame.digest)
                if upload is not None and link is not None:
                    self._spawn(send_blob(link, frame.digest, upload[0], frame.offset))
            case BlobChunk():
                self._chunk(frame)
            case BlobAt():
                self._downloaded(frame.digest, Path(frame.path))
            case BlobMissing():
                self._missing(frame)
            case FilesShared():
                self.incoming = Path(frame.incoming)

    def _chunk(self, chunk: BlobChunk) -> None:
        download = self._downloads.get(chunk.digest)
        if download is None or chunk.offset != download[0].size:
            return  # repeated after a reconnect
        try:
            download[0].write(chunk.data)
        except OSError as error:  # the disk is full
            del self._downloads[chunk.digest]
            if not download[1].done():
                download[1].set_exception(error)
            return
        if download[0].size >= chunk.size:
            self._downloaded(chunk.digest, download[0].content())

    def _downloaded(self, digest: Digest, content: bytes | Path) -> None:
        download = self._downloads.pop(digest, None)
        if download is not None and not download[1].done():
            download[1].set_result(content)

    def _missing(self, frame: BlobMissing) -> None:
        kind = BY_CODE.get(frame.code, FallowError)
        error = kind(f"blob {frame.digest[:12]}…: {frame.reason or 'the hub does not have it'}")
        download = self._downloads.pop(frame.digest, None)
        if download is not None and not download[1].done():
            download[1].set_exception(error)
        upload = self._uploads.pop(frame.digest, None)
        if upload is not None and not upload[2].done():
            upload[2].set_exception(error)
