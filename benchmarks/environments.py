"""How long environments take: the first result in one that is nowhere yet, in one that is built, and 1,000 tasks.

python benchmarks/environments.py [--runs 3] [--packages numpy]

Each run begins with empty folders: nothing is resolved, downloaded or built. Packages come from the index that this computer is
configured for, so its speed is part of the first two rows. Needs `pip install "fallow[envs]"`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

from fallow import Environment, Grid

TASKS = 1_000
LIMIT_S = 600


def first_of(packages: list[str]) -> Callable[[int], int]:
    """Return a task that imports the packages."""

    def task(number: int) -> int:
        import importlib

        for package in packages:
            importlib.import_module(package.partition("=")[0])
        return number

    return task


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def run(packages: list[str]) -> dict[str, float]:
    """Measure once, from empty folders."""
    task, env, found = first_of(packages), Environment(packages), {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": folder, "UV_CACHE_DIR": f"{folder}/uv"}
        with Grid(progress=False) as grid:
            grid.submit(abs, -1).result(LIMIT_S)
            found["first result, nothing there"] = timed(lambda: grid.options(env=env).submit(task, 1).result(LIMIT_S))
            found["next result, warm slot"] = timed(lambda: grid.options(env=env).submit(task, 2).result(LIMIT_S))
            found[f"{TASKS:,} tasks, warm slots"] = timed(lambda: grid.map(task, range(TASKS), env=env).result(LIMIT_S))
            found[f"{TASKS:,} tasks without env="] = timed(lambda: grid.map(abs, range(TASKS)).result(LIMIT_S))
            more = Environment([*packages, "six"])
            found["first result, one package more"] = timed(
                lambda: grid.options(env=more).submit(task, 1).result(LIMIT_S)
            )
        with Grid(progress=False) as grid:
            grid.submit(abs, -1).result(LIMIT_S)
            found["first result of a new grid, built earlier"] = timed(
                lambda: grid.options(env=env).submit(task, 1).result(LIMIT_S)
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--packages", nargs="+", default=["numpy"])
    given = parser.parse_args()
    runs = [run(given.packages) for _ in range(given.runs)]
    print(f"{' '.join(given.packages)}: median of {given.runs} runs, seconds (least, most)")
    for row in runs[0]:
        values = [each[row] for each in runs]
        print(f"  {row:45} {statistics.median(values):8.3f}  ({min(values):.3f}, {max(values):.3f})")


if __name__ == "__main__":
    main()
