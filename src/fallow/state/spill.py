"""Page bytes of one job that no longer fit in memory, in one temporary file without a name."""

import tempfile
import threading
from pathlib import Path
from typing import NamedTuple


class Spilled(NamedTuple):
    """Where the bytes of a page are in its job's spill file."""

    offset: int
    length: int


class SpillFile:
    """An append-only temporary file that the operating system removes when it is closed, or when this process dies."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115, closed when the job is deleted
        self._lock = threading.Lock()
        self._end = 0

    def append(self, data: bytes) -> Spilled:
        """Write `data` at the end; raises OSError (no space left), after which the file is as it was."""
        with self._lock:
            self._file.seek(self._end)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            place = Spilled(self._end, len(data))
            self._end += len(data)
            return place

    def read(self, place: Spilled) -> bytes | None:
        """Return the bytes at `place`, or None if the file was closed meanwhile."""
        with self._lock:
            if self._file.closed:
                return None
            self._file.seek(place.offset)
            return self._file.read(place.length)

    def close(self) -> None:
        with self._lock:
            self._file.close()
