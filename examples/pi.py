"""Decimal digits of Pi, each group of nine from its position alone (Alchemi's evaluation program).

python examples/pi.py --digits 1000                        # on this computer's cores
python examples/pi.py --digits 1000 --hub http://hub:7070  # on a hub's nodes; the token from $FALLOW_TOKEN
"""

import argparse
import hashlib
import sys
import time

from fallow import Grid
from fallow.demo.pi import all_digits, digits_at, starts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=int, default=500, help="how many, after the point (default 500)")
    parser.add_argument("--hub", help="address of a hub; without it this computer's cores do the work")
    options = parser.parse_args(argv)

    began = time.perf_counter()
    with Grid(options.hub) as grid:
        groups = grid.map(digits_at, starts(options.digits))
        digits = "".join(groups)[: options.digits]
    took = time.perf_counter() - began

    print("3.")
    for at in range(0, len(digits), 50):
        print(f"  {digits[at : at + 50]}")
    print(f"{len(digits):,} digits in {took:.1f} s, sha256 {hashlib.sha256(digits.encode()).hexdigest()}")
    if digits != all_digits(options.digits):
        print("They differ from Chudnovsky's formula!", file=sys.stderr)
        return 1
    print("Chudnovsky's formula gives the same digits.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
