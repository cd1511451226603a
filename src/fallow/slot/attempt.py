"""The folder of one attempt: made fresh, filled with input files, emptied at the end whatever the program did there.

    work/<number>/files     the program's working folder; it may be one that an earlier attempt has left, emptied
    work/<number>/tmp       its $TMPDIR
    work/<number>/stdout    what it wrote; also stdin and stderr

Large inputs are links to the node's cache, whose files are read-only: they are never copied for a task. An executable needs
permissions of its own and a disk that programs may be started from, so it is copied, once for each slot.
"""

import base64
import contextlib
import errno
import itertools
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fallow.slot import strays, task
from fallow.slot.removing import remove_tree

TOO_LONG = errno.E2BIG
AGE_NS = 1_000_000_000
"""Inputs that are written here are so much older than they are: a program that overwrites one with as many bytes does so perhaps within
the same tick of the kernel's clock (4 ms), and its output would be taken for the input.
"""
_numbers = itertools.count(1)
_copies: dict[str, tuple[str, tuple[int, ...]]] = {}
"""Executables in this slot, by digest: path, and how it looked."""


FOLDERS = ("files", "tmp")
_spare: dict[str, str] = {}
"""A folder that is empty again, by slot's folder. On a busy disk removing one takes longer than most of the rest."""


class BadFile(Exception):
    """A name or a file that a program may not have."""


def inside(path: str) -> str:
    """Return a path or pattern; raises BadFile if it leaves the working folder."""
    parts = path.removesuffix("/").split("/")
    is_absolute = not parts[0] or ":" in parts[0]
    if ".." in parts or is_absolute or "\\" in path or "\0" in path or any(part in {"", "."} for part in parts):
        raise BadFile(f"{path!r} lies outside of the task's working folder")
    return path


class Attempt:
    """One attempt's folder; use it in a `with` block."""

    def __init__(self, slot_folder: str) -> None:
        self._copies_folder = os.path.join(slot_folder, "executables")
        self._slot_folder = slot_folder
        self._folder = _spare.pop(slot_folder, "") or _make(slot_folder)
        self.files = os.path.join(self._folder, "files")
        self._temporary = os.path.join(self._folder, "tmp")
        self._stdin = os.path.join(self._folder, "stdin")
        self.stdout = os.path.join(self._folder, "stdout")
        self.stderr = os.path.join(self._folder, "stderr")
        self._stdin_path: str | None = None
        self.inputs: dict[str, tuple[int, int]] = {}
        """What was written into the folder before the program began: size and time of change, by name."""

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if strays.are_ended() and _empty(self._folder):
                _spare[self._slot_folder] = self._folder
                return
        remove_tree(self._folder)

    # --- inputs ---

    def put(self, file: Mapping[str, Any], paths: Mapping[str, str]) -> None:
        """Lay out one input file; raises OSError."""
        name = inside(file["path"])
        place = os.path.join(self.files, *name.split("/"))
        if "/" in name:
            os.makedirs(os.path.dirname(place), exist_ok=True)
        digest, is_executable = file.get("digest"), bool(file.get("executable"))
        if digest is None:
            mode = 0o755 if is_executable else 0o644
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
            with os.fdopen(handle, "wb", buffering=0) as target:
                _write(target, base64.b64decode(file["data"]))
            written_ns = time.time_ns() - AGE_NS
            os.utime(place, ns=(written_ns, written_ns))
        elif is_executable:
            _link(self._copy(digest, paths), place)
        else:
            _link(paths[digest], place)
        facts = os.lstat(place)
        self.inputs[name] = (facts.st_size, facts.st_mtime_ns)

    def put_executable(self, file: Mapping[str, Any], paths: Mapping[str, str]) -> str:
        """Lay out the program's executable; return the word with which it is called."""
        self.put({**file, "executable": True}, paths)
        return os.path.join(".", file["path"])

    def _copy(self, digest: str, paths: Mapping[str, str]) -> str:
        known = _copies.get(digest)
        if known is not None and _look(known[0]) == known[1]:
            return known[0]
        os.makedirs(self._copies_folder, exist_ok=True)
        place = os.path.join(self._copies_folder, digest)
        with contextlib.suppress(FileNotFoundError):  # a program has changed it
            os.unlink(place)
        shutil.copyfile(paths[digest], place)
        os.chmod(place, 0o555)  # noqa: S103 -- it is to be run
        _copies[digest] = (place, _look(place))
        return place

    # --- streams ---

    def give_stdin(self, text: str) -> None:
        with open(self._stdin, "wb") as file:
            file.write(text.encode())
        self._stdin_path = self._stdin

    def take_stdin(self, name: str) -> None:
        """Let a file of the working folder be the standard input."""
        place = os.path.join(self.files, *inside(name).split("/"))
        if not os.path.isfile(place):
            raise BadFile(f"stdin_file: there is no file {name!r} among the inputs")
        self._stdin_path = place

    @contextlib.contextmanager
    def streams(self) -> Iterator[list[int]]:
        """Open the program's standard streams, for as long as it takes to start it."""
        binary, fresh = getattr(os, "O_BINARY", 0), os.O_WRONLY | os.O_CREAT | os.O_EXCL
        opened: list[int] = []
        try:
            opened.append(os.open(self._stdin_path or os.devnull, os.O_RDONLY | binary))
            opened += [os.open(path, fresh | binary, 0o600) for path in (self.stdout, self.stderr)]
            yield opened
        finally:
            for handle in opened:
                os.close(handle)

    def tail(self, limit_bytes: int) -> str:
        """Return the end of what the program wrote to stderr, or to stdout if that is nothing."""
        for path in (self.stderr, self.stdout):
            try:
                with open(path, "rb") as file:
                    file.seek(max(0, file.seek(0, 2) - limit_bytes))
                    text = file.read(limit_bytes).decode("utf-8", "replace").strip()
            except OSError:
                continue
            if text:
                return text
        return ""

    # --- the process ---

    def find(self, word: str) -> str:
        """Return the program that a command's first word means: one of the working folder, else one of the path."""
        if os.path.isabs(word):
            return word
        place = os.path.join(self.files, *word.replace("\\", "/").split("/"))
        if os.path.isfile(place) and (os.sep in word or "/" in word or os.access(place, os.X_OK)):
            return place
        return (shutil.which(word) or word) if sys.platform == "win32" else word

    def environment(self, more: Mapping[str, str], index: int) -> dict[str, str]:
        """Return the program's environment: the slot's, with its interpreter first on the path, a temporary folder of its own,
        and what the job adds.
        """
        own = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._temporary)
        own["PATH"] = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
        return {**os.environ, **own, "FALLOW_INDEX": str(index), **task.variables(), **more}


def _make(slot_folder: str) -> str:
    folder = os.path.join(slot_folder, "work", str(next(_numbers)))
    for name in FOLDERS:
        os.makedirs(os.path.join(folder, name))
    return folder


def _empty(folder: str) -> bool:
    """Remove all that is in an attempt's folder; return whether it is as good as a fresh one."""
    for name in FOLDERS:
        _remove_in(os.path.join(folder, name), ())
    _remove_in(folder, FOLDERS)
    places = [folder, *(os.path.join(folder, name) for name in FOLDERS)]
    return all(_is_usable(place) for place in places) and sorted(os.listdir(folder)) == list(FOLDERS)


def _remove_in(place: str, kept: tuple[str, ...]) -> None:
    with os.scandir(place) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif entry.name not in kept:
                remove_tree(entry.path)


def _is_usable(place: str) -> bool:
    mode = os.lstat(place).st_mode
    return stat.S_ISDIR(mode) and mode & stat.S_IRWXU == stat.S_IRWXU


def _link(source: str, place: str) -> None:
    try:
        os.symlink(source, place)
    except (OSError, NotImplementedError):  # Windows lets only some users make them
        try:
            os.link(source, place)
        except OSError:
            shutil.copyfile(source, place)


def _look(path: str) -> tuple[int, ...]:
    try:
        facts = os.lstat(path)
    except OSError:
        return ()
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_mode)


def _write(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
