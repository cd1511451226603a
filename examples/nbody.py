"""Star clusters from many random starts, by the Barnes-Hut method; each run is judged by its change of energy.

python examples/nbody.py --clusters 40
python examples/nbody.py --clusters 400 --bodies 200 --hub http://hub:7070    # the token from $FALLOW_TOKEN
"""

import argparse
import statistics
import sys
from functools import partial

from fallow import Grid
from fallow.demo.nbody import MAX_DRIFT, simulate


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=40, help="how many starts (default 40)")
    parser.add_argument("--bodies", type=int, default=64, help="stars in each (default 64)")
    parser.add_argument("--steps", type=int, default=50, help="time steps of 0.02 crossing times (default 50)")
    parser.add_argument("--hub", help="address of a hub; without it this computer's cores do the work")
    options = parser.parse_args(argv)

    run = partial(simulate, bodies=options.bodies, steps=options.steps)
    outcomes = []
    with Grid(options.hub) as grid:
        for _, outcome in grid.map(run, range(options.clusters)).as_completed():
            outcomes.append(outcome)
            print(
                f"cluster {outcome.seed:4}: energy {outcome.drift:+.3%}, half-mass radius {outcome.half_mass_radius:.3f}"
            )

    drifts = [abs(each.drift) for each in outcomes]
    radii = [each.half_mass_radius for each in outcomes]
    print(f"{len(outcomes)} clusters of {options.bodies} stars")
    print(f"half-mass radius: median {statistics.median(radii):.3f}, from {min(radii):.3f} to {max(radii):.3f}")
    print(f"energy changed by at most {max(drifts):.3%} (allowed: {MAX_DRIFT:.0%})")
    return 0 if max(drifts) < MAX_DRIFT else 1


if __name__ == "__main__":
    sys.exit(main())
