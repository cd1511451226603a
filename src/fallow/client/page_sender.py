"""Sends a job's pages in order; large ones are uploaded beside each other, so that none waits while another is synced."""

import asyncio
from typing import TYPE_CHECKING

from fallow.client.inputs import Page
from fallow.client.job_state import JobState
from fallow.client.session import JobFeed
from fallow.client.staging import Staged, stage
from fallow.model.errors import FallowError
from fallow.model.page import InputPage

if TYPE_CHECKING:
    from fallow.client.core import GridCore

SWEEP_S = 2.0
"""A kept blob that waits longer than this for pages before its own is offered again: the hub may sweep it after five."""


class PageSender:
    """One for each feeder: `send` and `finish` are called in its thread, the rest runs on the loop."""

    def __init__(self, core: "GridCore", feed: JobFeed, state: JobState) -> None:
        self._core = core
        self._feed = feed
        self._state = state
        self._last: asyncio.Task[None] | None = None
        self._failed = False

    def send(self, page: Page) -> None:
        """Send a page behind those before; returns once a large one is hashed and written, or joined."""
        job, digests = self._feed.spec.id, self._core.digests(page.refs)
        if page.fits_inline:
            found, staged = InputPage(job, page.start, page.stop, b"".join(page.pieces), None, digests), None
        else:
            staged = stage(page.pieces, self._core.session.blobs.incoming)
            found = InputPage(job, page.start, page.stop, None, staged.digest, digests)
        self._core.engine.post(self._begin, found, staged)

    def finish(self) -> bool:
        """Wait until all pages were sent; return False if one could not be."""
        return self._core.engine.run(self._finish())

    async def _finish(self) -> bool:
        if self._last is not None:
            await self._last
        return not self._failed

    def _begin(self, page: InputPage, staged: Staged | None) -> None:
        if staged is None and (self._last is None or self._last.done()):
            self._add(page)
        else:
            self._last = asyncio.get_running_loop().create_task(self._send(page, staged, self._last))

    def _add(self, page: InputPage) -> None:
        if not self._failed:
            self._core.session.add_input(self._feed, page)

    async def _send(self, page: InputPage, staged: Staged | None, before: "asyncio.Task[None] | None") -> None:
        try:
            if staged is not None:
                await self._core.session.blobs.keep_page(*staged)
            if before is not None and not before.done():
                await self._after(before, staged)
        except FallowError as error:
            self._fail(error)
        else:
            self._add(page)
        finally:
            if staged is not None:
                staged.remove()

    async def _after(self, before: "asyncio.Task[None]", staged: Staged | None) -> None:
        loop = asyncio.get_running_loop()
        kept_at = loop.time()
        await before
        if staged is not None and loop.time() - kept_at > SWEEP_S and staged.is_here:
            await self._core.session.blobs.keep_page(*staged)

    def _fail(self, error: FallowError) -> None:
        if not self._failed:
            self._failed = True
            self._state.on_error(error)
            self._core.session.cancel(self._feed.spec.id)
