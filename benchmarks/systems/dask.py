"""Dask distributed: a `LocalCluster` of two single-threaded worker processes; large data by `scatter`, as its manual has it."""

from collections.abc import Callable, Iterable
from typing import Any

import dask.bag
import tasks
from dask.distributed import Client, LocalCluster

from systems import WORKERS, System


class Dask(System):
    packages = ("distributed",)
    chunks = (5_000, 25_000, 50_000)

    def start(self) -> None:
        self._cluster = LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
        self._client = Client(self._cluster)

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False)

    def urgent(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False, priority=10)

    def gather(self, futures: list[Any]) -> list[Any]:
        return self._client.gather(futures)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return self.gather(self._client.map(function, items, pure=False))

    def map_bag(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """A bag cuts itself into partitions."""
        return list(dask.bag.from_sequence(items).map(function).compute())

    def totals(self, arrays: list[Any]) -> list[float]:
        return self.map(tasks.total, self._client.scatter(arrays))

    def broadcast(self, array: Any, count: int) -> list[float]:
        reference = self._client.scatter(array, broadcast=True)
        return self.gather([self.submit(tasks.touch, reference, number) for number in range(count)])


SYSTEM = Dask
