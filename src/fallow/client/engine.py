"""The thread on which everything that waits for the network runs, beside the user's threads."""

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from fallow.link.loop import loop_factory
from fallow.model.errors import Closed

T = TypeVar("T")


class Engine:
    """One event loop in one daemon thread, from `start` to `stop`."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        started = threading.Event()

        def run() -> None:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                self.loop = runner.get_loop()
                self._ended = asyncio.Event()
                started.set()
                runner.run(self._ended.wait())

        self._thread = threading.Thread(target=run, name="fallow", daemon=True)
        self._thread.start()
        started.wait()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the engine's thread, and so must not wait for it."""
        return threading.current_thread() is self._thread

    def post(self, callback: Callable[..., Any], *args: Any) -> None:
        """Run a callback on the loop soon; from any thread. After `stop`: nothing happens."""
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if self.is_running:
                raise

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the loop; from any thread but the loop's own."""
        if not self.is_running:
            work.close()
            raise Closed
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and wait for it; timeout in seconds."""
        future = self.submit(work)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread; tasks that are left are cancelled."""
        if self.is_running:
            self.post(self._ended.set)
            if not self.is_current:
                assert self._thread is not None
                self._thread.join()


def at_exit(callback: Callable[[], object]) -> None:
    """Call back when the interpreter begins to exit, the latest registered first.

    Earlier than `atexit`, which comes when executors take no more work, and so nothing could be written to a disk any more;
    the standard library's executors end by the same hook.
    """
    register = getattr(threading, "_register_atexit", atexit.register)
    register(callback)
