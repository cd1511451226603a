"""What a sandbox that enforces limits itself tells of a slot: it takes the place of a control group of ours."""

from collections.abc import Callable, Sequence

from fallow.node.cgroups import CONTROLLERS, Controller


class Accounts:
    """What a slot has used; see `fallow.node.cgroups.Group`."""

    controls: frozenset[Controller] = frozenset(CONTROLLERS)

    def __init__(self) -> None:
        self.ask: Callable[[], None] = lambda: None
        """Brings the figures up to date, if they can be had now."""
        self._peak_memory_bytes = self._memory_kills = self._refusals = 0

    def note(self, peak_memory_bytes: int, memory_kills: int, refusals: int) -> None:
        """memory_kills: processes killed for want of memory. refusals: how often there was one process too many."""
        self._peak_memory_bytes = max(self._peak_memory_bytes, peak_memory_bytes)
        self._memory_kills = max(self._memory_kills, memory_kills)
        self._refusals = max(self._refusals, refusals)

    def prefix(self) -> Sequence[str]:
        return ()

    def peak_memory_bytes(self) -> int | None:
        self.ask()
        return self._peak_memory_bytes or None

    def killed_for_memory(self) -> bool:
        return self._memory_kills > 0

    def refused_processes(self) -> bool:
        return self._refusals > 0

    def processes(self) -> list[int]:
        return []

    def remove(self) -> bool:
        return True
