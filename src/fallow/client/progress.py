"""Progress bars for long waits, in terminals and notebooks."""

import time
from typing import TYPE_CHECKING

from fallow.client.readers import TimeIsUp

if TYPE_CHECKING:
    from fallow.client.bars import Bar
    from fallow.client.job_state import JobState
    from fallow.client.readers import CompletionReader, Entry, OrderedReader

PATIENCE_S = 1.0
"""Waits shorter than this show nothing."""
REFRESH_S = 0.2


class NoBar:
    """Waits, and shows nothing."""

    def wait_for(self, reader: "OrderedReader | CompletionReader", timeout: float | None) -> "Entry | None":
        return reader.take(timeout)

    def close(self) -> None:
        """Nothing is shown."""


class ProgressBar:
    """Waits, and after PATIENCE_S shows how far the job is."""

    def __init__(self, label: str, state: "JobState") -> None:
        self._label = label
        self._state = state
        self._began = time.monotonic()
        self._shown_mono = self._began
        self._bar: Bar | None = None

    def wait_for(self, reader: "OrderedReader | CompletionReader", timeout: float | None) -> "Entry | None":
        now = time.monotonic()
        if now - self._shown_mono >= REFRESH_S:  # results may come so often that no wait is ever long
            self._show()
        deadline = None if timeout is None else now + timeout
        while True:
            left = REFRESH_S if deadline is None else min(REFRESH_S, deadline - time.monotonic())
            try:
                return reader.take(max(0.0, left))
            except TimeIsUp:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                self._show()

    def _show(self) -> None:
        self._shown_mono = time.monotonic()
        if self._bar is None:
            if time.monotonic() - self._began < PATIENCE_S:
                return
            from fallow.client.bars import make_bar  # most waits need none

            self._bar = make_bar(self._label)
        if self._state.progress is not None:
            self._bar.draw(self._state.progress)

    def close(self) -> None:
        if self._bar is not None:
            self._show()
            self._bar.close()
            self._bar = None
