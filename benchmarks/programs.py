"""What a program costs as a task: `true`, so many times, by two slots and by two threads that call subprocess.

    python benchmarks/programs.py --count 1000 --runs 5

Prints medians of the time that passed and of the processor time of everything that ran, for one program.
"""

import argparse
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from fallow import Grid

SLOTS = 2


def cpu_s():
    """Return the processor time of this process, its children and what those have waited for."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def by_threads(count, files):
    with ThreadPoolExecutor(SLOTS) as pool, tempfile.TemporaryDirectory() as home:

        def run(i):
            if not files:
                return subprocess.run(["true"], capture_output=True, check=True)
            folder = Path(home, str(i))
            folder.mkdir()
            (folder / "in.txt").write_text("input")
            subprocess.run(["cp", "in.txt", "out.txt"], cwd=folder, capture_output=True, check=True)
            return (folder / "out.txt").read_bytes()

        assert len(list(pool.map(run, range(count)))) == count


def by_grid(grid, count, files):
    if files:
        job = grid.run(
            "cp in.txt out.txt", inputs={"in.txt": b"input"}, outputs=["out.txt"], params={"i": range(count)}
        )
    else:
        job = grid.run("true", params={"i": range(count)})
    assert len(job.result()) == count


def measure(work):
    began, cpu = time.perf_counter(), cpu_s()
    work()
    return time.perf_counter() - began, cpu_s() - cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    print(f"{asked.count} programs, {SLOTS} at a time, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with Grid(slots=SLOTS, progress=False) as grid:
        by_grid(grid, 20, True)
        for files in (False, True):
            found = {"threads": [], "grid": []}
            for _ in range(asked.runs):
                found["threads"].append(measure(partial(by_threads, asked.count, files)))
                found["grid"].append(measure(partial(by_grid, grid, asked.count, files)))
            print("cp with an input and an output file:" if files else "true:")
            for name, runs in found.items():
                wall, cpu = (median(run[i] for run in runs) / asked.count * 1000 for i in (0, 1))
                print(f"  {name:8} {wall:6.2f} ms each, {cpu:6.2f} ms of processor")


if __name__ == "__main__":
    main()
