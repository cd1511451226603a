"""What all handles of one grid share: the engine's thread, the session, and the ways to make jobs and blobs."""

import asyncio
import os
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import blake3
import msgspec

from fallow.client.engine import Engine
from fallow.client.environments import Environment, check_python_of, with_packages
from fallow.client.options import Options, parse_options
from fallow.client.progress import NoBar, ProgressBar
from fallow.client.session import ClientSession
from fallow.client.sources import LocalSources, Paced
from fallow.client.staging import stage
from fallow.model.errors import PicklingFailed
from fallow.model.ids import Digest, JobId, uuid7
from fallow.model.job import JobSpec, StageKind
from fallow.slot import refs
from fallow.slot.pages import Piece
from fallow.slot.pickling import dumps

if TYPE_CHECKING:
    from fallow.client.config import HubAddress
    from fallow.client.direct import DirectCalls
    from fallow.client.job_state import JobState
    from fallow.client.locking import Locker

T = TypeVar("T")


class GridCore:
    """Shared by `Grid`, its jobs, streams and futures."""

    def __init__(
        self, engine: Engine, session: ClientSession, defaults: Mapping[str, Any], *, shows_progress: bool
    ) -> None:
        self.engine = engine
        self.session = session
        self._defaults = defaults
        self.sources = LocalSources()
        self.is_code_version = self.sources.version.is_recent
        """Whether that is what `code_version` without an environment would return, and it would not look again yet."""
        self._locker: Locker | None = None
        self.address: HubAddress | None = None
        """Of a hub that is reached over the network."""
        self._stamps: dict[Environment, Paced[object]] = {}
        self._shows_progress = shows_progress
        self._temporary: Path | None = None
        self.want_sandboxes: Callable[[], None] = lambda: None
        """Called, on the engine, when a job asks for a sandbox: an embedded node tries them only then."""
        self.direct: DirectCalls | None = None
        """Who takes calls past the hub, if the grid is embedded and has no state folder."""
        self.feeders: dict[JobState, threading.Thread] = {}
        """Jobs whose inputs are being sent, each by a thread."""

    # --- options, ids, questions ---

    def options(self, given: Mapping[str, Any]) -> Options:
        """Check a call's options, over the grid's own."""
        return parse_options({**self._defaults, **given})

    @staticmethod
    def new_job_id() -> JobId:
        return JobId(uuid7(time.time_ns() // 1_000_000, os.urandom(10)))

    def next_reader_number(self) -> int:
        return self.session.next_number()

    def ask(self, what: str, argument: str, answer: "type[T] | Any", *, after: int = 0) -> T:
        """Ask the hub, from a user's thread."""
        found: T = self.engine.run(self.session.ask(what, argument, answer, after=after))
        return found

    def progress_bar(self, label: str, state: Any) -> "ProgressBar | NoBar":
        """Return what waits for results: with a bar in a terminal or notebook, plainly elsewhere."""
        return ProgressBar(label, state) if self._shows_progress else NoBar()

    # --- functions ---

    @staticmethod
    def fit(options: Options, stages: Sequence[tuple[StageKind, Any]]) -> Options:
        """Return the options for these functions: with what `Environment.capture` finds. Raises BadRequest if their Python
        is not the environment's.
        """
        env = options.env
        if env is None:
            return options
        functions = [function for kind, function in stages if kind != "run"]
        for function in functions:
            check_python_of(env, getattr(function, "__qualname__", repr(function)))
        if not env.is_capture:
            return options
        from fallow.client.needed import needed_packages

        return msgspec.structs.replace(options, env=with_packages(env, *needed_packages(functions)))

    def code_version(self, options: Options, *, is_sure: bool) -> object:
        """Return what changes when the code that travels beside functions does: local modules, projects of an environment."""
        env = options.env
        if env is None or not (env.packages or env.files):
            return self.sources.version(is_sure=is_sure)
        found = self._stamps.get(env)
        if found is None:
            from fallow.client.locking import stamp_of

            found = self._stamps[env] = Paced(lambda: stamp_of(env))
        return self.sources.version(is_sure=is_sure), found(is_sure=is_sure)

    @staticmethod
    def pickle_stages(stages: Sequence[tuple[StageKind, Callable[..., Any]]]) -> tuple[bytes, tuple[Digest, ...]]:
        """Pickle a pipeline's functions; return the blob and what it refers to. Raises PicklingFailed."""
        functions = [function for _, function in stages]
        for function in functions:
            if not callable(function):
                raise PicklingFailed(f"{function!r} is not a function")
        with refs.collecting() as digests:
            try:
                data = dumps(functions)
            except Exception as error:  # whatever pickling raises
                name = getattr(functions[-1], "__qualname__", repr(functions[-1]))
                raise PicklingFailed(
                    f"the function {name} can't be pickled: {error}. It (or what it refers to) holds something that can't "
                    "travel, such as an open file, a lock or a connection; create that inside the function"
                ) from error
        return data, tuple(map(Digest, digests))

    @staticmethod
    def digest(data: bytes) -> Digest:
        return Digest(blake3.blake3(data).hexdigest())

    @staticmethod
    def digests(names: Sequence[str]) -> tuple[Digest, ...]:
        return tuple(map(Digest, names))

    async def keep_blobs(self, spec: JobSpec, function: bytes, options: Options) -> JobSpec:
        """Make the hub keep what the job's tasks need: the function, archives of the local modules that are loaded now, the
        environment; return the spec that names it all.
        """
        if spec.requirements.sandbox is not None:
            self.want_sandboxes()
        archives = {} if spec.is_program else self.sources.archives()
        if options.env is not None:
            locked = await self._find_locker().lock(options.env)
            for digest, data in (*locked.wheels.items(), (locked.digest, locked.data)):
                await self.session.blobs.keep(digest, data)
            spec = msgspec.structs.replace(spec, environment=locked.digest, refs=(*spec.refs, *locked.wheels))
            archives = {name: found for name, found in archives.items() if locked.lacks(name, found[1])}
        if options.image_file is not None:
            digest = await asyncio.to_thread(_digest_of, options.image_file)
            await self.session.blobs.keep(digest, options.image_file)
            containment = msgspec.structs.replace(spec.containment, image_archive=digest)
            spec = msgspec.structs.replace(spec, containment=containment)
        for digest, data in (*archives.values(), (spec.function, function)):
            await self.session.blobs.keep(digest, data)
        return msgspec.structs.replace(spec, sources={name: digest for name, (digest, _) in archives.items()})

    def _find_locker(self) -> "Locker":
        if self._locker is None:
            from fallow.client.locking import Locker
            from fallow.packages.reaching import HubPackages

            address = self.address
            self._locker = Locker(HubPackages(address.url, address.secret) if address is not None else None)
        return self._locker

    # --- blobs ---

    def fetch(self, digest: Digest) -> bytes | Path:
        """Return a blob's bytes, or the file that it lies in, from a user's thread; raises NotFound."""
        return self.engine.run(self.session.blobs.fetch(digest))

    def fetch_to(self, digest: Digest, place: Path) -> None:
        """Write a blob into a file, going on with what is there of it; raises NotFound, OSError."""
        self.engine.run(self.session.blobs.fetch_to(digest, place))

    def temporary_folder(self) -> Path:
        """Return a folder that goes with this handle and all that was had through it."""
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="fallow-client-"))
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        return self._temporary

    def keep_pieces(self, pieces: Sequence[Piece]) -> Digest:
        """Make the hub keep a blob for the session's life, from a user's thread; return its digest. Raises HubFull."""
        staged = stage(pieces, self.session.blobs.incoming)
        try:
            self.engine.run(self.session.blobs.keep(*staged))
        finally:
            staged.remove()
        return staged.digest


def _digest_of(path: Path) -> Digest:
    hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
    hasher.update_mmap(path)
    return Digest(hasher.hexdigest())


def is_interactive() -> bool:
    """Whether somebody may be looking: a terminal or a notebook."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()
