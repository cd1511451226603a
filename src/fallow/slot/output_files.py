"""What a program left in its folder: found by name and pattern, small files put into the result, large ones beside it."""

import base64
import itertools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from fallow.slot.attempt import Attempt, BadFile

INLINE_BYTES = 64 * 1024
"""Files up to this size travel inside the result, so that thousands of them are one write at the hub."""
MAX_INLINE_BYTES = 64 << 20
"""… but no more than so many bytes of them for one task."""
MAX_OUTPUTS = 9_000
"""Output files of one task: a page of results names up to 10,000."""
MAX_DEPTH = 200
"""Folders in folders."""
_WILD = frozenset("*?[")
_numbers = itertools.count(1)


class OutputFiles:
    """Collects the outputs of one attempt."""

    def __init__(self, slot_folder: str, place: Attempt, files: list[str]) -> None:
        """files: the paths of large files are appended."""
        self._slot_folder = slot_folder
        self._place = place
        self._files = files
        self._inline_bytes = 0

    def collect(self, patterns: Sequence[str]) -> dict[str, Any]:
        """Return the files that the patterns name; raises BadFile for what is missing, or lies or leads outside."""
        found: dict[str, str] = {}
        for pattern in patterns:
            names = self._matches(pattern) if _WILD & set(pattern) else self._named(pattern)
            if not names:
                kind = "file matches the declared output" if _WILD & set(pattern) else "file in the declared output"
                raise BadFile(f"no {kind} {pattern!r}")
            found.update(names)
        if len(found) > MAX_OUTPUTS:
            raise BadFile(f"{len(found)} output files are over the limit of {MAX_OUTPUTS}; pack them in an archive")
        return {name: self.kept(path, name) for name, path in sorted(found.items())}

    def stream(self, path: str) -> dict[str, Any]:
        """Return how the result tells of what was written to a stream; of nothing, if the program has taken its file away."""
        is_there = os.path.isfile(path) and not os.path.islink(path)
        return self.kept(path) if is_there else {"size": 0, "text": ""}

    def kept(self, path: str, name: str | None = None) -> dict[str, Any]:
        """Return how the result tells of a file; the file itself is moved away if it is large."""
        facts = os.stat(path)
        about: dict[str, Any] = {"size": facts.st_size}
        if name is not None and facts.st_mode & stat.S_IXUSR:
            about["executable"] = True
        if facts.st_size > INLINE_BYTES or self._inline_bytes + facts.st_size > MAX_INLINE_BYTES:
            about["file"] = len(self._files)
            self._files.append(self._moved(path))
            return about
        with open(path, "rb") as file:
            data = file.read(INLINE_BYTES)
        about["size"] = len(data)
        self._inline_bytes += len(data)
        try:
            about["text"] = data.decode()
        except UnicodeDecodeError:
            about["data"] = base64.b64encode(data).decode()
        return about

    def _moved(self, path: str) -> str:
        place = os.path.join(self._slot_folder, f"output-{next(_numbers)}")
        if os.path.islink(path) or os.stat(path).st_nlink > 1:
            import shutil

            shutil.copyfile(path, place)  # another name for an input, or for another output
        else:
            os.rename(path, place)
        return place

    # --- finding ---

    def _named(self, name: str) -> dict[str, str]:
        path = self._path(name)
        if not os.path.lexists(path):
            raise BadFile(f"the declared output {name!r} is missing")
        if os.path.isdir(path) and not os.path.islink(path):
            return dict(self._walk(name.removesuffix("/")))
        return {name: self._checked(name, path)}

    def _matches(self, pattern: str) -> dict[str, str]:
        wanted = _compiled(pattern)
        found = ((name, path) for name, path in self._walk("") if wanted.fullmatch(name) and not self._is_input(name))
        return {name: self._checked(name, path) for name, path in found}

    def _walk(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yield all files below a folder, with links but without following them to folders."""
        if folder.count("/") >= MAX_DEPTH:
            raise BadFile(f"folders are nested in {folder[:100]!r} … over {MAX_DEPTH} deep; pack them in an archive")
        with os.scandir(self._path(folder) if folder else self._place.files) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(name)
                else:
                    yield name, self._checked(name, entry.path) if folder else entry.path

    def _path(self, name: str) -> str:
        return os.path.join(self._place.files, *name.removesuffix("/").split("/"))

    def _checked(self, name: str, path: str) -> str:
        """Return where an output's bytes are; raises BadFile unless that is a plain file inside the working folder."""
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadFile(f"the name of the output {name!r} is no text (UTF-8)") from None
        home = os.path.realpath(self._place.files)
        real = os.path.realpath(path)
        if name in self._place.inputs and os.path.islink(path) and self._is_input(name):
            return path  # a large input, which lies in the node's cache
        if os.path.commonpath((home, real)) != home:
            raise BadFile(f"the output {name!r} is a link to {real!r}, outside of the task's working folder")
        if not os.path.isfile(real):
            raise BadFile(f"the output {name!r} is {'missing' if not os.path.lexists(real) else 'not a plain file'}")
        return real

    def _is_input(self, name: str) -> bool:
        """Whether the file is an input that the program has left as it was."""
        known = self._place.inputs.get(name)
        if known is None:
            return False
        facts = os.lstat(self._path(name))
        return known == (facts.st_size, facts.st_mtime_ns)


def _compiled(pattern: str) -> re.Pattern[str]:
    """Translate `*`, `?`, `[…]` (within a folder) and `**` (across folders)."""
    out = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]")
            at = end + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])))
            at += 1
    try:
        return re.compile("".join(out))
    except re.error:
        raise BadFile(f"{pattern!r} is no pattern") from None
