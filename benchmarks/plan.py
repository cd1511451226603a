"""What is asked of each system, in which sizes, and the rows that come of it.

A slow system gets fewer tasks, so that it is done in some seconds; the count stands beside its figure, and rates are of
that count. A row names the figure that it takes from a workload's answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LOCAL = ("embedded", "hub", "pool")
NAMES = {
    "embedded": "Fallow embedded",
    "hub": "Fallow, hub",
    "pool": "process pool",
    "joblib": "joblib/loky",
    "ray": "Ray",
    "dask": "Dask distributed",
    "parsl": "Parsl",
    "celery": "Celery + Redis",
    "hyperqueue": "HyperQueue",
}

Sizes = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """key: in the results. request: which answer it reads. value: of (figures, sizes)."""

    key: str
    title: str
    unit: str
    request: str
    value: Callable[[Sizes, Sizes], float | None]
    more_is_better: bool = False


def _rate(figures: Sizes, sizes: Sizes) -> float:
    return float(sizes["count"] / figures["seconds"])


def _megabytes(figures: Sizes, sizes: Sizes) -> float:
    return float(sizes["count"] * 8 / figures["seconds"])


def _figure(name: str, scale: float = 1.0) -> Callable[[Sizes, Sizes], float | None]:
    return lambda figures, _: figures[name] * scale if name in figures else None


ROWS = (
    Row("wait", "submit one and wait", "ms", "wait", _figure("seconds", 1e3)),
    Row("singles", "10,000 single submits", "tasks/s", "singles", _rate, more_is_better=True),
    Row("many singles", "100,000 single submits", "tasks/s", "many singles", _rate, more_is_better=True),
    Row("map", "map of 1,000,000, no chunk size given", "items/s", "map", _rate, more_is_better=True),
    Row("bag", "map of 20,000 by a Dask bag, none given", "items/s", "bag", _rate, more_is_better=True),
    Row("chunks", "the same, best chunk by hand", "items/s", "chunks", _rate, more_is_better=True),
    Row("tail of bound", "400 heavy-tailed sleeps: makespan", "x bound", "tail", _figure("of bound")),
    Row("tail", "400 heavy-tailed sleeps: makespan", "x first come", "tail", _figure("of first come")),
    Row("sorted of bound", "the same, sorted ascending", "x bound", "sorted", _figure("of bound")),
    Row("sorted", "the same, sorted ascending", "x first come", "sorted", _figure("of first come")),
    Row("arrays in", "64 arrays of 8 MB in", "MB/s", "arrays in", _megabytes, more_is_better=True),
    Row("arrays out", "64 arrays of 8 MB out", "MB/s", "arrays out", _megabytes, more_is_better=True),
    Row("broadcast", "100 MB used by 500 tasks", "s", "broadcast", _figure("seconds")),
    Row("cold", "cold start to first result", "s", "cold", _figure("seconds")),
    Row("idle", "idle, all processes (PSS)", "MB", "idle", _figure("bytes", 1e-6)),
    Row("queued", "added per queued task, all processes", "bytes", "queued", _figure("all")),
    Row("queued in client", "the same, in the client's process", "bytes", "queued", _figure("client")),
    Row("queued in hub", "the same, in the hub's process", "bytes", "queued", _figure("hub")),
    Row("urgent", "urgent task while 20,000 are queued", "ms", "urgent", _figure("seconds", 1e3)),
)

WORKLOAD_OF = {"many singles": "singles", "tail": "sleeps", "sorted": "sleeps", "urgent": "queued"}
"""Requests that are a workload under another name; "cold" and "idle" are measured from outside."""

FULL: dict[str, Sizes] = {
    "wait": {"count": 200},
    "singles": {"count": 10_000},
    "many singles": {"count": 100_000},
    "map": {"count": 1_000_000},
    "bag": {"count": 20_000},
    "chunks": {"count": 1_000_000},
    "tail": {"count": 400, "ascending": False},
    "sorted": {"count": 400, "ascending": True},
    "arrays in": {"count": 64},
    "arrays out": {"count": 64},
    "broadcast": {"count": 500, "megabytes": 100},
    "queued": {"count": 100_000, "urgent": False},
    "urgent": {"count": 20_000, "urgent": True},
}
QUICK = FULL | {
    "many singles": None,
    "bag": None,
    "tail": {"count": 100, "ascending": False},
    "sorted": {"count": 100, "ascending": True},
    "arrays in": {"count": 32},
    "arrays out": {"count": 32},
    "queued": {"count": 20_000, "urgent": False},
    "urgent": {"count": 5_000, "urgent": True},
}
SMALL: dict[str, Sizes] = {
    "wait": {"count": 5},
    "singles": {"count": 20},
    "many singles": {"count": 40},
    "map": {"count": 40},
    "bag": {"count": 40},
    "chunks": {"count": 2_000},
    "tail": {"count": 8, "ascending": False},
    "sorted": {"count": 8, "ascending": True},
    "arrays in": {"count": 2},
    "arrays out": {"count": 2},
    "broadcast": {"count": 4, "megabytes": 8},
    "queued": {"count": 100, "urgent": False},
    "urgent": {"count": 40, "urgent": True},
}
SCALES: dict[str, dict[str, Any]] = {"full": FULL, "quick": QUICK, "small": SMALL}

FEWER: dict[str, dict[str, int | None]] = {
    "pool": {"map": 50_000},
    "joblib": {"many singles": None},
    "ray": {"singles": 5_000, "many singles": None, "queued": None},
    "dask": {"singles": 2_000, "many singles": None, "map": 3_000, "chunks": 100_000, "queued": None},
    "parsl": {"singles": 4_000, "many singles": None, "map": 4_000, "queued": None},
    "celery": {
        "singles": 2_000,
        "many singles": None,
        "map": 2_000,
        "chunks": 500_000,
        "arrays in": 16,
        "arrays out": 16,
        "queued": None,
    },
    "hyperqueue": {
        "wait": 20,
        "singles": 40,
        "many singles": None,
        "map": 40,
        "arrays in": 16,
        "arrays out": 16,
        "broadcast": 30,
        "queued": None,
    },
}
"""Counts of what would take a system too long at the full scale; None: not asked. Where "queued" is not asked, its bytes
are those of the 20,000 tasks that the urgent one overtakes."""


def sizes_for(system: str, scale: str) -> dict[str, Sizes]:
    """Return the sizes of each request to a system, in order; the last one leaves its queue behind."""
    found = {}
    for request, sizes in SCALES[scale].items():
        count = FEWER.get(system, {}).get(request, sizes and sizes["count"])
        if sizes is None or count is None or (request == "bag" and system != "dask"):
            continue
        if request == "chunks" and system in {"embedded", "hub"}:
            continue
        found[request] = sizes | {"count": min(count, sizes["count"])}
    return found
