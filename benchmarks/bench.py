"""`make bench`: Fallow embedded, Fallow through a hub, and a process pool, the same work in the same run."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import workloads
from machine import describe
from systems import Embedded, Pool, System, ThroughHub

RESULTS = Path(__file__).parent / "results"
QUICK_RUNS, FULL_RUNS = 5, 11
QUICK_PI_RUNS, FULL_PI_RUNS = 1, 5
QUICK_DIGITS, FULL_DIGITS = 700, 1200

Samples = dict[str, list[float]]
"""What was measured, one number for each run, by system."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs, fewer digits: under two minutes")
    quick = parser.parse_args(argv).quick
    runs, pi_runs, digits = (
        (QUICK_RUNS, QUICK_PI_RUNS, QUICK_DIGITS) if quick else (FULL_RUNS, FULL_PI_RUNS, FULL_DIGITS)
    )
    for name in [name for name in os.environ if name.startswith("FALLOW_")]:
        del os.environ[name]  # no hub but our own

    began = time.perf_counter()
    facts = describe()
    for what, fact in facts.items():
        print(f"{what:9} {fact}")
    measured = {**warm(runs), **cold(runs), **pi(pi_runs, digits)}
    print(f"took      {time.perf_counter() - began:.0f} s")

    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{now:%Y%m%d-%H%M%S}-{facts['commit'].split()[0]}.json"
    path.write_text(json.dumps({"at": now.isoformat(), **facts, "samples": measured}, indent=1))
    print(f"written   {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return 0


def warm(runs: int) -> dict[str, Samples]:
    """Measure systems that are up: each repetition runs every system once, one after the other."""
    rows: list[tuple[str, Callable[[System], float], float, str, int]] = [
        ("submit one and wait", workloads.submit_and_wait, 1e3, "ms", 0),
        ("10,000 single submits", workloads.single_submits, 1, "s", workloads.SINGLE_SUBMITS),
        ("map of 1,000,000", workloads.big_map, 1, "s", workloads.MAPPED_ITEMS),
    ]
    found: dict[str, Samples] = {}
    with Pool() as pool, Embedded() as embedded, ThroughHub() as hub:
        systems: list[System] = [pool, embedded, hub]
        for system in systems:  # warm: processes up, functions known
            workloads.submit_and_wait(system)
            system.map(workloads.square, range(1000))
        workloads.choose_chunk(pool)
        print(f"pool's best chunk for the map: {pool.chunk:,}")
        heading(runs)
        for title, work, scale, unit, count in rows:
            samples: Samples = {system.name: [] for system in systems}
            for _ in range(runs):
                for system in systems:
                    samples[system.name].append(work(system) * scale)
            show(title, unit, samples, count)
            found[f"{title}, {unit}"] = samples
    return found


def cold(runs: int) -> dict[str, Samples]:
    """Measure starts from nothing, and what is in memory after one call."""
    starts: Samples = {"pool": [], "embedded": [], "hub": []}
    memory: Samples = {"pool": [], "embedded": [], "hub": [], "one node": []}
    for _ in range(runs):
        for name, start in (("pool", workloads.cold_pool), ("embedded", workloads.cold_embedded)):
            seconds, mb = start()
            starts[name].append(seconds)
            memory[name].append(mb)
        seconds, each = workloads.cold_hub()
        starts["hub"].append(seconds)
        memory["hub"].append(each["hub"])
        memory["one node"].append(each["node-1"])
    show("cold start", "s", starts)
    show("idle memory (PSS)", "MB", memory)
    print("  (pool and embedded: all processes; hub: its process; one node: its agent and slot)")
    return {"cold start, s": starts, "idle memory, MB": memory}


def pi(runs: int, digits: int) -> dict[str, Samples]:
    """Measure the demo: the same tasks in one process and on two nodes."""
    figures = [workloads.pi_demo(digits) for _ in range(runs)]
    samples: Samples = {key: [each[f"{key}_s"] for each in figures] for key in ("serial", "grid")}
    speedups = [each["speedup"] for each in figures]
    print(f"Pi demo, {digits:,} digits, {runs} runs: one process {spread(samples['serial'])} s, two nodes", end=" ")
    print(f"{spread(samples['grid'])} s, speed-up {spread(speedups)}")
    return {f"Pi demo, {digits} digits": {**samples, "speedup": speedups}}


def heading(runs: int) -> None:
    print(f"\nmedians of {runs} runs (least to greatest); x: how much faster than the pool, run by run")


def show(title: str, unit: str, samples: Samples, count: int = 0) -> None:
    print(f"{title}, {unit}")
    for name, values in samples.items():
        line = f"  {name:9} {spread(values)}"
        if count:
            line += f"   {count / median(values):,.0f} a second"
        if unit != "MB" and name != "pool":
            line += f"   x {spread([pool / value for pool, value in zip(samples['pool'], values, strict=True)])}"
        print(line, flush=True)


def spread(values: list[float]) -> str:
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    sys.exit(main())
