"""Celery with Redis as broker and result store: one worker, `--pool prefork --concurrency 2`, priorities on."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tasks

from systems import WORKERS, System, saved_array

FOLDER = Path(__file__).parents[1]
START_LIMIT_S = 30.0


class Celery(System):
    packages = ("celery", "redis")

    def start(self) -> None:
        redis = shutil.which("redis-server")
        if redis is None:
            raise FileNotFoundError("redis-server is not installed (Debian: apt install redis-server)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="bench-celery-", ignore_cleanup_errors=True)
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", self._folder.name, "--save", ""]
        self._redis = subprocess.Popen([redis, *options], stdout=subprocess.DEVNULL)
        os.environ["BENCH_REDIS"] = f"redis://127.0.0.1:{port}/0"
        _wait_for(port)
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", "systems.celery_app", "worker", "--pool", "prefork",
             "--concurrency", str(WORKERS), "--loglevel", "WARNING"],
            cwd=FOLDER,
            env=os.environ | {"C_FORCE_ROOT": "1"},  # it does not take pickles as root; here they are all our own
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        from systems import celery_app

        self._tasks = celery_app.BY_FUNCTION

    def stop(self) -> None:
        self._worker.terminate()
        for process in (self._worker, self._redis):
            process.kill()
            process.wait()
        self._folder.cleanup()

    def versions(self) -> dict[str, str]:
        done = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
        return super().versions() | {"redis-server": done.stdout.split("v=")[1].split()[0]}

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return Result(self._tasks[function].delay(*args))

    def urgent(self, function: Callable[..., Any], *args: Any) -> Any:
        return Result(self._tasks[function].apply_async(args, priority=0))

    def gather(self, futures: list[Any]) -> list[Any]:
        from celery.result import ResultSet

        return ResultSet([future.asynchronous for future in futures]).join_native()

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        from celery import group

        return group(self._tasks[function].s(item) for item in items)().join_native()

    def broadcast(self, array: Any, count: int) -> list[float]:
        path = saved_array(self._folder.name, array)
        return self.gather([self.submit(tasks.touch_file, path, number) for number in range(count)])


class Result:
    def __init__(self, asynchronous: Any) -> None:
        self.asynchronous = asynchronous

    def result(self) -> Any:
        return self.asynchronous.get()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


SYSTEM = Celery
