"""What the web and the clients ask about jobs, by name or id, with the caller's rights."""

import errno
import math
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from fallow.hub.core.job_book import ended_view
from fallow.model.changes import LogEntry
from fallow.model.errors import Forbidden, HubFull, TooLarge
from fallow.model.ids import Digest, JobId
from fallow.model.job import JobInfo, JobSpec
from fallow.model.lease import RunningView
from fallow.model.page import INLINE_BYTES, InputPage, StoredPage
from fallow.model.token import Token

if TYPE_CHECKING:
    from fallow.hub.core.hub import Hub

RANGES_PER_READ = 256
"""Settled ranges looked up in the state at a time."""
MAX_REST_BLOB_BYTES = 64 * INLINE_BYTES
"""Largest blob that is taken in one piece; the Python client sends larger ones in chunks."""


class Front:
    """One per hub. Every answer is for one token: users see their own jobs, admins all."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    def resolve(self, ref: str, token: Token) -> JobId:
        """Return the id of the caller's job called `ref`: a name or an id."""
        named = self._hub.book.named(ref, token.id)
        if named is None and token.role == "admin":
            named = self._hub.book.named(ref, "")
        return named if named is not None else JobId(ref)

    async def job(self, ref: str, token: Token) -> JobInfo:
        """Return the caller's job by id or name; raises JobNotFound."""
        return await self._hub.desk.job_info(self.resolve(ref, token), _owner(token))

    async def jobs(self, token: Token, *, limit: int = 100, before: float | None = None) -> list[JobInfo]:
        """Return the caller's jobs: unfinished ones first, then by end, latest first. before: Unix time of the end.

        A job that ends meanwhile is still among the unfinished.
        """
        owner = _owner(token)
        found: list[JobInfo] = []
        if before is None:
            live = [spec.id for spec in self._hub.book.specs.values() if owner is None or spec.owner == owner]
            found = [self._hub.scheduler.info(job) for job in live if self._hub.scheduler.has_job(job)][-limit:][::-1]
        await self._hub.journal.barrier()
        seen = {info.spec.id for info in found}
        at_once = limit
        while len(found) < limit:
            ended = await self._hub.read(partial(self._hub.state.ended_jobs, limit=at_once, before=before))
            fresh = [job for job in ended if job.spec.id not in seen]
            found += [ended_view(job).info for job in fresh if owner is None or job.spec.owner == owner]
            if len(ended) < at_once:
                break
            seen.update(job.spec.id for job in fresh)
            before = math.nextafter(ended[-1].ended_at, math.inf)  # others may have ended at the same moment
            if not fresh:
                at_once *= 2
        return found[:limit]

    async def create_job(
        self, spec: JobSpec, pages: Sequence[InputPage], token: Token, if_exists: str = "error"
    ) -> JobInfo:
        """Create a whole job at once; it is durable when this returns."""
        if token.role == "node":
            raise Forbidden("a node's token can't create jobs")
        job, is_new = self._hub.desk.open_job(msgspec.structs.replace(spec, owner=token.id), if_exists)
        if is_new:
            for page in pages:
                self._hub.desk.add_input(page)
            self._hub.desk.seal(job, pages[-1].stop if pages else 0)
        await self._hub.journal.barrier()
        return await self._hub.desk.job_info(job)

    async def cancel_job(self, ref: str, token: Token) -> None:
        info = await self.job(ref, token)
        self._hub.desk.cancel(info.spec.id)
        await self._hub.journal.barrier()

    async def delete_job(self, ref: str, token: Token) -> None:
        info = await self.job(ref, token)
        self._hub.desk.delete(info.spec)
        await self._hub.journal.barrier()

    async def results(
        self, ref: str, token: Token, *, start: int = 0, limit_bytes: int = 1 << 20
    ) -> tuple[list[StoredPage], int | None]:
        """Return result pages settled so far that count for indices from `start` on, and where to go on (None: the end)."""
        job = (await self.job(ref, token)).spec.id
        settled = await self._hub.desk.settled(job, _owner(token))
        await self._hub.journal.barrier()
        wanted = settled.within(start, settled.end)[:RANGES_PER_READ]
        if not wanted:
            return [], None
        pages, after = await self._hub.read(
            lambda: self._hub.state.result_pages(job, wanted, after=0, limit_bytes=limit_bytes)
        )
        if after is None and wanted[-1][1] < settled.end:
            after = wanted[-1][1]
        return pages, after

    async def logs(self, ref: str, token: Token, *, after: int = 0) -> tuple[list[LogEntry], int | None]:
        """Return what the job's tasks printed, from entry `after` on (below 0: so many, the last ones), and where to go on."""
        job = (await self.job(ref, token)).spec.id
        await self._hub.journal.barrier()
        return await self._hub.read(lambda: self._hub.state.logs(job, after=after))

    async def running(self, ref: str, token: Token) -> list[RunningView]:
        """Return the job's running tasks, with what they say of their progress."""
        return self._hub.running((await self.job(ref, token)).spec.id)

    async def explain(self, ref: str, token: Token) -> list[str]:
        """Say in plain words what the job is waiting for."""
        info = await self.job(ref, token)
        if self._hub.scheduler.has_job(info.spec.id) and not info.progress.ended:
            return self._hub.scheduler.explain(info.spec.id)
        failed = f", {info.progress.failed} of them failed" if info.progress.failed else ""
        return [f"the job is {info.progress.state}: {info.progress.settled} tasks are settled{failed}"]

    async def keep_blob(self, chunks: AsyncIterator[bytes], token: Token) -> tuple[Digest, int]:
        """Keep a blob of up to 64 INLINE_BYTES that comes as chunks; return its digest and size in bytes."""
        data = bytearray()
        async for chunk in chunks:
            data += chunk
            if len(data) > MAX_REST_BLOB_BYTES:
                raise TooLarge(f"a blob over {MAX_REST_BLOB_BYTES} bytes can't come over REST; use the Python client")
        if not self._hub.house.has_room(len(data)):
            raise HubFull
        content = bytes(data)
        try:
            digest = await self._hub.house.off_loop(lambda: self._hub.blobs.keep_bytes(content))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise HubFull from error
        self._hub.house.confirmed(digest)
        return digest, len(content)


def _owner(token: Token) -> str | None:
    """Whose jobs the token may see: None means everyone's."""
    return None if token.role == "admin" else token.id
