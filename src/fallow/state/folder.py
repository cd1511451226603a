"""The state folder: made private, and held by one process at a time through a lock of the operating system."""

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from fallow.model.errors import StateError, StateInUse

LOCK_NAME = "lock"


class StateFolder:
    """A folder that this process holds from `open` to `close`. The lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    def open(self) -> None:
        """Make the folder if need be and lock it; no effect if it is held already.

        Raises StateInUse, naming the holder, if another process has it, StateError if it can't be made or written.
        """
        if self._lock is not None:
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = (self.path / LOCK_NAME).open("a+b", buffering=0)
        except OSError as error:
            raise StateError(f"can't use the state folder {self.path}: {error.strerror or error}") from error
        if not _try_lock(file):
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip()
            file.close()
            raise StateInUse(
                f"the state folder {self.path} is in use by process {holder or 'unknown'}: stop that one, or choose another folder"
            )
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        self._lock = file

    def close(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.truncate(0)
            self._lock.close()
            self._lock = None


def sync_folder(path: Path) -> None:
    """Make names that were just put into a folder durable. Windows does so by itself and can't open folders."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        file.seek(1 << 20)  # beyond the pid, which others may then read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        # flock, not lockf: it also keeps two states of one process apart.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
