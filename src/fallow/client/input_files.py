"""Input files of programs as a client finds them: named, read, hashed."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import blake3
import msgspec

from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.model.program import INLINE_FILE_BYTES, MAX_FILES, InputFile, placeholders
from fallow.slot.templates import Values

MAX_INLINE_BYTES = 4 << 20
"""Small input files that travel inside the program; further ones are blobs."""

Path_ = str | os.PathLike[str]
Files = Iterable[Path_] | Mapping[str, "Path_ | bytes"]
"""Files and folders, under their own names or others."""
Named = tuple[str, "str | bytes"]
"""A name in the working folder, and the path or the bytes of what is called so there."""


def named(inputs: Files) -> tuple[list[Named], list[Named]]:
    """Return inputs that are the same for all tasks, and templates of those that are not, whose name is "" if it is to be the
    path's last part. Raises BadRequest.
    """
    given: Iterable[tuple[str, Any]] = (
        inputs.items() if isinstance(inputs, Mapping) else (("", each) for each in inputs)
    )
    common: list[Named] = []
    own: list[Named] = []
    plain = Values()
    for name, source in given:
        kept = source if isinstance(source, bytes) else os.fspath(source)
        if placeholders(name, "inputs") | (set() if isinstance(kept, bytes) else placeholders(kept, "inputs")):
            own.append((name, kept))
        else:
            kept = kept if isinstance(kept, bytes) else plain.fill(kept)
            common.append((plain.fill(name) or last_part(kept), kept))
    return common, own


def last_part(path: str | bytes) -> str:
    """Return the name that a file or folder has in the working folder unless it is given another."""
    if isinstance(path, bytes):
        return ""
    return Path(path).resolve().name if path in {"", ".", ".."} else Path(path).name


class FileReader:
    """Reads input files: small ones whole, of large ones the digest."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._inline_bytes = 0
        self._count = 0
        self.blobs: dict[Digest, Path | bytes] = {}

    def read(self, inputs: Iterable[Named]) -> Iterator[InputFile]:
        """Yield files, and those in folders, under their names; raises BadRequest."""
        for name, source in inputs:
            if isinstance(source, bytes):
                yield self._kept(name, source, len(source), is_executable=False)
                continue
            path = self._base / source
            if path.is_dir():
                yield from self._folder(name, path)
            else:
                yield self._file(name, path, "inputs")

    def executables(self, given: Mapping[str, Path_]) -> dict[str, InputFile]:
        """Read what is run, by platform. Of several each is a blob, so that nodes are sent their own only."""
        found = {}
        for platform, source in given.items():
            path = self._base / source
            file = msgspec.structs.replace(self._file(path.name, path, f"executables: {platform}"), executable=True)
            if file.data is not None and len(given) > 1:
                digest = Digest(blake3.blake3(file.data).hexdigest())
                self.blobs[digest] = file.data
                file = msgspec.structs.replace(file, digest=digest, data=None)
            found[platform] = file
        return found

    def _folder(self, name: str, folder: Path) -> Iterator[InputFile]:
        for here, folders, files in os.walk(folder):
            folders.sort()
            for each in folders:
                if (Path(here) / each).is_symlink():
                    raise BadRequest(f"inputs: {Path(here) / each} is a link to a folder; name that folder itself")
            for each in sorted(files):
                path = Path(here) / each
                yield self._file(f"{name}/{path.relative_to(folder).as_posix()}", path, "inputs")

    def _file(self, name: str, path: Path, what: str) -> InputFile:
        self._count += 1
        if self._count > MAX_FILES:
            raise BadRequest(f"{what}: over {MAX_FILES} files; pack them in an archive")
        try:
            if not path.is_file():
                raise BadRequest(f"{what}: {path} is {'no plain file' if path.exists() else 'not there'}")
            facts = path.stat()
            is_executable = os.name != "nt" and os.access(path, os.X_OK)
            if facts.st_size <= INLINE_FILE_BYTES:
                return self._kept(name, path.read_bytes(), facts.st_size, is_executable=is_executable, path=path)
            digest = self._digest(path, facts)
        except OSError as error:
            raise BadRequest(f"{what}: {path} can't be read: {error.strerror}") from None
        self.blobs[digest] = path
        return InputFile(name, facts.st_size, digest, executable=is_executable)

    def _digest(self, path: Path, facts: os.stat_result) -> Digest:
        """Hash a large file; raises OSError."""
        hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
        hasher.update_mmap(path)
        return Digest(hasher.hexdigest())

    def _kept(self, name: str, data: bytes, size: int, *, is_executable: bool, path: Path | None = None) -> InputFile:
        self._inline_bytes += size
        if size <= INLINE_FILE_BYTES and self._inline_bytes <= MAX_INLINE_BYTES:
            return InputFile(name, size, data=data, executable=is_executable)
        digest = Digest(blake3.blake3(data).hexdigest())
        self.blobs[digest] = path or data
        return InputFile(name, size, digest, executable=is_executable)
