"""Many small calls: what a system costs by itself."""

import time

import tasks
from systems import System

WARM_CALLS = 10
WARM_ITEMS = 20


def wait(system: System, count: int) -> dict[str, float]:
    """The mean of many single calls, each waited for before the next."""
    for _ in range(min(count, WARM_CALLS)):
        system.submit(tasks.nothing).result()
    began = time.perf_counter()
    for _ in range(count):
        system.submit(tasks.nothing).result()
    return {"seconds": (time.perf_counter() - began) / count}


def singles(system: System, count: int) -> dict[str, float]:
    """From the first submit until the last result has been returned."""
    system.gather([system.submit(tasks.square, n) for n in range(min(count, WARM_CALLS))])
    began = time.perf_counter()
    results = system.gather([system.submit(tasks.square, n) for n in range(count)])
    seconds = time.perf_counter() - began
    assert results == [n * n for n in range(count)]
    return {"seconds": seconds}


def plain_map(system: System, count: int) -> dict[str, float]:
    """Squares until the last is in a list; the system is told nothing about chunks."""
    system.map(tasks.square, range(min(count, WARM_ITEMS)))
    began = time.perf_counter()
    results = system.map(tasks.square, range(count))
    seconds = time.perf_counter() - began
    assert len(results) == count
    assert results[-1] == (count - 1) ** 2
    return {"seconds": seconds}


def bag(system: System, count: int) -> dict[str, float]:
    """The same by a system's second way that needs no chunk size."""
    system.map_bag(tasks.square, range(min(count, WARM_ITEMS)))
    began = time.perf_counter()
    results = system.map_bag(tasks.square, range(count))
    seconds = time.perf_counter() - began
    assert results[-1] == (count - 1) ** 2
    return {"seconds": seconds}


def chunks(system: System, count: int, chunk: int | None) -> dict[str, float]:
    """Squares by the best chunk size; without one, all that the system names are tried and the best is returned."""
    expected = sum(n * n for n in range(count))
    system.map_by_hand(count // 10, count // 10)

    def timed(chunk: int) -> float:
        began = time.perf_counter()
        found = system.map_by_hand(count, chunk)
        seconds = time.perf_counter() - began
        assert found == expected
        return seconds

    if chunk is None:
        tried = {size: timed(size) for size in system.chunks if size < count} or {count // 2: 0.0}
        chunk = min(tried, key=lambda size: tried[size])
    return {"seconds": timed(chunk), "chunk": chunk}
