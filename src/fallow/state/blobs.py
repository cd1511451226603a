"""Blobs: immutable bytes named by their BLAKE3 digest. The seam, and the store in a folder of our own.

Reference counts are the `State`'s business. Nothing here trusts a name or a size from outside: digests are checked
before they become paths, and bytes are hashed before they become blobs.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from blake3 import blake3

from fallow.model.errors import BadRequest, NotFound
from fallow.model.ids import Digest
from fallow.state.folder import sync_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobWriter(Protocol):
    """One upload. It holds no file open: one that breaks off is simply dropped, and gone on with by a new writer."""

    size: int
    """Bytes that the blob will have."""

    @property
    def offset(self) -> int:
        """Bytes that are there already, from an earlier upload too; `write` goes on from here."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Add bytes at `offset`; what is there already is skipped.

        Raises BadRequest if that would leave a gap, go beyond `size`, or if another writer took the upload over.
        """
        ...

    def finish(self) -> None:
        """Verify the digest and make the blob durable; then it is there for readers.

        Raises BadRequest if bytes are missing or the digest is another; in the latter case the upload starts over.
        """
        ...


class BlobStore(Protocol):
    """Where blobs are kept. All methods may wait for a disk, and be called from any thread.

    Raise BadRequest for what is no digest: 64 hex digits in lower case.
    """

    @property
    def incoming(self) -> Path:
        """Folder where other processes of this machine put files to `adopt`; made by whoever announces it."""
        ...

    def path(self, digest: Digest) -> Path | None:
        """Return a local, read-only file that holds the blob; None if there is no such blob."""
        ...

    def size(self, digest: Digest) -> int | None:
        """Return the blob's bytes in number; None if there is no such blob."""
        ...

    def read(self, digest: Digest) -> bytes:
        """Return the whole blob; raises NotFound."""
        ...

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; raises NotFound."""
        ...

    def keep_bytes(self, data: bytes) -> Digest:
        """Store bytes; they are durable when it returns."""
        ...

    def writer(self, digest: Digest, size: int) -> BlobWriter:
        """Begin an upload, or go on with one that broke off. An earlier writer of the same blob is revoked."""
        ...

    def adopt(self, path: Path, digest: Digest) -> None:
        """Take over a file that another process on this filesystem has put into `incoming`; durable when it returns.

        Raises BadRequest if it is no plain file right there, or if its digest is another; then the file is gone.
        """
        ...

    def delete(self, digest: Digest) -> None:
        """Remove the blob; no effect if there is none."""
        ...

    def sweep_partials(self, older_than_s: float) -> None:
        """Remove uploads that broke off, and files that nobody came to adopt, if untouched for so long."""
        ...

    def claim(self, state_id: int) -> bool:
        """Return whether the blobs belong to the state of this id. What belongs to none yet, does from now on."""
        ...

    def stored(self, older_than_s: float) -> Iterator[list[Digest]]:
        """Name, some at a time, the blobs that were stored longer ago than this."""
        ...

    def free_bytes(self) -> int:
        """Return the room left on the local filesystem."""
        ...

    def local_bytes(self) -> int:
        """Return the size of all blobs on the local filesystem; looks at every file."""
        ...


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: str) -> Digest:
    """Return `text` if it is a digest; raises BadRequest otherwise, so that it can never lead out of a folder."""
    if not is_digest(text):
        raise BadRequest(f"{text[:80]!r} is not a digest: 64 hex digits in lower case")
    return Digest(text)


def digest_of_file(path: Path) -> Digest:
    """Return the BLAKE3 digest of a file, hashed by all cores."""
    return Digest(blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest())


class LocalBlobs:
    """Blobs as read-only files: `blobs/ab/abcd…`, beside `partial` (uploads) and `incoming` (files to adopt).

    The folder is private to the user that runs the hub. Who can write to `incoming` could keep a file open and change
    it after it was adopted; those are processes of the same user only.
    """

    def __init__(self, folder: Path, *, durable: bool = True, trusting: bool = False) -> None:
        """Name the folder, made when first needed. durable: fsync what is stored, and the names of it.

        trusting: files to adopt were named by this process: they are not hashed, and taken from wherever they lie.
        """
        self.is_trusting = trusting
        self._folder = folder
        self._blobs = folder / "blobs"
        self._partial = folder / "partial"
        self._is_durable = durable
        self._writers: WeakValueDictionary[Digest, _LocalWriter] = WeakValueDictionary()
        self._made: set[Path] = set()
        """Folders whose names this process has made durable; whoever made them may have died before it did."""

    @property
    def incoming(self) -> Path:
        return self._folder / "incoming"

    def path(self, digest: Digest) -> Path | None:
        path = self._place(digest)
        return path if path.is_file() else None

    def size(self, digest: Digest) -> int | None:
        try:
            return self._place(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, digest: Digest) -> bytes:
        try:
            return self._place(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}") from None

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes:
        try:
            with self._place(digest).open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest}") from None

    def keep_bytes(self, data: bytes) -> Digest:
        digest = Digest(blake3(data).hexdigest())
        if not self.has_durably(digest):
            self.publish(digest, lambda path: path.write_bytes(data))
        return digest

    def writer(self, digest: Digest, size: int) -> BlobWriter:
        check_digest(digest)
        if size < 0:
            raise BadRequest(f"a blob can't have {size} bytes")
        self._make(self._partial)
        writer = self._writers[digest] = _LocalWriter(self, self._partial / digest, digest, size)
        return writer

    def adopt(self, path: Path, digest: Digest) -> None:
        check_digest(digest)
        if path.parent.resolve() != self.incoming.resolve():
            if not self.is_trusting:
                raise BadRequest(f"{path} is not in {self.incoming}")
            if not self.has_durably(digest):
                self.publish(digest, lambda private: _link(path, private))
            return
        if not self.has_durably(digest):
            # Renamed first: what is checked then, in a folder of our own, can't be exchanged any more.
            self.publish(digest, lambda private: self._take(path, private), check=not self.is_trusting)
        path.unlink(missing_ok=True)

    def delete(self, digest: Digest) -> None:
        path = self._place(digest)
        if os.name == "nt":
            with contextlib.suppress(FileNotFoundError):
                path.chmod(stat.S_IWRITE)  # Windows removes no read-only files
        path.unlink(missing_ok=True)

    def set_aside(self, digest: Digest) -> None:
        """Drop the system's copy of a file in memory, where that can be asked for: it is on the disk, and rarely read again."""
        if sys.platform == "linux":
            with contextlib.suppress(FileNotFoundError), self._place(digest).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def sweep_partials(self, older_than_s: float) -> None:
        oldest = time.time() - older_than_s
        for folder in (self._partial, self.incoming):
            for path in folder.glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    found = path.lstat()
                    if found.st_mtime < oldest and not stat.S_ISDIR(found.st_mode):
                        path.unlink()

    def claim(self, state_id: int) -> bool:
        self._make(self._folder)
        owner = self._folder / "owner"
        if not owner.exists():
            private = owner.with_name(f"owner.{secrets.token_hex(8)}")
            private.write_text(str(state_id))
            private.replace(owner)
        return owner.read_text() == str(state_id)

    def stored(self, older_than_s: float) -> Iterator[list[Digest]]:
        oldest = time.time() - older_than_s
        for folder in self._blobs.glob("*"):
            found = []
            for path in folder.glob("*"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    # The content of an adopted file may be older than the blob; the change of its name is not.
                    if max(status.st_mtime, status.st_ctime) < oldest and is_digest(path.name):
                        found.append(Digest(path.name))
            yield found

    def free_bytes(self) -> int:
        self._make(self._folder)
        return shutil.disk_usage(self._folder).free

    def local_bytes(self) -> int:
        total = 0
        for path in self._blobs.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.lstat().st_size
        return total

    def has_durably(self, digest: Digest) -> bool:
        """Return whether the blob is there; another thread may have published it just now, so its name is synced."""
        place = self._place(digest)
        if not place.is_file():
            return False
        if self._is_durable:
            sync_folder(place.parent)
        return True

    def end_writer(self, writer: "_LocalWriter") -> None:
        """Forget a writer that has finished."""
        if self.is_current(writer):
            del self._writers[writer.digest]

    def is_current(self, writer: "_LocalWriter") -> bool:
        """Return whether no other writer has taken the upload over."""
        return self._writers.get(writer.digest) is writer

    def publish(self, digest: Digest, fill: Callable[[Path], object], *, check: bool = False) -> None:
        """Let `fill` make a private file and publish it as a blob; durable when it returns.

        check: whether the digest is yet to be verified; raises BadRequest, with the file gone, if it is another.
        """
        self._make(self._partial)
        place = self._place(digest)
        private = self._partial / f"{digest}.{secrets.token_hex(8)}"
        try:
            fill(private)
            with ThreadPoolExecutor(1, thread_name_prefix="fallow-sync") as beside:  # the disk works while it is hashed
                synced = beside.submit(_sync_file, private) if self._is_durable else None
                if check and (found := digest_of_file(private)) != digest:
                    raise BadRequest(f"these are not the bytes of blob {digest[:12]}…: their digest is {found[:12]}…")
                if synced is not None:
                    synced.result()
            private.chmod(0o444)
            self._make(place.parent)
            private.replace(place)
            if self._is_durable:
                sync_folder(place.parent)
        finally:
            private.unlink(missing_ok=True)

    def _place(self, digest: Digest) -> Path:
        check_digest(digest)
        return self._blobs / digest[:2] / digest

    def _take(self, path: Path, private: Path) -> None:
        try:
            is_plain = stat.S_ISREG(path.lstat().st_mode)
            if is_plain:
                path.rename(private)
                is_plain = stat.S_ISREG(private.lstat().st_mode)
        except OSError as error:
            raise BadRequest(f"can't take over {path}: {error.strerror}") from error
        if not is_plain:
            raise BadRequest(f"{path} is not a plain file")

    def _make(self, folder: Path) -> None:
        """Make a folder of ours, with its name and those above it durable."""
        if folder in self._made and folder.is_dir():
            return
        if folder != self._folder:
            self._make(folder.parent)
        folder.mkdir(mode=0o700, parents=folder == self._folder, exist_ok=True)
        if self._is_durable:
            sync_folder(folder.parent)
        self._made.add(folder)


class _LocalWriter:
    """An upload into `partial`. A file that a crash left there is gone on with: the digest tells whether it is whole."""

    def __init__(self, store: LocalBlobs, path: Path, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self._store = store
        self._path = path
        if store.path(digest) is not None:
            self.offset = size
            return
        there = path.stat().st_size if path.exists() else 0
        if there > size:
            path.unlink()
            there = 0
        self.offset = there

    def write(self, offset: int, data: bytes) -> None:
        self._check_current()
        if not 0 <= offset <= self.offset or offset + len(data) > self.size:
            end = offset + len(data)
            raise BadRequest(
                f"bytes {offset} to {end} of blob {self.digest[:12]}… do not fit: it has {self.offset} of {self.size}"
            )
        fresh = memoryview(data)[self.offset - offset :]
        if fresh:
            with self._path.open("r+b" if self._path.exists() else "xb") as file:
                file.seek(self.offset)
                file.write(fresh)
            self.offset += len(fresh)

    def finish(self) -> None:
        self._check_current()
        if self.offset < self.size:
            raise BadRequest(f"blob {self.digest[:12]}… has {self.offset} of {self.size} bytes only")
        self._store.end_writer(self)
        if self._store.has_durably(self.digest):
            self._path.unlink(missing_ok=True)
            return
        self._path.touch()  # an empty blob was never written
        self._store.publish(self.digest, self._path.rename, check=True)

    def _check_current(self) -> None:
        if not self._store.is_current(self):
            raise BadRequest(f"the upload of blob {self.digest[:12]}… was taken over or has finished")


def _link(path: Path, place: Path) -> None:
    try:
        place.hardlink_to(path)
    except OSError:  # the filesystem has no second names
        shutil.copyfile(path, place)


def _sync_file(path: Path) -> None:
    with path.open("rb+" if os.name == "nt" else "rb") as file:  # an adopted file may be read-only
        os.fsync(file.fileno())
