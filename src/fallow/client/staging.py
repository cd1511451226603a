"""Blobs on their way to the hub: hashed, and written where a hub on this computer takes files over."""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from fallow.model.ids import Digest
from fallow.slot.pages import Piece, size_bytes

FILE_BYTES = 1 << 20
"""Blobs from this size on go through a file where the hub shares its filesystem."""


class Staged(NamedTuple):
    """A blob that can be offered."""

    digest: Digest
    source: bytes | Path

    @property
    def is_here(self) -> bool:
        """Whether it can be offered once more: the hub takes files away."""
        return not isinstance(self.source, Path) or self.source.exists()

    def remove(self) -> None:
        """Remove its file, if it has one that the hub has not taken."""
        if isinstance(self.source, Path):
            self.source.unlink(missing_ok=True)


def stage(pieces: Sequence[Piece], incoming: Path | None) -> Staged:
    """Make a blob of pieces. incoming: the folder of a hub on this computer, None for any other hub.

    One thread hashes while the other writes: both leave the interpreter to others meanwhile.
    """
    if incoming is None or size_bytes(pieces) < FILE_BYTES:
        return Staged(_digest(pieces), b"".join(pieces))
    with ThreadPoolExecutor(1, thread_name_prefix="fallow-hash") as beside:
        digest = beside.submit(_digest, pieces)
        path = _write(incoming, pieces)
    return Staged(digest.result(), path if path is not None else b"".join(pieces))


def _digest(pieces: Sequence[Piece]) -> Digest:
    hasher = blake3()
    for piece in pieces:
        hasher.update(piece)
    return Digest(hasher.hexdigest())


def _write(folder: Path, pieces: Sequence[Piece]) -> Path | None:
    """Write a file for the hub to take over; None if there is no room: the hub is asked first then, and says so."""
    path = None
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix="put-")
        path = Path(name)
        with os.fdopen(handle, "wb", buffering=0) as file:
            for piece in pieces:
                view = memoryview(piece).cast("B")
                while view:
                    view = view[file.write(view) :]
    except OSError:
        if path is not None:
            path.unlink(missing_ok=True)
        return None
    return path
