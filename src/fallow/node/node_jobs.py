"""The jobs that a node knows, and what each needs before a task of it can start: function, sources, environment, image."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from fallow.model.errors import BadRequest, EnvironmentFailed
from fallow.model.ids import Digest, JobId
from fallow.model.job import JobSpec
from fallow.node.environments import Environments
from fallow.node.node_job import PLATFORM, NodeJob, unpack_sources
from fallow.node.off_loop import OffLoop
from fallow.node.settings import NodeSettings
from fallow.node.slot_kind import SlotKind, kind_of
from fallow.node.slots import SlotPool


class Fetch(Protocol):
    def __call__(self, digest: Digest, *, own: bool = False) -> Path | None:
        """Return where a blob lies; if it is not here yet, ask for it: `blob_arrived` follows. own: in the node's own cache."""
        ...


class NodeJobs:
    """All jobs of the node, from the spec until Forget."""

    def __init__(
        self,
        settings: NodeSettings,
        pool: SlotPool,
        environments: Environments,
        off_loop: OffLoop,
        fetch: Fetch,
        *,
        on_prepared: Callable[[], None],
        on_broken: Callable[[NodeJob], None],
        on_note: Callable[[JobId, str], None],
    ) -> None:
        """on_prepared: tasks of a job can start now; not called from within a call of `add` or `blob_arrived`, after which that
        may be so too. on_broken: a job can't run here, for the reason that it says. on_note: for the people whose job it is.
        """
        self._name = settings.name
        self._sources_folder = settings.folder / "sources"
        self._pool = pool
        self._environments = environments
        self._off_loop = off_loop
        self._fetch_blob = fetch
        self._on_prepared = on_prepared
        self._on_broken = on_broken
        self._on_note = on_note
        self._jobs: dict[JobId, NodeJob] = {}
        self._numbers = 0
        self._preparing: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        shutil.rmtree(self._sources_folder, ignore_errors=True)  # of earlier jobs; archives are in the cache
        self._sources_folder.mkdir(parents=True)

    def close(self) -> None:
        for task in self._preparing:
            task.cancel()
        self._environments.close()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[NodeJob]:
        return iter(self._jobs.values())

    def __getitem__(self, job: JobId) -> NodeJob:
        return self._jobs[job]

    def get(self, job: JobId) -> NodeJob | None:
        return self._jobs.get(job)

    def add(self, spec: JobSpec) -> NodeJob:
        """Take a job, and get what it needs; one that is known stays as it is."""
        job = self._jobs.get(spec.id)
        if job is None:
            self._numbers += 1
            job = NodeJob(self._numbers, spec, kind_of(spec, self._pool.default, self._pool.levels))
            self._jobs[spec.id] = job
            job.missing = {digest for digest in job.missing if self.fetch(job, digest) is None}
            if not job.missing:
                self._prepare(job)
        return job

    def forget(self, job: JobId) -> None:
        """The job is over."""
        held = self._jobs.pop(job, None)
        if held is not None:
            for slot in self._pool:
                slot.forget(held)

    def kind_unusable(self, kind: SlotKind, reason: str) -> None:
        """No slot of the kind can be started."""
        for job in [job for job in self._jobs.values() if job.kind == kind]:
            self._lack_environment(job, reason)

    # --- blobs ---

    def fetch(self, job: NodeJob, digest: Digest) -> Path | None:
        """Return where the job's slots can read a blob; None if it is not there yet."""
        return self._fetch_blob(digest, own=job.kind.sandbox != "process")

    def needs(self, digest: Digest) -> bool:
        return any(digest in job.spec.blobs for job in self._jobs.values())

    def blob_arrived(self, digest: Digest) -> None:
        for job in list(self._jobs.values()):
            if digest in job.missing and self.fetch(job, digest) is not None:
                job.missing.discard(digest)
                if not job.missing:
                    self._prepare(job)

    def blob_missing(self, digest: Digest, reason: str) -> None:
        """A blob can't be had."""
        for job in list(self._jobs.values()):
            if digest in job.missing:
                self._break(job, reason)

    # --- once all blobs are here ---

    def _prepare(self, job: NodeJob) -> None:
        spec = job.spec
        function = self.fetch(job, spec.function)
        refs = {digest: path for digest in spec.refs_on(PLATFORM) if (path := self.fetch(job, digest)) is not None}
        folders = [self._sources_folder / digest for digest in spec.sources.values()]
        packed = {digest: self._sources_folder / digest for digest in spec.sources.values()}
        packed = {digest: folder for digest, folder in packed.items() if not folder.exists()}
        assert function is not None
        if not packed and spec.environment is None and not spec.containment.wants_image:
            try:
                job.prepare(function, folders, refs)
            except OSError as error:
                self._break(job, f"its function can't be read: {error}")
            return

        async def unpack() -> None:
            try:
                for digest, folder in packed.items():
                    archive = self._fetch_blob(digest)
                    assert archive is not None
                    await self._off_loop(lambda archive=archive, folder=folder: unpack_sources(archive, folder))  # type: ignore[misc]
                if spec.environment is not None:
                    await self._build(spec.environment, spec)
                if spec.containment.wants_image:
                    await self._fetch_image(job)
                job.prepare(function, folders, refs)
            except EnvironmentFailed as error:
                self._lack_environment(job, str(error))
                return
            except (BadRequest, OSError) as error:
                self._break(job, str(error))
                return
            self._on_prepared()

        task = asyncio.get_running_loop().create_task(unpack())
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def _build(self, environment: Digest, spec: JobSpec) -> None:
        lock = self._fetch_blob(environment)
        assert lock is not None
        blobs = {digest: path for digest in spec.refs if (path := self._fetch_blob(digest)) is not None}
        self._pool.pythons[environment] = await self._environments.python_of(environment, lock, blobs)

    async def _fetch_image(self, job: NodeJob) -> None:
        wanted = job.spec.containment
        archive = None if wanted.image_archive is None else self._fetch_blob(wanted.image_archive)
        sandbox = self._pool.sandbox(job.kind.sandbox)
        containment = await sandbox.prepare(wanted, archive)
        job.kind = msgspec.structs.replace(job.kind, containment=containment)
        note = f"fallow: {wanted.image or 'the image archive'} is {containment.image} on {self._name}\n"
        self._on_note(job.spec.id, note)

    def trim_environments(self) -> None:
        """Remove environments that nothing here needs, if they take too much room."""
        kinds = [kind for slot in self._pool for kind in (slot.process.kind, slot.next_kind) if kind is not None]
        needed = {kind.environment for kind in kinds} | {job.spec.environment for job in self._jobs.values()}
        self._environments.trim(lambda digest: digest in needed)
        self._pool.pythons = {digest: python for digest, python in self._pool.pythons.items() if digest in needed}

    def _lack_environment(self, job: NodeJob, reason: str) -> None:
        job.lacks_environment = True
        self._break(job, f"the environment can't be had on {self._name}: {reason}")

    def _break(self, job: NodeJob, reason: str) -> None:
        job.broken = reason
        self._on_broken(job)
