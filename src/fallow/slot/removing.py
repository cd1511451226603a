"""Removes what a task has left, whatever that is: unreadable folders, links, folders in folders by the thousand.

Folders are moved up before they are emptied. So nothing is called recursively, no path is too long, and few files are open. The
agent does so too, after a slot's end.
"""

import contextlib
import os
import shutil
import stat
from itertools import count

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


def remove_tree(folder: str) -> None:
    """Remove a folder as far as that can be done; links are removed, never followed."""
    if os.rename not in os.supports_dir_fd:
        with contextlib.suppress(RecursionError):
            shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        root = _open(folder)
        try:
            _empty(root)
        finally:
            os.close(root)
        os.rmdir(folder)


def _empty(root: int) -> None:
    places = (f"{os.urandom(8).hex()}-{number}" for number in count())
    left = os.listdir(root)
    while left:
        name = left.pop()
        with contextlib.suppress(OSError):
            if not _is_folder(name, root):
                os.unlink(name, dir_fd=root)
                continue
            handle = _open(name, root)
            try:
                for child in os.listdir(handle):
                    if not _is_folder(child, handle):
                        os.unlink(child, dir_fd=handle)
                        continue
                    os.close(_open(child, handle))  # who moves a folder must be allowed to write in it
                    place = next(places)
                    os.rename(child, place, src_dir_fd=handle, dst_dir_fd=root)
                    left.append(place)
            finally:
                os.close(handle)
            os.rmdir(name, dir_fd=root)


def _is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode)


def _open(name: str, parent: int | None = None) -> int:
    """Open a folder and allow all that its owner may be allowed."""
    try:
        handle = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        handle = os.open(name, _FOLDER, dir_fd=parent)
    with contextlib.suppress(OSError):
        os.fchmod(handle, stat.S_IRWXU)
    return handle
