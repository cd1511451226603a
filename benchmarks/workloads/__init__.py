"""The work, once for all systems: each function takes a system and sizes, and returns figures (seconds, bytes) by name.

Every function first makes a call or two of its own kind, so that what is timed is warm.
"""

from collections.abc import Callable
from typing import Any

from systems import System

from workloads import arrays, calls, queues, sleeps

Figures = dict[str, float]
WORKLOADS: dict[str, Callable[..., Figures]] = {
    "wait": calls.wait,
    "singles": calls.singles,
    "map": calls.plain_map,
    "bag": calls.bag,
    "chunks": calls.chunks,
    "sleeps": sleeps.sleeps,
    "arrays in": arrays.arrays_in,
    "arrays out": arrays.arrays_out,
    "broadcast": arrays.broadcast,
    "queued": queues.queued,
}


def run(system: System, workload: str, sizes: dict[str, Any]) -> Figures:
    return WORKLOADS[workload](system, **sizes)
