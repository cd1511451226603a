"""A long queue: what each queued task weighs, and how soon an urgent one gets through."""

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import tasks
from processes import pss_bytes
from systems import WORKERS, System

HOLD_LIMIT_S = 60.0
STEADY = 0.002
STEADY_S = 0.5
STEADY_LIMIT_S = 20.0
URGENT_CALLS = 10
URGENT_LIMIT_S = 1.0
"""No further urgent call after this time: the queue would run dry."""


@contextmanager
def held(system: System) -> Iterator[Callable[[], None]]:
    """Keep every slot busy until the yielded function is called."""
    with tempfile.TemporaryDirectory(prefix="bench-hold-") as name:
        folder = Path(name)
        holding = [system.submit(tasks.hold, name, number) for number in range(WORKERS)]
        deadline = time.monotonic() + HOLD_LIMIT_S
        while len(list(folder.glob("holding-*"))) < WORKERS:
            if time.monotonic() > deadline:
                raise TimeoutError(f"of {WORKERS} long tasks not all were started")
            time.sleep(0.01)
        try:
            yield (folder / "release").touch
        finally:
            (folder / "release").touch()
            for future in holding:
                future.result()


def queued(system: System, count: int, urgent: bool) -> dict[str, float]:
    """Bytes added by each queued task in the client, in all processes, and in those that the system names.

    With `urgent` also the mean wait for urgent calls, each made when the one before is done, from the moment that slots
    come free. It is for the last thing that a system does, as it leaves the queue behind.
    """
    system.urgent(tasks.nothing).result()
    waits: list[float] = []
    with held(system) as release:
        before = _memory(system)
        queue = system.queue(count)
        after = _memory(system)
        if not urgent:
            system.cancel(queue)
        release()
        began = time.perf_counter()
        while urgent and len(waits) < URGENT_CALLS and time.perf_counter() - began < URGENT_LIMIT_S:
            at = time.perf_counter()
            system.urgent(tasks.nothing).result()
            waits.append(time.perf_counter() - at)
    figures = {name: (after[name] - before[name]) / count for name in before}
    return figures | ({"seconds": sum(waits) / len(waits), "calls": len(waits)} if waits else {})


def _memory(system: System) -> dict[str, float]:
    """Return bytes by process, once they have stopped to grow."""
    gc.collect()
    deadline = time.monotonic() + STEADY_LIMIT_S
    last = pss_bytes(os.getpid(), tree=True)
    while True:
        time.sleep(STEADY_S)
        now = pss_bytes(os.getpid(), tree=True)
        if abs(now - last) < STEADY * last or time.monotonic() > deadline:
            break
        last = now
    parts = {name: pss_bytes(pid) for name, pid in system.processes().items()}
    return {"all": now, "client": pss_bytes(os.getpid()), **parts}
