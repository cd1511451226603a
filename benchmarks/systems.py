"""The systems that run the workloads: the same few methods over each."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self

from fallow import Grid
from fallow.demo.fleet import Fleet

WORKERS = 2


class System(Protocol):
    """What a workload needs of a system; `with` starts and ends it."""

    name: str

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def submit(self, function: Callable[..., Any], *args: Any) -> Any: ...
    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]: ...


class Pool:
    """The standard library's process pool."""

    name = "pool"

    def __init__(self) -> None:
        self.chunk = 10_000

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(WORKERS)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.submit(function, *args)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self._pool.map(function, items, chunksize=self.chunk))


class Embedded:
    """`Grid()` in this process."""

    name = "embedded"

    def __enter__(self) -> Self:
        self._grid = Grid(slots=WORKERS, progress=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._grid.close()

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._grid.submit(function, *args)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self._grid.map(function, items))


class ThroughHub(Embedded):
    """A hub and two nodes of one slot, all processes of their own, on loopback."""

    name = "hub"

    def __enter__(self) -> Self:
        self.fleet = Fleet(WORKERS)
        self.fleet.__enter__()
        self._grid = Grid(self.fleet.url, token=self.fleet.token, progress=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._grid.close()
        self.fleet.stop()
