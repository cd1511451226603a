"""The one writer in front of the state: changes gather while a commit runs, then go as one group.

With a durable state, commits run in one writer thread and cost one fsync per group, however much arrived
meanwhile (group commit). What nobody waits for stays some milliseconds for others to join it: so a client that submits
one call after another does not have the hub commit twice for each. Without, they are applied at once on the event loop.
"""

import asyncio
import errno
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fallow.log import Logger
from fallow.model.changes import Change
from fallow.model.errors import HubFull, Unavailable
from fallow.state.state import State

REOPENING = "the hub could not write its state and opens it again; try in a moment"

LINGER_S = 0.010
"""How long changes wait for others before they are committed, if nobody waits for that …"""
LINGER_CHANGES = 256
"""… and they are fewer than these."""

_log = Logger("fallow.hub")


class Journal:
    """Commits changes in order; callbacks run on the loop once everything appended before them is durable."""

    def __init__(self, state: State, on_failure: Callable[[BaseException], None]) -> None:
        """on_failure: called on the loop when a group was refused; the caller treats it as a crash of the hub."""
        self._state = state
        self._on_failure = on_failure
        self._changes: list[Change] = []
        self._callbacks: list[Callable[[], None]] = []
        self._writer: ThreadPoolExecutor | None = None
        self._is_committing = False
        self._is_scheduled = False
        self._is_urgent = False
        self._lingering: asyncio.TimerHandle | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._failed = False
        """Nothing is committed any more: a commit was refused, or the journal has stopped."""
        self.commits = 0
        """Groups committed since start, for metrics."""
        self.commit_s = 0.0
        """How long that took, from handing each group over to its being durable."""
        self._began_mono = 0.0

    def start(self) -> None:
        """Begin, or begin anew after a failure: what was not committed is gone."""
        self._loop = asyncio.get_running_loop()
        self._failed = False
        self._is_committing = self._is_scheduled = False
        self._changes, self._callbacks = [], []
        self._stop_lingering()
        if self._state.is_durable and self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="fallow-journal")

    def append(self, change: Change) -> None:
        """Commit this with the next group."""
        self._changes.append(change)
        if not self._is_scheduled and not self._is_committing:
            self._schedule()

    def after_commit(self, callback: Callable[[], None], *, is_urgent: bool = True) -> None:
        """Call back once everything that was appended so far is durable. is_urgent: somebody waits for that."""
        self._callbacks.append(callback)
        self._is_urgent |= is_urgent
        if not self._is_scheduled and not self._is_committing:
            self._schedule()

    async def barrier(self) -> None:
        """Wait until everything that was appended so far is durable; raises Unavailable (HubFull) if it can't be."""
        if self._failed:
            raise Unavailable(REOPENING)
        if not self._changes and not self._is_committing:
            return
        durable = self._loop.create_future()
        self._waiting.add(durable)
        self.after_commit(lambda: None if durable.done() else durable.set_result(None))
        try:
            await durable
        finally:
            self._waiting.discard(durable)

    async def stop(self) -> None:
        """Commit what is left and end the writer."""
        if not self._failed:
            await self.barrier()
        self._failed = True  # what links still say while they close is for the next hub
        if self._writer is not None:
            self._writer.shutdown(wait=True)

    def _schedule(self) -> None:
        """Commit soon; called again when there is more."""
        if self._is_urgent or len(self._changes) >= LINGER_CHANGES or self._writer is None:
            # at the end of this turn of the loop, so that what one frame caused is one group
            self._stop_lingering()
            self._is_scheduled = True
            self._loop.call_soon(self._commit)
        elif self._lingering is None:
            self._lingering = self._loop.call_later(LINGER_S, self._commit)

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _commit(self) -> None:
        self._is_scheduled = self._is_urgent = False
        self._stop_lingering()
        if self._failed:
            return
        changes, self._changes = self._changes, []
        callbacks, self._callbacks = self._callbacks, []
        self._began_mono = time.monotonic()
        if self._writer is not None and changes:
            self._is_committing = True
            commit = self._loop.run_in_executor(self._writer, self._state.commit, changes)
            commit.add_done_callback(lambda done: self._committed(done, callbacks))
            return
        try:
            self._state.commit(changes)
        except OSError as error:  # no room for a page in a file
            self._fail(error)
            return
        self._succeed(callbacks)

    def _committed(self, done: "asyncio.Future[None]", callbacks: list[Callable[[], None]]) -> None:
        self._is_committing = False
        error = done.exception()
        if error is not None:
            self._fail(error)
            return
        self._succeed(callbacks)
        if self._changes or self._callbacks:
            self._schedule()

    def _succeed(self, callbacks: list[Callable[[], None]]) -> None:
        self.commits += 1
        self.commit_s += time.monotonic() - self._began_mono
        for callback in callbacks:
            callback()

    def _fail(self, error: BaseException) -> None:
        _log.error("commit failed", error=repr(error))
        self._failed = True
        self._refuse_waiting(error)
        self._on_failure(error)

    def _refuse_waiting(self, error: BaseException) -> None:
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        for durable in self._waiting:
            if not durable.done():
                durable.set_exception(HubFull() if is_full else Unavailable(REOPENING))
