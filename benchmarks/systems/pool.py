"""The standard library's process pool."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import tasks

from systems import WORKERS, System


class Pool(System):
    def start(self) -> None:
        self._pool = ProcessPoolExecutor(WORKERS)

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.submit(function, *args)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return list(self._pool.map(function, items))

    def map_by_hand(self, count: int, chunk: int) -> int:
        return sum(self._pool.map(tasks.square, range(count), chunksize=chunk))

    def broadcast(self, array: Any, count: int) -> list[float]:
        """Fork new workers, which have the array in their memory: the pool has no other way that does not copy."""
        self.stop()
        tasks.inherited = array
        self.start()
        return list(self._pool.map(tasks.touch_inherited, range(count), chunksize=count // 10 or 1))


SYSTEM = Pool
