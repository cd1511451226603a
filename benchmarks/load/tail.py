"""The tail with real processes: heavy-tailed sleeps on nodes of different speeds, one of which is slowed in mid-run.

Beside it the simulator, with the same durations and speeds. Figures are makespans over max(work / total speed, longest
task / fastest node), which knows nothing of the slowdown.

    python benchmarks/load/tail.py --nodes 20 --tasks 2000 --median-s 0.1 --runs 5
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from fallow import Grid
from fallow.demo.fleet import Fleet
from fallow.simulator.durations import draw
from fallow.simulator.fleet import Fleet as SimulatedFleet
from fallow.simulator.plan import Plan, Work

SLOWEST, FASTEST = 1.0, 3.5
SLOWED = 8.0
"""How much slower one node becomes."""


class Sleep:
    """Sleeps for a task's duration, divided by the speed of the node that it runs on."""

    def __init__(self, speeds: dict[int, float], slow: int, switch: str) -> None:
        """speeds: by process id of the agent. slow: which of them is slowed once the file `switch` is there."""
        self.speeds, self.slow, self.switch = speeds, slow, switch

    def __call__(self, seconds: float) -> None:
        agent = os.getppid()
        is_slow = agent == self.slow and os.path.exists(self.switch)
        time.sleep(seconds / self.speeds[agent] * (SLOWED if is_slow else 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--median-s", type=float, default=0.1)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    step = (FASTEST - SLOWEST) / (arguments.nodes - 1)
    speeds = [SLOWEST + step * number for number in range(arguments.nodes)]
    found: dict[str, list[float]] = {"simulated": [], "real": [], "real, a fast node slowed": []}
    with (
        Fleet(arguments.nodes, node_options=("--sandbox", "process")) as fleet,
        tempfile.TemporaryDirectory() as folder,
    ):
        pids = fleet.pids()
        by_pid = dict(zip((pids[name] for name in fleet.names), speeds, strict=True))
        slow = pids[fleet.names[-2]]
        with Grid(fleet.url, token=fleet.token, progress=False) as grid:
            for run in range(arguments.runs):
                plan = Plan(
                    work=(Work(tasks=arguments.tasks, median_s=arguments.median_s),),
                    seed=run, nodes=arguments.nodes, slowest=SLOWEST, fastest=FASTEST, score_error=1.0,
                )  # fmt: skip
                found["simulated"].append(SimulatedFleet(plan).run().ratio)
                durations = draw("pareto", arguments.tasks, arguments.median_s, run * 1000)
                bound_s = max(sum(durations) / sum(speeds), max(durations) / FASTEST)
                for name, at_s in (("real", None), ("real, a fast node slowed", bound_s / 4)):
                    switch = Path(folder) / f"{run} {name}"
                    began = time.perf_counter()
                    job = grid.map(Sleep(by_pid, slow, str(switch)), durations)
                    if at_s is not None:
                        job.wait(at_s)
                        switch.touch()
                    job.result()
                    found[name].append((time.perf_counter() - began) / bound_s)
                print(f"run {run}: bound {bound_s:.1f} s; " + "; ".join(f"{k} {v[-1]:.2f}" for k, v in found.items()))
    for name, ratios in found.items():
        print(f"{name:26} median {statistics.median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
