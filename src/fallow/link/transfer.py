"""Blobs over a link, in chunks of 256 KiB from any offset, behind everything that is more urgent."""

import asyncio
from pathlib import Path

from fallow.link.frames import BlobChunk
from fallow.link.link import Link
from fallow.model.ids import Digest

CHUNK_BYTES = 256 * 1024
"""Small enough that a grant waits for at most one chunk (2 ms at 1 Gbit/s), large enough to amortise a message."""


async def send_blob(link: Link, digest: Digest, source: Path | bytes, offset: int = 0) -> None:
    """Send a blob's bytes from `offset` on as BlobChunk frames, no faster than the link takes them."""
    if isinstance(source, bytes):
        await _send(link, digest, source, offset)
        return
    with source.open("rb") as file:  # local disk: a read is shorter than a hop to a thread
        size = source.stat().st_size
        file.seek(offset)
        while offset < size or size == 0:
            data = file.read(CHUNK_BYTES)
            await link.drained()
            link.send(BlobChunk(digest, offset, size, data), bulk=True)
            offset += len(data)
            if not data:
                return
            await asyncio.sleep(0)


async def _send(link: Link, digest: Digest, data: bytes, offset: int) -> None:
    size = len(data)
    while True:
        chunk = data[offset : offset + CHUNK_BYTES]
        await link.drained()
        link.send(BlobChunk(digest, offset, size, chunk), bulk=True)
        offset += len(chunk)
        if offset >= size:
            return
