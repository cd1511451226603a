"""What each node of a demo is doing, and has done in all.

The hub forgets a lost node, and counts anew when it returns; the demo's picture keeps it and adds up.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fallow.model.errors import Unavailable


class Row(NamedTuple):
    """One node as the demo shows it."""

    name: str
    connected: bool = False
    finished: int = 0
    """Tasks finished since the demo started."""
    leases: int = 0
    tasks: int = 0
    """Tasks leased to it now."""


class Roster:
    """The nodes by name, as of the last look."""

    def __init__(self, names: Sequence[str], ask: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        """ask: returns what `GET /api/v1/nodes` says, by name; a hub that does not answer leaves the picture as it is."""
        self._names = names
        self._ask = ask
        self._counted: dict[str, int] = dict.fromkeys(names, 0)
        """What the hub last said that the node has finished."""
        self.rows = [Row(name) for name in names]

    def look(self) -> list[Row]:
        """Ask the hub and return the rows, in the order of the names."""
        try:
            found = self._ask()
        except Unavailable:
            return self.rows
        self.rows = [self._row(row, found.get(row.name)) for row in self.rows]
        return self.rows

    def _row(self, last: Row, now: Mapping[str, Any] | None) -> Row:
        if now is None:
            self._counted[last.name] = 0
            return Row(last.name, finished=last.finished)
        counted = now["finished"]
        fresh = counted - self._counted[last.name] if counted >= self._counted[last.name] else counted
        self._counted[last.name] = counted
        return Row(last.name, now["connected"], last.finished + fresh, now["leases"], now["tasks"])
