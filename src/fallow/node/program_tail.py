"""The last words of a program whose slot was killed, from the files that its attempt has left (`fallow.slot.attempt`).

The task may have put links, pipes or another's files in their place: none of these is followed, waited for or read.
"""

import os
import stat
from itertools import islice
from pathlib import Path

from fallow.slot.program import SHOWN_LINES, TAIL_BYTES

ATTEMPTS = 64
"""Folders of attempts that are looked at; a slot leaves one."""
_HERE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FOLDER = _HERE | getattr(os, "O_DIRECTORY", 0)


def tail_of(slot_folder: Path) -> str:
    """Return the end of what the slot's program wrote to stderr, or to stdout if that is nothing; "" if it can't be had."""
    if os.open not in os.supports_dir_fd:
        return ""
    try:
        work = os.open(slot_folder / "work", _FOLDER)
    except OSError:
        return ""
    try:
        with os.scandir(work) as entries:
            names = [entry.name for entry in islice(entries, ATTEMPTS)]
        found = max((_read(work, name) for name in names), default=(0, ""))
    except OSError:
        return ""
    finally:
        os.close(work)
    return found[1]


def last_lines(text: str) -> str:
    """Return what of it goes into a message."""
    return "\n".join(text.splitlines()[-SHOWN_LINES:])


def _read(work: int, name: str) -> tuple[int, str]:
    """Return when an attempt wrote last, and what."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=work)
    except OSError:
        return 0, ""
    try:
        for stream in ("stderr", "stdout"):
            wrote_ns, text = _end_of(folder, stream)
            if text:
                return wrote_ns, text
        return 0, ""
    finally:
        os.close(folder)


def _end_of(folder: int, name: str) -> tuple[int, str]:
    try:
        with os.fdopen(os.open(name, _HERE, dir_fd=folder), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
                return 0, ""
            file.seek(max(0, facts.st_size - TAIL_BYTES))
            return facts.st_mtime_ns, file.read(TAIL_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return 0, ""
