"""The work itself. Times are in seconds unless a name says otherwise."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
from systems import WORKERS, Pool, System, ThroughHub

SINGLE_SUBMITS = 10_000
MAPPED_ITEMS = 1_000_000
ROUND_TRIPS = 200
UNMEASURED = 1.0
"""Score of a node that has not finished measuring itself."""
BENCHMARK_LIMIT_S = 30.0
CHUNKS = (1_000, 5_000, 20_000, 50_000, 125_000)


def nothing() -> None:
    """Do nothing: what is left is the system's own time."""


def square(n: int) -> int:
    return n * n


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def submit_and_wait(system: System) -> float:
    """Return the mean of many single calls, each waited for before the next."""

    def work() -> None:
        for _ in range(ROUND_TRIPS):
            system.submit(nothing).result()

    return timed(work) / ROUND_TRIPS


def single_submits(system: System) -> float:
    def work() -> None:
        futures = [system.submit(square, n) for n in range(SINGLE_SUBMITS)]
        assert sum(each.result() for each in futures) == sum(map(square, range(SINGLE_SUBMITS)))

    return timed(work)


def big_map(system: System) -> float:
    squares: list[int] = []
    seconds = timed(lambda: squares.extend(system.map(square, range(MAPPED_ITEMS))))
    assert len(squares) == MAPPED_ITEMS
    assert squares[-1] == (MAPPED_ITEMS - 1) ** 2
    return seconds


def choose_chunk(pool: Pool) -> None:
    """Give the pool the chunk size with which it maps fastest."""
    found = {}
    for pool.chunk in CHUNKS:
        found[pool.chunk] = min(big_map(pool), big_map(pool))
    pool.chunk = min(found, key=lambda chunk: found[chunk])


# --- cold start: a process that prints when it has its first result ---------------------------------

_EMBEDDED = f"""
from fallow import Grid
if __name__ == "__main__":
    with Grid(slots={WORKERS}) as grid:
        assert grid.submit(pow, 2, 3).result() == 8
        print("result", flush=True)
        input()
"""
_POOL = f"""
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    with ProcessPoolExecutor({WORKERS}) as pool:
        assert pool.submit(pow, 2, 3).result() == 8
        print("result", flush=True)
        input()
"""


class FirstResult:
    """A program of its own that calls once, says so, and stays until it is told to end."""

    def __init__(self, script: str) -> None:
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.line = self._process.stdout.readline()
        self.seconds = time.perf_counter() - began
        self.pid = self._process.pid

    def end(self) -> None:
        self._process.communicate("\n", timeout=30)
        assert self.line == "result\n", self.line


def cold_start_and_memory(script: str) -> tuple[float, float]:
    """Return seconds from starting Python to the first result, and MB of all its processes then, idle."""
    program = FirstResult(script)
    memory = pss_mb(program.pid)
    program.end()
    return program.seconds, memory


def cold_embedded() -> tuple[float, float]:
    return cold_start_and_memory(_EMBEDDED)


def cold_pool() -> tuple[float, float]:
    return cold_start_and_memory(_POOL)


def cold_hub() -> tuple[float, dict[str, float]]:
    """Return seconds from nothing to the first result through a new hub and nodes, and MB of each process, idle."""
    began = time.perf_counter()
    with ThroughHub() as system:
        assert system.submit(pow, 2, 3).result() == 8
        seconds = time.perf_counter() - began
        deadline = time.perf_counter() + BENCHMARK_LIMIT_S
        while UNMEASURED in (node["score"] for node in system.fleet.nodes().values()):
            assert time.perf_counter() < deadline, "the nodes' own benchmark did not end"
            time.sleep(0.1)
        return seconds, {name: pss_mb(pid) for name, pid in system.fleet.pids().items()}


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process and all its descendants, in MB (10**6 bytes)."""
    top = psutil.Process(pid)
    total = 0
    for process in (top, *top.children(recursive=True)):
        total += getattr(process.memory_full_info(), "pss", process.memory_info().rss)
    return total / 1e6


def pi_demo(digits: int) -> dict[str, Any]:
    """Run the demo without its accident and return its figures."""
    command = [sys.executable, "-m", "fallow", "demo", "--no-kill", "--json", "--digits", str(digits)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
