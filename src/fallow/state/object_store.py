"""Blobs in an S3-compatible object store (also Google's and Azure's), with local files in front of it.

Each blob passes through a file of the cache: uploads are verified there before they go to the store, and what the
hub hands out is mapped or sent from there. The store alone says what exists; the cache may be deleted at any time.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from blake3 import blake3
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore, from_url

from fallow.model.errors import NotFound, StateError, Unavailable
from fallow.model.ids import Digest
from fallow.state.blobs import BlobWriter, LocalBlobs, check_digest, is_digest

CACHE_BYTES = 10 * 10**9
"""Local files kept by default: the working set of a few large jobs."""

KNOWN_SIZES = 100_000
"""Sizes remembered, so that most questions need no round trip to the store. About 20 MB."""

CHUNK_BYTES = 1 << 20
BLOBS = "blobs"
OWNER = "owner"
"""Names of what lies in the store: blobs, and the id of the state that names them."""


def open_object_store(url: str, cache_folder: Path, *, cache_bytes: int = CACHE_BYTES) -> "ObjectStoreBlobs":
    """Return the store at `url` (s3://bucket/prefix, gs://…, az://…); credentials and endpoint come from the environment.

    Raises StateError if the URL or the environment does not name a store.
    """
    try:
        store = from_url(url)
    except (BaseError, ValueError) as error:
        raise StateError(f"can't use the object store {url}: {_first_line(error)}") from error
    return ObjectStoreBlobs(store, cache_folder, cache_bytes=cache_bytes)


class ObjectStoreBlobs:
    """A `BlobStore` over `obstore`. Raises Unavailable where the store can't be reached; try again later then."""

    def __init__(self, store: ObjectStore, cache_folder: Path, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._store = store
        self._cache = LocalBlobs(cache_folder, durable=False)
        self._cache_folder = cache_folder
        self._cache_bytes = cache_bytes
        self._sizes: dict[Digest, int] = {}

    @property
    def incoming(self) -> Path:
        return self._cache.incoming

    def path(self, digest: Digest) -> Path | None:
        path = self._cache.path(digest)
        if path is None:
            if self.size(digest) is None:
                return None
            self._download(digest)
            path = self._cache.path(digest)
        elif self.size(digest) is None:
            return None  # verified here, but its upload has not succeeded
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)  # for the sweep: used just now
        return path

    def size(self, digest: Digest) -> int | None:
        check_digest(digest)
        size = self._sizes.get(digest)
        if size is None:
            try:
                size = int(obstore.head(self._store, _key(digest))["size"])
            except (NotFoundError, FileNotFoundError):
                return None
            except BaseError as error:
                raise _unavailable(error) from error
            self._remember(digest, size)
        return size

    def read(self, digest: Digest) -> bytes:
        self._require(digest)
        return self._cache.read(digest)

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes:
        self._require(digest)
        return self._cache.read_at(digest, offset, length)

    def keep_bytes(self, data: bytes) -> Digest:
        digest = Digest(blake3(data).hexdigest())
        if self.size(digest) is None:
            self._cache.keep_bytes(data)
            self.upload(digest)
        return digest

    def writer(self, digest: Digest, size: int) -> BlobWriter:
        return _Writer(self, digest, self._cache.writer(digest, size))

    def adopt(self, path: Path, digest: Digest) -> None:
        self._cache.adopt(path, digest)
        if self.size(digest) is None:
            self.upload(digest)

    def delete(self, digest: Digest) -> None:
        check_digest(digest)
        self._sizes.pop(digest, None)
        try:
            obstore.delete(self._store, _key(digest))
        except (NotFoundError, FileNotFoundError):
            pass
        except BaseError as error:
            raise _unavailable(error) from error
        self._cache.delete(digest)
        self._sizes.pop(digest, None)  # somebody may have looked in between

    def sweep_partials(self, older_than_s: float) -> None:
        """Also removes cached files beyond the limit, those first that were not used for longest, none that is in use."""
        self._cache.sweep_partials(older_than_s)
        files = []
        for path in self._cache_folder.glob("blobs/*/*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                files.append((found.st_mtime, found.st_size, Digest(path.name)))
        excess = sum(size for _, size, _ in files) - self._cache_bytes
        newest = time.time() - older_than_s
        for used_at, size, digest in sorted(files):
            if excess <= 0 or used_at > newest:
                break
            self._cache.delete(digest)
            excess -= size

    def claim(self, state_id: int) -> bool:
        try:
            try:
                owner = bytes(obstore.get(self._store, OWNER).bytes())
            except (NotFoundError, FileNotFoundError):
                obstore.put(self._store, OWNER, owner := str(state_id).encode())
        except BaseError as error:
            raise _unavailable(error) from error
        return owner == str(state_id).encode()

    def stored(self, older_than_s: float) -> Iterator[list[Digest]]:
        oldest = datetime.now(UTC) - timedelta(seconds=older_than_s)
        try:
            for objects in obstore.list(self._store, BLOBS):
                names = [each["path"].rpartition("/")[2] for each in objects if each["last_modified"] < oldest]
                yield [Digest(name) for name in names if is_digest(name)]
        except BaseError as error:
            raise _unavailable(error) from error

    def free_bytes(self) -> int:
        return self._cache.free_bytes()

    def local_bytes(self) -> int:
        return self._cache.local_bytes()

    def upload(self, digest: Digest) -> None:
        """Send a cached blob to the store, which makes it durable."""
        path = self._cache.path(digest)
        if path is None:
            raise NotFound(f"blob {digest} is no longer in the cache")
        try:
            obstore.put(self._store, _key(digest), path)
        except BaseError as error:
            raise _unavailable(error) from error
        self._remember(digest, path.stat().st_size)

    def _require(self, digest: Digest) -> None:
        if self.path(digest) is None:
            raise NotFound(f"there is no blob {digest}")

    def _download(self, digest: Digest) -> None:
        def fill(path: Path) -> None:
            with path.open("xb") as file:
                for chunk in obstore.get(self._store, _key(digest)).stream(min_chunk_size=CHUNK_BYTES):
                    file.write(chunk)

        try:
            self._cache.publish(digest, fill, check=True)
        except (NotFoundError, FileNotFoundError):
            self._sizes.pop(digest, None)  # deleted by another hub meanwhile
        except BaseError as error:
            raise _unavailable(error) from error

    def _remember(self, digest: Digest, size: int) -> None:
        if len(self._sizes) >= KNOWN_SIZES:
            self._sizes.clear()
        self._sizes[digest] = size


class _Writer:
    """An upload into the cache, from where it goes to the store when it is whole."""

    def __init__(self, blobs: ObjectStoreBlobs, digest: Digest, inner: BlobWriter) -> None:
        self._blobs = blobs
        self._digest = digest
        self._inner = inner
        self.size = inner.size

    @property
    def offset(self) -> int:
        return self._inner.offset

    def write(self, offset: int, data: bytes) -> None:
        self._inner.write(offset, data)

    def finish(self) -> None:
        self._inner.finish()
        if self._blobs.size(self._digest) is None:
            self._blobs.upload(self._digest)


def _key(digest: Digest) -> str:
    return f"{BLOBS}/{digest[:2]}/{digest}"


def _unavailable(error: BaseError) -> Unavailable:
    return Unavailable(f"the object store can't be reached or refused: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    """Return what people can read; after it obstore writes the error's source in Rust."""
    return str(error).partition("\n")[0]
