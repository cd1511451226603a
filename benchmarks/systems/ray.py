"""Ray: `ray.init(num_cpus=2)`, remote functions made once, `ray.get` of all references together."""

import os
from collections.abc import Callable, Iterable
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about a default to come

import ray
import tasks
from ray.util.multiprocessing import Pool

from systems import WORKERS, System


class Reference:
    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def result(self) -> Any:
        return ray.get(self.reference)


class Ray(System):
    packages = ("ray",)

    def start(self) -> None:
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
        self._remote: dict[Callable[..., Any], Any] = {}
        self._pool: Pool | None = None

    def stop(self) -> None:
        ray.shutdown()

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        remote = self._remote.get(function)
        if remote is None:
            remote = self._remote[function] = ray.remote(function)
        return Reference(remote.remote(*args))

    def gather(self, futures: list[Any]) -> list[Any]:
        return ray.get([future.reference for future in futures])

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        if self._pool is None:
            self._pool = Pool(WORKERS)
        return self._pool.map(function, items)

    def spread(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """One remote call each: its pool cuts the items into chunks beforehand, which is worse here."""
        return System.map(self, function, items)

    def totals(self, arrays: list[Any]) -> list[float]:
        return System.map(self, tasks.total, arrays)

    def arrays(self, count: int) -> list[Any]:
        return System.map(self, tasks.make, range(count))

    def broadcast(self, array: Any, count: int) -> list[float]:
        reference = ray.put(array)
        return self.gather([self.submit(tasks.touch, reference, number) for number in range(count)])


SYSTEM = Ray
