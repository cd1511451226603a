"""Whether any of some files may have changed, as the kernel tells it: to ask takes a microsecond, however many there are.

Linux tells (inotify) of what goes on in this computer's own filesystems. So a file is watched only where it lies on one that is known, and its
path has no symbolic links; the folders above it are watched for being moved. All else is left to be looked at, as `Watch.others`: on other
systems everything. Nothing tells of what is mounted over a path, or written through a mapping that is still open: whoever asks looks at
everything now and then.
"""

import contextlib
import os
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

MAX_WATCHED = 2048
"""Files and folders: a quarter of what older kernels allow all programs of a user."""

if sys.platform == "linux":
    import select

    # Names and values are those of linux/inotify.h and linux/magic.h.
    MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
    DELETE_SELF, MOVE_SELF, ONLYDIR, DONT_FOLLOW, MASK_ADD, ONESHOT = 0x400, 0x800, 1 << 24, 1 << 25, 1 << 29, 1 << 31
    ABOVE = DELETE_SELF | MOVE_SELF | ONLYDIR
    FOLDER = ABOVE | MOVED_FROM | MOVED_TO | CREATE | DELETE
    FILE = DELETE_SELF | MOVE_SELF | MODIFY | ATTRIB | CLOSE_WRITE
    EXT, XFS, BTRFS, F2FS, ZFS, TMPFS = 0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0x01021994
    LOCAL = {EXT, XFS, BTRFS, F2FS, ZFS, TMPFS}

    class Watch:
        """Watches files and folders. For one thread at a time."""

        def __init__(self) -> None:
            self.others: list[str] = []
            """Of those that were given, what has to be looked at as nothing would tell of it."""
            self._descriptor = -1
            self._pid = 0

        def is_quiet(self) -> bool:
            """Whether nothing was told since `watch`. In a forked child never, at first: its parent takes what is told."""
            return self._pid == os.getpid() and not self._poll(0)

        def watch(self, paths: Sequence[str]) -> None:
            """Watch these, as they are now, and forget what was told; to be called before they are looked at."""
            if self._pid != os.getpid():
                self.close()
                self._open()
            if self._descriptor < 0:
                self.others = list(paths)
                return
            with contextlib.suppress(OSError):  # there is no more
                while os.read(self._descriptor, 1 << 16):
                    pass

            @cache
            def is_fixed(folder: str) -> bool:
                above = os.path.dirname(folder)  # noqa: PTH120 -- as it is written: what `..` leaves out is on the way, too
                return (above == folder or is_fixed(above)) and self._add(folder, ABOVE)

            self.others = [
                path
                for at, path in enumerate(paths)
                if at >= MAX_WATCHED
                or not is_fixed(os.path.dirname(path))  # noqa: PTH120
                or not self._is_local(path)
                or not (self._add(path, FOLDER) or (self._add(path, FILE) and not os.path.islink(path)))  # noqa: PTH114
            ]

        def close(self) -> None:
            """Let go of the kernel's watches; another `watch` begins anew."""
            self._pid = 0
            if self._descriptor >= 0:
                self._descriptor = -1
                self._finalizer()

        def _open(self) -> None:
            self._pid = os.getpid()
            poll = select.poll()
            self._poll = poll.poll
            try:
                import ctypes  # takes some milliseconds, and many programs never need it

                self._libc: Any = ctypes.CDLL(None)
                descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            except (ImportError, OSError, AttributeError):  # Pythons are built without it, too
                return
            if descriptor >= 0:  # else there are too many
                self._status = (ctypes.c_long * 64)()  # larger than a struct statfs, which begins with the type
                self._descriptor = descriptor
                self._finalizer = weakref.finalize(self, os.close, descriptor)
                self._finalizer.atexit = False
                poll.register(descriptor, select.POLLIN)

        def _add(self, path: str, mask: int) -> bool:
            mask |= DONT_FOLLOW | MASK_ADD | ONESHOT  # told once is enough
            return bool(self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask) >= 0)

        def _is_local(self, path: str) -> bool:
            return self._libc.statfs(os.fsencode(path), self._status) == 0 and self._status[0] & 0xFFFFFFFF in LOCAL

else:

    class Watch:
        """Watches nothing, as this system is not known to tell."""

        def __init__(self) -> None:
            self.others: list[str] = []

        def is_quiet(self) -> bool:
            return True

        def watch(self, paths: Sequence[str]) -> None:
            self.others = list(paths)

        def close(self) -> None:
            pass
