"""joblib with its default backend, loky. It sizes its batches itself and maps large arrays through files in memory.

Single calls go to the executor that `Parallel` itself uses, as two of loky's would fight for one place.
"""

from collections.abc import Callable, Iterable
from typing import Any

import tasks
from joblib import Parallel, delayed
from joblib.executor import get_memmapping_executor

from systems import WORKERS, System


class Joblib(System):
    packages = ("joblib",)

    def start(self) -> None:
        self._executor = get_memmapping_executor(WORKERS)

    def stop(self) -> None:
        self._executor.shutdown(kill_workers=True)

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._executor.submit(function, *args)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return Parallel(n_jobs=WORKERS)(delayed(function)(item) for item in items)

    def map_by_hand(self, count: int, chunk: int) -> int:
        starts = range(0, count, chunk)
        work = (delayed(tasks.squares)(start, min(start + chunk, count)) for start in starts)
        return sum(map(sum, Parallel(n_jobs=WORKERS)(work)))

    def broadcast(self, array: Any, count: int) -> list[float]:
        return Parallel(n_jobs=WORKERS)(delayed(tasks.touch)(array, number) for number in range(count))


SYSTEM = Joblib
