"""Large data: into tasks, out of tasks, and one array used by many tasks."""

import time

import tasks
from systems import System


def arrays_in(system: System, count: int) -> dict[str, float]:
    """Arrays of 8 MB, all different, each to a task that sums it, until the last sum is there."""
    arrays = [tasks.make(number) + 0.5 for number in range(count)]
    system.totals([array + 1 for array in arrays[:2]])  # others, so that all that is timed is new
    began = time.perf_counter()
    totals = system.totals(arrays)
    seconds = time.perf_counter() - began
    assert totals == [tasks.ARRAY_NUMBERS * (number + 0.5) for number in range(count)]
    return {"seconds": seconds}


def arrays_out(system: System, count: int) -> dict[str, float]:
    """Arrays of 8 MB made by tasks, until all are here and each has been looked into."""
    system.arrays(2)
    began = time.perf_counter()
    arrays = system.arrays(count)
    ends = [(array[0], array[-1]) for array in arrays]
    seconds = time.perf_counter() - began
    assert ends == [(number, number) for number in range(count)]
    return {"seconds": seconds}


def broadcast(system: System, count: int, megabytes: int) -> dict[str, float]:
    """One array, used by many tasks; from the array in the client's memory until the last result."""
    import numpy as np

    array = np.ones(megabytes * 1_000_000 // 8)
    system.gather([system.submit(tasks.square, 2)])
    began = time.perf_counter()
    results = system.broadcast(array, count)
    seconds = time.perf_counter() - began
    assert results == [tasks.touch(array, number) for number in range(count)]
    return {"seconds": seconds}
