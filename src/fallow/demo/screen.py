"""What the demo shows: a live table in a terminal, plain lines everywhere else.

Owns the output only; what is shown is handed in.
"""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fallow.demo.roster import Row

PLAIN_STEPS = 4
"""How many progress lines a run prints where nothing can be redrawn."""


class Screen:
    """Events stay, the state of things is redrawn below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._began_mono = time.monotonic()
        self._shown_step = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Add a line that stays, with the seconds since the start."""
        line = Text(f"{time.monotonic() - self._began_mono:6.1f} s  ", style="dim")
        self._console.print(line.append(Text(text, style="not dim")), soft_wrap=True)

    def progress(self, what: str, done: int, total: int, seconds: float, nodes: Sequence[Row] = ()) -> None:
        """Redraw how far the work is and what each node does; plain output gets a line at each quarter."""
        rate = done / seconds if seconds > 0 else 0.0
        line = f"{what}: {done:,} of {total:,} tasks, {rate:,.1f} tasks/s"
        if self._live is not None:
            self._live.update(_picture(line, done, total, nodes), refresh=True)
            return
        step = done * PLAIN_STEPS // total if total else PLAIN_STEPS
        if step > self._shown_step:
            each = "; ".join(f"{node.name} {node.finished:,} done, {node.tasks:,} leased" for node in nodes)
            self.say(f"{line}{f' ({each})' if each else ''}")
        self._shown_step = step

    def clear(self) -> None:
        """Take away what was redrawn: the next part begins."""
        self._shown_step = 0
        if self._live is not None:
            self._live.update("", refresh=True)


def _picture(line: str, done: int, total: int, nodes: Sequence[Row]) -> RenderableType:
    parts: list[RenderableType] = [Text(line), ProgressBar(total=max(total, 1), completed=done, width=60)]
    if nodes:
        table = Table("node", "state", box=None, pad_edge=False)
        for title in ("done", "leases", "tasks leased"):
            table.add_column(title, justify="right")
        for node in nodes:
            state = Text("connected", "green") if node.connected else Text("gone", "red")
            table.add_row(node.name, state, f"{node.finished:,}", str(node.leases), f"{node.tasks:,}")
        parts.append(table)
    return Group(*parts)
