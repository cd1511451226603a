"""A program that knows nothing of grids: heat spreads along a rod whose ends are kept cold.

    python heat.py --material copper --length 0.5 --seconds 60

Reads materials.csv, writes profile.csv (temperature along the rod) and a line with the hottest point. Exit code 3: no such material.
"""

import argparse
import csv
import sys
from pathlib import Path

POINTS = 101
HOT = 100.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", required=True)
    parser.add_argument("--length", type=float, required=True, help="metres")
    parser.add_argument("--seconds", type=float, required=True)
    asked = parser.parse_args()
    with Path("materials.csv").open(newline="") as file:
        diffusivity = {row["material"]: float(row["diffusivity"]) for row in csv.DictReader(file)}
    if asked.material not in diffusivity:
        print(f"materials.csv has no {asked.material!r}", file=sys.stderr)
        return 3
    step = asked.length / (POINTS - 1)
    duration = 0.4 * step**2 / diffusivity[asked.material]  # explicit steps are stable below 0.5
    rod = [0.0, *[HOT] * (POINTS - 2), 0.0]
    for _ in range(int(asked.seconds / duration)):
        rod = [
            0.0,
            *[x + 0.4 * (left - 2 * x + right) for left, x, right in zip(rod, rod[1:], rod[2:], strict=False)],
            0.0,
        ]
    with Path("profile.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["metres", "degrees"])
        writer.writerows((round(i * step, 6), round(x, 3)) for i, x in enumerate(rod))
    print(f"{asked.material} {asked.length} m: {max(rod):.2f} degrees after {asked.seconds:g} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
