"""`Grid()` in the client's own process: state in memory, nothing on disk."""

from collections.abc import Callable, Iterable
from typing import Any

import tasks

from fallow import Grid
from systems import WORKERS, System


class Embedded(System):
    packages = ("fallow", "cloudpickle", "msgspec", "websockets")

    def start(self) -> None:
        self._grid = Grid(slots=WORKERS, progress=False)

    def stop(self) -> None:
        self._grid.close()

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._grid.submit(function, *args)

    def urgent(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._grid.options(priority=10).submit(function, *args)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self._grid.map(function, items))

    def broadcast(self, array: Any, count: int) -> list[float]:
        ref = self._grid.put(array)
        return self.gather([self.submit(tasks.touch, ref, number) for number in range(count)])


SYSTEM = Embedded
