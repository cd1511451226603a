"""The systems that run the workloads, one in each module, by the name of the module.

A module here may import nothing of another system: each runs in an environment of its own.
"""

import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

WORKERS = 2
CHUNKS = (5_000, 20_000, 50_000, 125_000, 250_000)


class System:
    """What a workload needs of a system. Futures have `result()`; all else is the system's own."""

    packages: tuple[str, ...] = ()
    """Distributions whose versions are printed."""
    chunks: tuple[int, ...] = CHUNKS
    """Chunk sizes to choose from for the map by hand."""

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        raise NotImplementedError

    def gather(self, futures: list[Any]) -> list[Any]:
        return [future.result() for future in futures]

    def cancel(self, futures: list[Any]) -> None:
        for future in futures:
            future.cancel()

    def urgent(self, function: Callable[..., Any], *args: Any) -> Any:
        """Submit ahead of all that is queued, where the system knows priorities."""
        return self.submit(function, *args)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Map the way that the manual shows first, with no chunk size given."""
        return self.gather([self.submit(function, item) for item in items])

    def map_bag(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Map by a second way that needs no chunk size, where there is one."""
        raise NotImplementedError

    def map_by_hand(self, count: int, chunk: int) -> int:
        """Square range(count) in chunks of this size, the fastest way there is; return the sum of the squares."""
        starts = range(0, count, chunk)
        pages = self.gather([self.submit(squares(), start, min(start + chunk, count)) for start in starts])
        return sum(map(sum, pages))

    def spread(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """Map tasks that take unequal time."""
        return self.map(function, items)

    def totals(self, arrays: list[Any]) -> list[float]:
        """Send arrays to tasks, get their sums."""
        return self.map(tasks().total, arrays)

    def arrays(self, count: int) -> list[Any]:
        """Get arrays from tasks."""
        return self.map(tasks().make, range(count))

    def broadcast(self, array: Any, count: int) -> list[float]:
        """Let many tasks use one array."""
        raise NotImplementedError

    def queue(self, count: int) -> list[Any]:
        """Queue short tasks one by one, as `submit` does it."""
        function = tasks().pause
        return [self.submit(function, 0.001) for _ in range(count)]

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in self.packages}

    def settle(self) -> None:
        """Return when nothing is left to do of the start."""

    def processes(self) -> dict[str, int]:
        """Return process ids whose memory is reported by itself."""
        return {}


def tasks() -> Any:
    """Return the module of the task functions, by the name under which workers import it."""
    return importlib.import_module("tasks")


def squares() -> Callable[[int, int], list[int]]:
    function: Callable[[int, int], list[int]] = tasks().squares
    return function


def open_system(name: str) -> System:
    system: System = importlib.import_module(f"systems.{name}").SYSTEM()
    return system


def saved_array(folder: str, array: Any) -> str:
    """Write an array for workers on the same computer to map: for systems that have no way of their own."""
    import numpy as np

    path = f"{folder}/broadcast.npy"
    np.save(path, array)
    return path
