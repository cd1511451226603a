"""Results of a program's tasks as folders of files: written as they come, gone on with, checked by digest."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import psutil

from fallow.client.local_names import local_name, marked
from fallow.client.programs import ProgramResult, inline_bytes
from fallow.model.errors import BadRequest, FallowError
from fallow.model.ids import Digest
from fallow.slot.attempt import BadFile

if TYPE_CHECKING:
    from fallow.client.core import GridCore
    from fallow.client.program_job import ProgramJob

By = Literal["index", "parameters"]

PARTIAL = ".partial"
"""Folder of blobs that have not come whole."""
NAME_LENGTH = 150
"""Characters of a folder's name that is made of parameters; file systems take 255 bytes."""
ATTEMPTS = 3
"""How often a blob that came damaged is fetched anew."""

_PLAIN = re.compile(r"[^\w.+=,-]")
_NAME_FAULTS = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
"""What a file system says of a name that it can't have; other errors, as of a full disk, end the download."""


class Downloaded(msgspec.Struct):
    """What a download came to."""

    tasks: int = 0
    """Whose files are there now."""
    files: int = 0
    fresh: int = 0
    """Files that had to be written; the others were there already."""
    size_bytes: int = 0
    failures: list[tuple[int, BaseException]] = []
    """Index and exception of each task that failed."""


def download(core: "GridCore", job: "ProgramJob", folder: str | os.PathLike[str], by: By) -> Downloaded:
    """Do it; returns when all tasks are settled and what they put out is there."""
    if by not in {"index", "parameters"}:
        raise BadRequest(f'by={by!r} is not "index" or "parameters"')
    found = Downloaded()
    writer = _Writer(core, Path(folder), found)
    for index, result in job.as_completed(return_exceptions=True):
        if isinstance(result, ProgramResult):
            writer.write(str(index) if by == "index" else folder_name(result), result)
        else:
            found.failures.append((index, result))  # type: ignore[unreachable]
    writer.close()
    return found


def folder_name(result: ProgramResult) -> str:
    """Return a name such as "x=1,y=2"; one that could be another task's too has the index behind it."""
    told = ",".join(f"{name}={_told(value)}" for name, value in result.parameters.items())
    plain = _PLAIN.sub("_", told)[:NAME_LENGTH]
    return plain if plain == told and plain.strip(".") else f"{plain or 'task'}#{result.index}"


def _told(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Writer:
    """Writes tasks' files below one folder."""

    def __init__(self, core: "GridCore", folder: Path, found: Downloaded) -> None:
        self._core = core
        self._folder = folder
        self._partial = folder / PARTIAL
        self._found = found
        self._names: dict[str, int] = {}
        self._partial.mkdir(parents=True, exist_ok=True)
        for left in self._partial.glob("new-*"):  # by a download that was killed
            if not psutil.pid_exists(int(left.name.removeprefix("new-"))):
                left.unlink(missing_ok=True)
        self._is_case_blind = (folder / PARTIAL.upper()).exists()

    def _key(self, name: str) -> str:
        """Return what is equal for names that the file system takes for one."""
        return name.casefold() if self._is_case_blind else name

    def write(self, name: str, result: ProgramResult) -> None:
        if self._names.setdefault(self._key(name), result.index) != result.index:
            name = f"{name}#{result.index}"  # two tasks of equal parameters
        home = self._folder / name
        home.mkdir(exist_ok=True)
        taken: set[str] = set()
        for file, record in result.files():
            try:
                fit = local_name(file)
                if self._key(fit) in taken:
                    fit = marked(fit, file)
                taken.add(self._key(fit))
                self._file(home, fit, record, result)
            except (BadFile, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _NAME_FAULTS:
                    raise
                why = error if isinstance(error, BadFile) else f"{file!r:.80} can't be written: {error.strerror}"
                self._found.failures.append((result.index, FallowError(f"the output {why}")))
        self._found.tasks += 1

    def _file(self, home: Path, name: str, record: Mapping[str, Any], result: ProgramResult) -> None:
        place = home / name
        self._found.files += 1
        self._found.size_bytes += record["size"]
        data = inline_bytes(record)
        digest = None if data is not None else result.digest(record)
        if self._is_there(place, record["size"], data, digest):
            return
        self._found.fresh += 1
        for parent in reversed(place.relative_to(home).parents[:-1]):
            (home / parent).mkdir(exist_ok=True)
        partial = self._partial / f"new-{os.getpid()}"
        if data is not None:
            partial.write_bytes(data)
        else:
            assert digest is not None
            self._fetch(digest, partial)
        if record.get("executable"):
            partial.chmod(0o755)
        partial.replace(place)

    @staticmethod
    def _is_there(place: Path, size: int, data: bytes | None, digest: Digest | None) -> bool:
        if place.is_symlink() or not place.is_file() or place.stat().st_size != size:
            return False
        return place.read_bytes() == data if data is not None else digest_of(place) == digest

    def _fetch(self, digest: Digest, place: Path) -> None:
        came = self._partial / digest
        for _ in range(ATTEMPTS):
            self._core.fetch_to(digest, came)
            if digest_of(came) == digest:
                shutil.move(came, place)
                return
            came.unlink()
        raise FallowError(f"the blob {digest[:12]}… came damaged {ATTEMPTS} times")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._partial.rmdir()


def digest_of(path: Path) -> Digest:
    """Hash a file."""
    import blake3

    hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
    hasher.update_mmap(path)
    return Digest(hasher.hexdigest())


def lines(found: Downloaded) -> Iterator[str]:
    """Say what failed, a line for each task."""
    for index, error in found.failures:
        yield f"task {index}: {type(error).__name__}: {error}"
