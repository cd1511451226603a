"""The ten texts under a folder that are nearest to a reference text, by the words they use.

    python examples/document_search.py                              # Python's own standard library
    python examples/document_search.py ~/papers ~/papers/mine.txt   # your texts
    python examples/document_search.py --hub http://hub:7070        # on a hub's nodes; the token from $FALLOW_TOKEN

The texts are read here, one after the other, while the nodes already compare the first ones: memory stays small
however large the folder is, and the nodes need no access to it.
"""

import argparse
import sys
from functools import partial
from heapq import nsmallest
from pathlib import Path

from fallow import Grid
from fallow.demo.search import distance, profile, read_documents, standard_library


def main(argv: list[str] | None = None) -> int:
    library = standard_library()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=library, help="default: Python's standard library")
    parser.add_argument("reference", type=Path, nargs="?", default=library / "concurrent/futures/process.py")
    parser.add_argument("--limit", type=int, help="look at no more than so many texts")
    parser.add_argument("--hub", help="address of a hub; without it this computer's cores do the work")
    options = parser.parse_args(argv)

    reference = profile(options.reference.read_text(errors="replace"))
    names = []

    def documents():
        for document in read_documents(options.folder, limit=options.limit):
            names.append(document.name)
            yield document

    with Grid(options.hub) as grid:
        distances = grid.map(partial(distance, reference), documents())
        nearest = nsmallest(10, ((each, names[at]) for at, each in enumerate(distances)))

    print(f"Nearest to {options.reference} among {len(names):,} texts:")
    for each, name in nearest:
        print(f"  {each:.3f}  {name}")
    return 0 if nearest else 1


if __name__ == "__main__":
    sys.exit(main())
