"""Blobs in a folder that lies in memory, while that has room: for a grid whose state ends with its process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from fallow.model.ids import Digest
from fallow.slot.room import has_room
from fallow.state.blobs import BlobWriter, LocalBlobs


class QuickBlobs(LocalBlobs):
    """As `LocalBlobs`; what finds no room goes to `roomy`. Nothing of it outlives the process, so nothing is synced."""

    def __init__(self, memory_folder: Path, roomy: LocalBlobs) -> None:
        """memory_folder: this grid's own; what its node has put into it stays there."""
        super().__init__(memory_folder / "blobs", durable=False, trusting=roomy.is_trusting)
        self._memory_folder = memory_folder
        self._roomy = roomy

    def keep_bytes(self, data: bytes) -> Digest:
        return super().keep_bytes(data) if self._fits(len(data)) else self._roomy.keep_bytes(data)

    def writer(self, digest: Digest, size: int) -> BlobWriter:
        return super().writer(digest, size) if self._fits(size) else self._roomy.writer(digest, size)

    def adopt(self, path: Path, digest: Digest) -> None:
        if path.is_relative_to(self._memory_folder) or not self.is_trusting:
            super().adopt(path, digest)
        else:  # it lies on the disk, where a second name costs nothing
            self._roomy.adopt(path, digest)

    def publish(self, digest: Digest, fill: Callable[[Path], object], *, check: bool = False) -> None:
        if self._fits(0):
            super().publish(digest, fill, check=check)
            return

        def carry(private: Path) -> None:
            own = self._partial / private.name
            self._make(self._partial)
            try:
                fill(own)
                shutil.move(own, private)
            finally:
                own.unlink(missing_ok=True)

        self._roomy.publish(digest, carry, check=check)

    def delete(self, digest: Digest) -> None:
        super().delete(digest)
        self._roomy.delete(digest)

    def sweep_partials(self, older_than_s: float) -> None:
        super().sweep_partials(older_than_s)
        self._roomy.sweep_partials(older_than_s)

    def stored(self, older_than_s: float) -> Iterator[list[Digest]]:
        yield from super().stored(older_than_s)
        yield from self._roomy.stored(older_than_s)

    def free_bytes(self) -> int:
        return self._roomy.free_bytes()

    def local_bytes(self) -> int:
        return super().local_bytes() + self._roomy.local_bytes()

    def _place(self, digest: Digest) -> Path:
        place = super()._place(digest)
        if place.exists():
            return place
        return self._roomy.path(digest) or place

    def _fits(self, size: int) -> bool:
        self._make(self._folder)
        return has_room(str(self._folder), size)
