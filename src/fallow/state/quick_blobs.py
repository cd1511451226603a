"""Blobs in a folder that lies in memory, while that has room: for a grid whose state ends with its process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from fallow.model.ids import Digest
from fallow.state.blobs import BlobWriter, LocalBlobs

KEPT_FREE = 0.5
"""Part of the memory filesystem that is left to others."""


class QuickBlobs(LocalBlobs):
    """As `LocalBlobs`; what finds no room goes to `roomy`. Nothing of it outlives the process, so nothing is synced."""

    def __init__(self, folder: Path, roomy: LocalBlobs) -> None:
        super().__init__(folder, durable=False, trusting=roomy.is_trusting)
        self._roomy = roomy

    @property
    def incoming_results(self) -> Path:
        return self._roomy.incoming  # nodes write on disk: a second name costs nothing there, a copy into memory would

    def keep_bytes(self, data: bytes) -> Digest:
        return super().keep_bytes(data) if self._fits(len(data)) else self._roomy.keep_bytes(data)

    def writer(self, digest: Digest, size: int) -> BlobWriter:
        return super().writer(digest, size) if self._fits(size) else self._roomy.writer(digest, size)

    def adopt(self, path: Path, digest: Digest) -> None:
        if path.parent.resolve() == self.incoming_results.resolve():
            self._roomy.adopt(path, digest)
        else:
            super().adopt(path, digest)

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
        usage = shutil.disk_usage(self._folder)
        return usage.free - size > usage.total * KEPT_FREE
