"""Short round trips through many cities, by simulated annealing: long searches that survive the loss of their computer.

python examples/annealing.py
python examples/annealing.py --steps 20000000 --searches 16 --hub http://hub:7070    # the token from $FALLOW_TOKEN

Each search keeps its state in its checkpoint folder. Kill a node in the middle (`kill -9`): its searches go on elsewhere from
where they were, and find the same trips as if nothing had happened.
"""

import argparse
import pickle
import sys
import time
from functools import partial
from math import exp, hypot
from random import Random

import fallow

City = tuple[float, float]
REPORT_STEPS = 10_000


def cities(count: int) -> list[City]:
    random = Random(count)
    return [(random.random(), random.random()) for _ in range(count)]


def length(trip: list[City]) -> float:
    return sum(hypot(a[0] - b[0], a[1] - b[1]) for a, b in zip(trip, trip[1:] + trip[:1], strict=True))


def anneal(count: int, steps: int, seed: int) -> float:
    """Return the length of the trip that one search ends with."""
    saved = (
        fallow.checkpoint() / f"search-{seed}.pickle"
    )  # the name matters only outside of a grid, where all share a folder
    if saved.exists():
        step, trip, random = pickle.loads(saved.read_bytes())
    else:
        step, trip, random = 0, cities(count), Random(seed)
    while step < steps:
        heat = 0.3 * (1 - step / steps) ** 2
        first, last = sorted(random.sample(range(count), 2))
        turned = trip[first : last + 1][::-1]
        before, after = trip[first - 1], trip[(last + 1) % count]
        gain = (
            hypot(before[0] - trip[first][0], before[1] - trip[first][1])
            + hypot(trip[last][0] - after[0], trip[last][1] - after[1])
            - hypot(before[0] - turned[0][0], before[1] - turned[0][1])
            - hypot(turned[-1][0] - after[0], turned[-1][1] - after[1])
        )
        if (gain > 0 or (heat > 0 and random.random() < exp(gain / heat))) and last - first < count - 1:
            trip[first : last + 1] = turned
        step += 1
        if step % REPORT_STEPS == 0 or step == steps:
            fallow.progress(step / steps, f"{length(trip):.3f} after {step:,} steps")
            saved.write_bytes(pickle.dumps((step, trip, random)))
            fallow.save_checkpoint()
    return length(trip)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cities", type=int, default=60, help="how many (default 60)")
    parser.add_argument("--steps", type=int, default=200_000, help="of each search (default 200,000)")
    parser.add_argument("--searches", type=int, default=8, help="each with a seed of its own (default 8)")
    parser.add_argument("--hub", help="address of a hub; without it this computer's cores do the work")
    options = parser.parse_args(argv)

    print(f"{options.cities} cities; in the order of the list the trip is {length(cities(options.cities)):.3f} long")
    with fallow.Grid(options.hub) as grid:
        search = partial(anneal, options.cities, options.steps)
        job = grid.map(search, range(options.searches), checkpoint_s=5)
        told = time.monotonic()
        while not job.wait(timeout=1):
            if time.monotonic() - told > 5:
                told = time.monotonic()
                for task in job.running():
                    print(f"  search {task.index} on {task.node}: {task.fraction or 0:4.0%}  {task.message}")
        found = job.result()
    print(f"the shortest of {len(found)}: {min(found):.3f}, by search {found.index(min(found))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
