"""Results that are files, on their way from a slot to the outbox: claimed at once, hashed beside the loop if need be, and named in their page."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from fallow.model.ids import JobId, LeaseId
from fallow.model.page import ResultPage
from fallow.node.blobs import NodeBlobs
from fallow.node.cache import BlobCache
from fallow.node.failures import failed_page
from fallow.node.outbox import Outbox
from fallow.node.settings import NodeSettings


class LargeResults:
    """Those of one node. Of what is being hashed the hub knows nothing yet: `undelivered` tells."""

    def __init__(self, settings: NodeSettings, cache: BlobCache, blobs: NodeBlobs, outbox: Outbox) -> None:
        self._settings = settings
        self._cache = cache
        self._blobs = blobs
        self._outbox = outbox
        self._hashing: dict[asyncio.Task[None], tuple[LeaseId, JobId, int, int]] = {}

    def close(self) -> None:
        for task in self._hashing:
            task.cancel()

    @property
    def is_empty(self) -> bool:
        return not self._hashing

    def undelivered(self) -> Collection[tuple[LeaseId, JobId, int, int]]:
        """Return the tasks [start, stop) of each page that is not in the outbox yet."""
        return self._hashing.values()

    def take(
        self, lease: LeaseId, job: JobId, page: ResultPage, path: Path | None, files: Sequence[Path], *, at_once: bool
    ) -> None:
        """Take a page of results. path: the file that its bytes are in, if they are many. files: what its values refer to."""
        self._outbox.flush()
        try:  # now: the slot's folder goes when the slot ends
            claimed = None if path is None else self._cache.claim(path)
            if claimed is not None and not self._settings.hashes_results:
                page = msgspec.structs.replace(page, blob=self._blobs.name_result(claimed))
                claimed = None
            if claimed is None and not files:
                self._outbox.add(lease, job, page, at_once=True)
                return
            work = self._hash(lease, job, page, claimed, [self._cache.claim(each) for each in files])
        except OSError as error:
            self._outbox.add(lease, job, self._not_stored(page, error), at_once=at_once)
            return
        task = asyncio.get_running_loop().create_task(work)
        self._hashing[task] = (lease, job, page.start, page.stop)
        task.add_done_callback(lambda done: self._hashing.pop(done, None))

    async def _hash(
        self, lease: LeaseId, job: JobId, page: ResultPage, path: Path | None, files: Sequence[Path]
    ) -> None:
        try:
            blob = page.blob if path is None else await self._blobs.keep_result(path)
            digests = tuple([await self._blobs.keep_result(each) for each in files])
            page = msgspec.structs.replace(page, blob=blob, files=digests)
        except OSError as error:
            page = self._not_stored(page, error)
        self._outbox.add(lease, job, page, at_once=True)

    def _not_stored(self, page: ResultPage, error: OSError) -> ResultPage:
        message = f"its result can't be stored on the node: {error}"
        return failed_page(page.start, page.stop, "OSError", message, self._settings.name)
