"""`make bench`: Fallow, the process pool and Fallow's peers, the same work in the same run.

Each repetition runs every system once, one after the other; each is alone on the machine while it runs.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import disk
import runner
import table
from machine import describe
from orphans import adopt_orphans
from peers import PEERS, NotInstalled, interpreter
from plan import LOCAL, ROWS, SCALES, sizes_for

RESULTS = Path(__file__).parent / "results"
RUNS = {"full": 5, "quick": 3, "small": 1}
PI_DIGITS = {"full": 3_000, "quick": 700, "small": 60}
PI = "pi"
OUTSIDE = ("cold", "idle")


def main(argv: list[str] | None = None) -> int:
    """Return 1 if a system, or a workload of one, failed."""
    options = parse(argv)
    adopt_orphans()
    began = time.perf_counter()
    facts: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "scale": options.scale,
        **describe(),
    }
    for what, fact in facts.items():
        print(f"{what:9} {fact}")
    runner.compile_own_files()
    found = Findings()
    pythons = {name: runner.own_python() for name in LOCAL if name in options.systems}
    for peer in (name for name in options.systems if name not in LOCAL):
        try:
            pythons[peer] = interpreter(peer)
        except NotInstalled as error:
            found.fail(peer, "installation", str(error))
    for run in range(options.runs):
        repetition(run, pythons, options, found)
    if PI in options.workloads:
        found.pi = pi(PI_DIGITS[options.scale])
    results = {**facts, "runs": options.runs, "all_s": round(time.perf_counter() - began), **found.as_json()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{table.text(results)}\n\ntook {results['all_s']} s; written to {options.output}")
    return 1 if found.errors else 0


class Findings:
    def __init__(self) -> None:
        self.samples: dict[str, dict[str, list[float]]] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.chunks: dict[str, int] = {}
        self.floor: dict[str, list[float]] = {}
        self.versions: dict[str, str] = {}
        self.took_s: dict[str, dict[str, float]] = {}
        """How long each request took in the last repetition, with what is not timed: where a run's time goes."""
        self.errors: list[dict[str, str]] = []
        self.pi: dict[str, Any] = {}

    def fail(self, system: str, where: str, error: str) -> None:
        self.errors.append({"system": system, "where": where, "error": error})
        print(f"{system}: {where} failed: {error}", file=sys.stderr, flush=True)

    def add(self, system: str, answers: dict[str, dict[str, Any]], requests: dict[str, Any]) -> None:
        for package, version in answers.pop("versions").get("figures", {}).items():
            self.versions[package] = version
        if "figures" in answers.get("chunks", {}):
            self.chunks[system] = answers["chunks"]["figures"]["chunk"]
        for request, answer in answers.items():
            if "took_s" in answer and request in requests:
                self.took_s.setdefault(system, {})[request] = round(answer["took_s"], 1)
            if "error" in answer and request in (*requests, *OUTSIDE):
                self.fail(system, request, answer["error"])
        for row in ROWS:
            answer = answers.get(row.request, {})
            sizes = requests.get(row.request) or requests.get("urgent", {})
            value = row.value(answer["figures"], sizes) if "figures" in answer else None
            if value is not None:
                self.samples.setdefault(row.key, {}).setdefault(system, []).append(value)
                if row.request not in OUTSIDE:
                    self.counts.setdefault(row.key, {})[system] = sizes["count"]

    def as_json(self) -> dict[str, Any]:
        names = ("samples", "counts", "chunks", "floor", "versions", "pi", "took_s", "errors")
        return {name: getattr(self, name) for name in names}


def repetition(run: int, pythons: dict[str, Path], options: argparse.Namespace, found: Findings) -> None:
    """Run every system once; who begins changes from one repetition to the next."""
    order = list(pythons)
    order = order[run % len(order) :] + order[: run % len(order)]
    for what, value in disk.floor(options.scale).items():
        found.floor.setdefault(what, []).append(value)
    for system in order:
        requests = {
            name: sizes for name, sizes in sizes_for(system, options.scale).items() if name in options.workloads
        }
        if "chunks" in requests:
            requests["chunks"] = requests["chunks"] | {"chunk": found.chunks.get(system)}
        began = time.perf_counter()
        try:
            found.add(system, runner.measure(system, pythons[system], requests), requests)
        except runner.Failed as error:
            found.fail(system, "start", str(error))
        print(f"run {run + 1} of {options.runs}: {system} {time.perf_counter() - began:.0f} s", flush=True)


def pi(digits: int) -> dict[str, Any]:
    """Run the demo without its accident and return its figures: the same tasks in one process and on two nodes."""
    command = [sys.executable, "-m", "fallow", "demo", "--no-kill", "--json", "--digits", str(digits)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    figures = json.loads(done.stdout)
    return {"digits": digits, **{key: figures[key] for key in ("serial_s", "grid_s", "speedup")}}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=list(SCALES), default="full")
    parser.add_argument("--runs", type=int, help="repetitions; default 5, quick 3, small 1")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="default all, none if the scale is not full")
    parser.add_argument("--systems", nargs="*", choices=LOCAL, default=list(LOCAL), help="of Fallow's and the pool")
    requests = [*SCALES["full"], PI]
    parser.add_argument("--workloads", nargs="*", choices=requests, help="default all; cold and idle always come along")
    parser.add_argument("--output", type=Path, help="JSON file; default one in results/, named by time")
    options = parser.parse_args(argv)
    peers = options.peers if options.peers is not None else list(PEERS) if options.scale == "full" else []
    options.systems = [*options.systems, *peers]
    options.runs = options.runs or RUNS[options.scale]
    options.workloads = options.workloads or requests
    options.output = options.output or RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    return options


if __name__ == "__main__":
    sys.exit(main())
