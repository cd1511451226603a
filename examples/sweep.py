"""A parameter sweep: 500 epidemics, written as a table (CSV) and a plot (SVG).

python examples/sweep.py --out results/
python examples/sweep.py --values 50 --seeds 100 --hub http://hub:7070    # the token from $FALLOW_TOKEN
"""

import argparse
import sys
from pathlib import Path

from fallow import Grid
from fallow.demo.sweep import as_csv, as_svg, expected_share, mean_major, outbreak, points


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=25, help="values of R0, from 0.5 to 4 (default 25)")
    parser.add_argument("--seeds", type=int, default=20, help="epidemics of each (default 20)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for sweep.csv and sweep.svg (default: here)")
    parser.add_argument("--hub", help="address of a hub; without it this computer's cores do the work")
    options = parser.parse_args(argv)

    with Grid(options.hub) as grid:
        outbreaks = list(grid.map(outbreak, points(options.values, options.seeds)))

    options.out.mkdir(parents=True, exist_ok=True)
    table, plot = options.out / "sweep.csv", options.out / "sweep.svg"
    table.write_text(as_csv(outbreaks))
    plot.write_text(as_svg(outbreaks))
    print("  R0  reached  in theory")
    for r0, share in mean_major(outbreaks).items():
        print(f"{r0:4.2f}  {share:7.1%}  {expected_share(r0):9.1%}")
    print(f"{len(outbreaks):,} epidemics in {table}, drawn in {plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
