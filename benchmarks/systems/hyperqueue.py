"""HyperQueue: its Python API with a local server and a worker of two cores.

It has no way for results but files, and starts a new interpreter for every function.
"""

import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

import tasks
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.task.function import PythonEnv

from systems import WORKERS, System, saved_array

URGENT = 10
POLL_S = 0.001


def run(path: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call a function on a worker and leave its result in a file."""
    with open(f"{path}.part", "wb") as file:
        pickle.dump(function(*args), file, protocol=5)
    os.replace(file.name, path)


class HyperQueue(System):
    packages = ("hyperqueue",)
    chunks = (125_000, 250_000, 500_000)

    def start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-hq-", ignore_cleanup_errors=True)
        self._numbers = count()
        self._cluster = LocalCluster()
        self._cluster.start_worker(WorkerConfig(cores=WORKERS))
        self._client = self._cluster.client(python_env=PythonEnv(sys.executable))

    def stop(self) -> None:
        self._cluster.stop()
        self._folder.cleanup()

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._submit([(function, args)])[0]

    def urgent(self, function: Callable[..., Any], *args: Any) -> Any:
        """A program instead of a function: that is its quickest."""
        return self._programs([], priority=URGENT)

    def gather(self, futures: list[Any]) -> list[Any]:
        return [each.result() for each in futures]

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return self.gather(self._submit([(function, (item,)) for item in items]))

    def spread(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """Programs (`sleep`), whose start costs a quarter of a function's."""
        assert function is tasks.pause
        self._programs([["sleep", str(seconds)] for seconds in items]).result()
        return items

    def _programs(self, commands: list[list[str]], priority: int = 0) -> Any:
        """Submit programs as one job, and one after them that leaves a file."""
        job = Job(self._folder.name)
        before = [job.program(command, stdout=None, stderr=None) for command in commands]
        done = Path(self._folder.name, str(next(self._numbers)))
        job.program(["touch", str(done)], deps=before, priority=priority, stdout=None, stderr=None)
        self._client.submit(job)
        return Result(done)

    def queue(self, count: int) -> list[Any]:
        """One job of programs."""
        job = Job(self._folder.name)
        for _ in range(count):
            job.program(["sleep", "0.001"], stdout=None, stderr=None)
        return [self._client.submit(job)]

    def map_by_hand(self, count: int, chunk: int) -> int:
        starts = range(0, count, chunk)
        pages = self.gather(self._submit([(tasks.squares, (start, min(start + chunk, count))) for start in starts]))
        return sum(map(sum, pages))

    def totals(self, arrays: list[Any]) -> list[float]:
        """A job each: one job of them all is over its limit."""
        return System.map(self, tasks.total, arrays)

    def broadcast(self, array: Any, count: int) -> list[float]:
        path = saved_array(self._folder.name, array)
        return self.gather(self._submit([(tasks.touch_file, (path, number)) for number in range(count)]))

    def _submit(self, calls: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
        """Submit calls as one job."""
        job = Job(self._folder.name)
        paths = [Path(self._folder.name, str(next(self._numbers))) for _ in calls]
        for path, (function, args) in zip(paths, calls, strict=True):
            job.function(run, args=(str(path), function, args), stdout=None, stderr=None)
        self._client.submit(job)
        return [Result(path) for path in paths]


class Result:
    """A file that appears: the client's own `wait_for_jobs` looks only once a second."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def result(self) -> Any:
        while not self._path.exists():
            time.sleep(POLL_S)
        data = self._path.read_bytes()
        return pickle.loads(data) if data else None


SYSTEM = HyperQueue
