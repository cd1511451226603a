"""How a progress bar is drawn: in a terminal by rich, in a notebook by the notebook itself."""

import html
import importlib
import sys
import time
from typing import Any, Protocol

from fallow.model.job import JobProgress

BAR_CHARS = 30


class Bar(Protocol):
    """What is drawn; on the thread that waits."""

    def draw(self, progress: JobProgress) -> None: ...
    def close(self) -> None: ...


def make_bar(label: str) -> Bar:
    """Begin to draw, where the user looks."""
    return NotebookBar(label) if is_notebook() else TerminalBar(label)


def is_notebook() -> bool:
    """Whether this process runs a notebook's cells."""
    return "ipykernel" in sys.modules and sys.modules["IPython"].get_ipython() is not None


class TerminalBar:
    """A line of the terminal that goes when the job ends."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=5,
        )
        self._task = self._bar.add_task(label, total=None, failed="")
        self._bar.start()

    def draw(self, progress: JobProgress) -> None:
        failed = f"[red]{progress.failed} failed[/]" if progress.failed else ""
        self._bar.update(self._task, completed=progress.settled, total=progress.size, failed=failed)

    def close(self) -> None:
        self._bar.stop()


class NotebookBar:
    """A line below the cell, drawn anew in its place, that goes when the job ends. Needs no widgets."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._began_mono = time.monotonic()
        # rich would draw with ipywidgets, which not every notebook has
        display: Any = importlib.import_module("IPython.display").display
        self._handle = display({"text/plain": label}, raw=True, display_id=True)

    def draw(self, progress: JobProgress) -> None:
        settled, size = progress.settled, progress.size
        count = f"{settled}/{size}" if size is not None else f"{settled}/?"
        failed = f", {progress.failed} failed" if progress.failed else ""
        after = f"{count}{failed}, {time.monotonic() - self._began_mono:.0f} s"
        done = min(1.0, settled / size) if size else 0.0
        text = f"{self._label} [{'=' * int(done * BAR_CHARS):{BAR_CHARS}}] {after}"
        markup = f'{html.escape(self._label)} <progress value="{done:.3f}" max="1"></progress> {html.escape(after)}'
        self._handle.update({"text/plain": text, "text/html": markup}, raw=True)

    def close(self) -> None:
        self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
