"""The node's environments: each is built once, shared by all jobs that name it, and removed when others need its room.

Which environments there are is told by their marker files, which are written last: whatever a crash has left half-made has
none, and is removed at the next start.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO

import msgspec

from fallow.log import Logger
from fallow.model.environment import decode_lock
from fallow.model.errors import BadRequest, EnvironmentFailed, StateInUse
from fallow.model.ids import Digest
from fallow.node import platform
from fallow.node.builder import PACKAGES, Builder, BuildKilled, end_left, find_builders
from fallow.node.builders.uv import UvBuilder
from fallow.node.off_loop import OffLoop
from fallow.node.settings import NodeSettings

BUILDS_AT_A_TIME = 2
FAILED_FOR_S = 60.0
"""How long an environment that could not be built is not tried again: tasks that are retried hear of it at once."""
TRIES = 2
"""Of a build that a signal ends."""
MARKER = "environment.json"
GONE = "gone-"
"""How names of folders begin that are being removed."""

_log = Logger("fallow.node")


class Marker(msgspec.Struct, frozen=True):
    """What says that an environment is whole."""

    digest: Digest
    python: str
    size_bytes: int


class Environments:
    """Folders under `folder`, found by the digest of their lock."""

    def __init__(self, settings: NodeSettings, off_loop: OffLoop) -> None:
        self._settings = settings
        self._folder = settings.folder / "environments"
        self._is_open = False
        self._lock: IO[bytes] | None = None
        self._off_loop = off_loop
        self._whole: dict[Digest, tuple[Path, Marker]] = {}
        self._builds: dict[Digest, asyncio.Task[str]] = {}
        self._failed: dict[Digest, tuple[float, str]] = {}
        self._turns = asyncio.Semaphore(BUILDS_AT_A_TIME)
        self._in_use: set[Digest] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @cached_property
    def builders(self) -> dict[str, Builder]:
        return find_builders([UvBuilder(self._settings.hub_packages)])

    def describe(self) -> tuple[bool, str]:
        """Return whether environments can be built here, and what to tell people of it."""
        obstacles = {name: builder.obstacle() for name, builder in self.builders.items()}
        works = [name for name, obstacle in obstacles.items() if obstacle is None]
        if works:
            return True, f"built by {', '.join(works)}"
        return False, "; ".join(obstacle for obstacle in obstacles.values() if obstacle)

    def _open(self) -> None:
        """Find what is there from earlier, least recently used first, and remove what is not whole."""
        self._is_open = True
        shared = self._settings.shared_environments
        if shared is not None:
            with contextlib.suppress(OSError, StateInUse):  # another grid of this user has it: our own will do
                shared.mkdir(parents=True, exist_ok=True)
                self._lock = platform.lock_file(shared / "lock")
                self._folder = shared
        self._folder.mkdir(parents=True, exist_ok=True)
        found, half = [], [*self._folder.glob(f"{GONE}*")]
        for path in self._folder.glob("env-*"):
            try:
                marker = msgspec.json.decode((path / MARKER).read_bytes(), type=Marker)
                found.append(((path / MARKER).stat().st_mtime_ns, path, marker))
            except (OSError, msgspec.MsgspecError):
                half.append(path)
        for path in half:
            end_left(path)
            self._spawn_removal(_out_of_the_way(path))
        self._whole = {marker.digest: (path, marker) for _, path, marker in sorted(found, key=lambda each: each[0])}

    def close(self) -> None:
        """End what is being built."""
        for task in (*self._builds.values(), *self._tasks):
            task.cancel()
        if self._lock is not None:
            self._lock.close()

    async def python_of(self, digest: Digest, lock: Path, wheels: Mapping[Digest, Path]) -> str:
        """Return the interpreter of an environment, once it is built: as many may ask as like to.

        lock: the file of the lock; wheels: those of its wheels' blobs. Raises EnvironmentFailed, with the build's log.
        """
        if not self._is_open:
            self._open()
        found = self._whole.get(digest)
        if found is not None:
            path, marker = found
            if Path(marker.python).exists():
                self._whole[digest] = self._whole.pop(digest)  # the latest used
                _touch(path)
                return marker.python
            self._remove(digest)  # the interpreter that it is made from is gone
        at, reason = self._failed.get(digest, (0.0, ""))
        if reason and time.monotonic() - at < FAILED_FOR_S:
            raise EnvironmentFailed(reason)
        build = self._builds.get(digest)
        if build is None:
            build = self._builds[digest] = asyncio.get_running_loop().create_task(self._build(digest, lock, wheels))
            build.add_done_callback(lambda done: self._ended(digest, done))
        return await asyncio.shield(build)

    def trim(self, is_needed: Callable[[Digest], bool]) -> None:
        """Remove least recently used environments over the limit, except those that are needed now. To be called often."""
        if not self._is_open:
            if self._settings.shared_environments is not None or not self._folder.exists():
                return  # a shared folder is left to those who use it
            self._open()
        in_use = {digest for digest in self._whole if is_needed(digest)}
        for digest in (self._in_use - in_use) & self._whole.keys():  # used until now
            self._whole[digest] = self._whole.pop(digest)
            _touch(self._whole[digest][0])
        self._in_use = in_use
        held = sum(marker.size_bytes for _, marker in self._whole.values())
        for digest, (_, marker) in list(self._whole.items()):
            if held <= self._settings.environments_bytes:
                return
            if digest not in in_use:
                held -= marker.size_bytes
                self._remove(digest)

    # --- building ---

    async def _build(self, digest: Digest, lock_file: Path, wheels: Mapping[Digest, Path]) -> str:
        for left in reversed(range(TRIES)):
            try:
                return await self._try(digest, lock_file, wheels)
            except BuildKilled:
                if not left:
                    raise
        raise AssertionError("not reached")

    async def _try(self, digest: Digest, lock_file: Path, wheels: Mapping[Digest, Path]) -> str:
        async with self._turns:
            try:
                lock = decode_lock(lock_file.read_bytes())
                builder = self.builders.get(lock.builder)
                if builder is None:
                    raise EnvironmentFailed(f"this node has no builder {lock.builder!r}")
                folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=f"env-{digest[:12]}-"))
            except (OSError, BadRequest) as error:
                raise EnvironmentFailed(str(error)) from error
            began = time.monotonic()
            try:
                python = str(await builder.build(lock, wheels, folder))
                marker = await self._off_loop(lambda: _finish(folder, digest, python))
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise EnvironmentFailed(f"the node can't store it: {error}") from error
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self._whole[digest] = (folder, marker)
        _log.info(
            "environment built", digest=digest, seconds=round(time.monotonic() - began, 1), bytes=marker.size_bytes
        )
        return python

    async def _trim_packages(self) -> None:
        """Remove what builders keep for later builds, if it takes as much room as environments may, or the disk is full."""
        packages = self._folder / PACKAGES
        size_bytes = await self._off_loop(lambda: _size_bytes(packages))
        is_full = shutil.disk_usage(self._folder).free < self._settings.reserve_bytes
        if size_bytes and (is_full or size_bytes > self._settings.environments_bytes) and not self._builds:
            self._spawn_removal(_out_of_the_way(packages))

    def _ended(self, digest: Digest, build: asyncio.Task[str]) -> None:
        self._builds.pop(digest, None)
        if not self._builds and not build.cancelled():
            self._spawn(self._trim_packages())
        error = None if build.cancelled() else build.exception()  # asked for, also when nobody waits any more
        if isinstance(error, EnvironmentFailed):
            _log.warning("an environment can't be built", digest=digest, log=str(error)[-500:])
            self._failed[digest] = (time.monotonic(), str(error))
            while len(self._failed) > MAX_FAILED:
                del self._failed[next(iter(self._failed))]

    def _remove(self, digest: Digest) -> None:
        folder, _ = self._whole.pop(digest)
        (folder / MARKER).unlink(missing_ok=True)  # first: what is left of it is not whole
        _log.info("environment removed", digest=digest)
        self._spawn_removal(_out_of_the_way(folder))

    def _spawn_removal(self, folder: Path) -> None:
        self._spawn(self._off_loop(lambda: shutil.rmtree(folder, ignore_errors=True)))

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


MAX_FAILED = 1000


def _out_of_the_way(folder: Path) -> Path:
    gone = folder.with_name(f"{GONE}{secrets.token_hex(4)}-{folder.name}")
    try:
        return folder.rename(gone)
    except OSError:
        return folder


def _touch(folder: Path) -> None:
    """Note that an environment is the latest used one: by our clock, as the file system's own times are some ms coarse."""
    with contextlib.suppress(OSError):
        os.utime(folder / MARKER, ns=(time.time_ns(), time.time_ns()))


def _finish(folder: Path, digest: Digest, python: str) -> Marker:
    """Say that an environment is whole, when all of it is on the disk."""
    marker = Marker(digest, python, _size_bytes(folder))
    if hasattr(os, "sync"):
        os.sync()  # thousands of files: one call, rather than one for each
    partial = folder / f"{MARKER}.partial"
    partial.write_bytes(msgspec.json.encode(marker))
    partial.replace(folder / MARKER)
    return marker


def _size_bytes(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # builders may be at work in it
            size += path.lstat().st_size
    return size
