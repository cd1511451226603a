"""Blobs on the node's disk, by digest: fetched ones, and large results until the hub has them. Least recently used go first."""

import contextlib
import shutil
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.node import platform

HASH_STEP_BYTES = 1 << 20
PARTIALS_S = 24 * 3600.0
"""What was fetched of a blob by an earlier agent is kept so long, to go on from there."""
COPYING = ".partial"
"""Ends the name of a file that is not whole yet."""


class BlobFile:
    """A blob on its way in: written in order, checked, then renamed into its place. Resumable where it broke off."""

    def __init__(self, path: Path, digest: Digest) -> None:
        self._path = path
        self._digest = digest
        self._hash = blake3()
        self.offset = 0
        if path.exists():
            with path.open("rb") as file:
                while data := file.read(HASH_STEP_BYTES):
                    self._hash.update(data)
                    self.offset += len(data)
        self._file = path.open("ab")

    def write(self, offset: int, data: bytes) -> None:
        """Append; what overlaps with what is there already is skipped, a gap raises BadRequest."""
        if offset > self.offset:
            raise BadRequest(f"blob {self._digest[:12]}…: bytes {self.offset} to {offset} are missing")
        fresh = data[self.offset - offset :]
        self._file.write(fresh)
        self._hash.update(fresh)
        self.offset += len(fresh)

    def finish(self, place: Path) -> None:
        """Check the digest and move the file into its place; raises BadRequest, and forgets the bytes, if it is wrong."""
        self._file.close()
        if self._hash.hexdigest() != self._digest:
            self._path.unlink(missing_ok=True)
            raise BadRequest(f"blob {self._digest[:12]}… came damaged")
        protect(self._path)
        self._path.replace(place)

    def close(self) -> None:
        self._file.close()


class BlobCache:
    """Files under `folder`, named by digest."""

    def __init__(self, folder: Path, limit_bytes: int, memory_folder: Path | None = None) -> None:
        """memory_folder: the agent's folder in memory: large results that slots have put there stay there."""
        self._folder = folder
        self._partial = folder / "partial"
        self._memory = memory_folder
        self._memory_cache = None if memory_folder is None else memory_folder / "cache"
        self._in_memory: set[Digest] = set()
        self._limit_bytes = limit_bytes
        self._sizes: OrderedDict[Digest, int] = OrderedDict()
        self._held_bytes = 0
        self._claims = 0
        self._elsewhere: dict[Digest, Path] = {}

    def open(self) -> None:
        """Find what is there from earlier."""
        self._partial.mkdir(parents=True, exist_ok=True)
        if self._memory_cache is not None:
            self._memory_cache.mkdir(parents=True, exist_ok=True)
        for left in self._partial.glob("claim-*"):  # by an agent that was killed
            left.unlink()
        for copy in self._folder.glob(f"*{COPYING}"):  # by an agent that was killed meanwhile
            copy.unlink()
        oldest = time.time() - PARTIALS_S
        for part in self._partial.iterdir():
            if part.stat().st_mtime < oldest:
                part.unlink()
        found = [(path.stat(), path) for path in self._folder.iterdir() if path.is_file()]
        for facts, path in sorted(found, key=lambda each: each[0].st_mtime):
            self._note(Digest(path.name), facts.st_size)

    def path(self, digest: Digest) -> Path | None:
        """Return where a blob lies, None if it is not here."""
        if digest in self._sizes:
            self._sizes.move_to_end(digest)
            return self._place(digest)
        return self._elsewhere.get(digest)

    def has_own(self, digest: Digest) -> bool:
        """Whether a blob lies in the cache itself, on its disk, not in memory or in a file of the hub's."""
        return digest in self._sizes and digest not in self._in_memory

    def take_over(self, path: Path, digest: Digest) -> None:
        """Give a file of the hub's, which is in use there, or one in memory, a second name in the cache. In a thread; `took_over` follows."""
        share(path, self._folder / digest)

    def took_over(self, digest: Digest) -> None:
        if digest in self._in_memory:
            platform.remove_mapped(self._place(digest))
            self._in_memory.discard(digest)
        self._note(digest, (self._folder / digest).stat().st_size)

    def begin(self, digest: Digest) -> BlobFile:
        """Begin, or go on, to receive a blob."""
        return BlobFile(self._partial / digest, digest)

    def finish(self, digest: Digest, file: BlobFile) -> None:
        """Take a blob that was received whole; raises BadRequest if it is damaged."""
        file.finish(self._folder / digest)
        self._note(digest, (self._folder / digest).stat().st_size)

    def remember(self, digest: Digest, path: Path) -> None:
        """Note that a blob lies in a file of the hub's, on the same computer."""
        self._elsewhere[digest] = path

    def forget(self, digest: Digest) -> None:
        """A file of the hub's may be gone: ask again."""
        self._elsewhere.pop(digest, None)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Move a file that was made here into the cache; one in memory stays there."""
        if digest in self._sizes:
            path.unlink()
            return
        if path.parent == self._memory_cache:
            self._in_memory.add(digest)
        place = self._place(digest)
        move(path, place)
        protect(place)
        self._note(digest, place.stat().st_size)

    def claim(self, path: Path) -> Path:
        """Move a file that a slot wrote to where no task sees it, under a new name; raises OSError.

        A link is refused: it would hand out a file of the owner's.
        """
        self._claims += 1
        is_in_memory = self._memory is not None and path.is_relative_to(self._memory)
        folder = self._memory_cache if is_in_memory else None
        place = (folder or self._partial) / f"claim-{self._claims}"
        move(path, place)
        if not stat.S_ISREG(place.lstat().st_mode):
            place.unlink()
            raise OSError(f"{path.name} is not a regular file")
        return place

    def drop(self, digest: Digest) -> None:
        """Delete a blob; who has mapped it keeps it."""
        if digest in self._sizes:
            platform.remove_mapped(self._place(digest))
            self._in_memory.discard(digest)
            self._held_bytes -= self._sizes.pop(digest)

    def trim(self, is_needed: Callable[[Digest], bool]) -> None:
        """Delete least recently used blobs over the limit, except those that are needed now."""
        for digest in list(self._sizes):
            if self._held_bytes <= self._limit_bytes:
                return
            if not is_needed(digest):
                self.drop(digest)

    def _place(self, digest: Digest) -> Path:
        if self._memory_cache is not None and digest in self._in_memory:
            return self._memory_cache / digest
        return self._folder / digest

    def _note(self, digest: Digest, size: int) -> None:
        self._held_bytes += size - self._sizes.pop(digest, 0)
        self._sizes[digest] = size


def digest_of(path: Path) -> Digest:
    """Hash a file, with all cores."""
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(path)
    return Digest(hasher.hexdigest())


def protect(path: Path) -> None:
    """Let nobody write to a blob: programs get links to it. Windows would not even let it be removed then."""
    if not platform.IS_WINDOWS:
        path.chmod(0o444)


def share(path: Path, place: Path) -> None:
    """Give a file a second name, or make a copy where that can't be; `place` appears whole.

    The first name stays: the blob may be an input here too, as equal bytes have one digest.
    """
    place.unlink(missing_ok=True)  # from an attempt that a broken link ended
    try:
        place.hardlink_to(path)
    except OSError:
        _copy(path, place)


def move(path: Path, place: Path) -> None:
    """Move a file, to another filesystem if it must be; `place` appears whole."""
    try:
        path.replace(place)
    except OSError:
        if path.is_symlink():
            raise
        _copy(path, place)
        path.unlink()


def _copy(path: Path, place: Path) -> None:
    partial = place.with_name(place.name + COPYING)
    try:
        shutil.copyfile(path, partial)
        partial.replace(place)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
