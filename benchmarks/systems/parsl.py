"""Parsl: the high-throughput executor with two workers on this computer; large data by a file on the common disk."""

import tempfile
from collections.abc import Callable
from typing import Any

import parsl
import tasks
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from systems import WORKERS, System, saved_array

URGENT = {"priority": 1}
"""Less is sooner; tasks without one come last."""


def urgently(function: Callable[..., Any], *args: Any, parsl_resource_specification: dict[str, int]) -> Any:
    return function(*args)


class Parsl(System):
    packages = ("parsl",)

    def start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-parsl-", ignore_cleanup_errors=True)
        executor = HighThroughputExecutor(
            label="workers",
            address="127.0.0.1",
            max_workers_per_node=WORKERS,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        parsl.load(Config(executors=[executor], run_dir=self._folder.name, strategy="none", initialize_logging=False))
        self._apps: dict[Callable[..., Any], Any] = {}

    def stop(self) -> None:
        parsl.dfk().cleanup()
        self._folder.cleanup()

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._app(function)(*args)

    def urgent(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._app(urgently)(function, *args, parsl_resource_specification=URGENT)

    def _app(self, function: Callable[..., Any]) -> Any:
        app = self._apps.get(function)
        if app is None:
            app = self._apps[function] = parsl.python_app(function)
        return app

    def broadcast(self, array: Any, count: int) -> list[float]:
        path = saved_array(self._folder.name, array)
        return self.gather([self.submit(tasks.touch_file, path, number) for number in range(count)])


SYSTEM = Parsl
