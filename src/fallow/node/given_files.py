"""What a contained slot is given of the agent's files: links in a folder of its own, which is all that it sees of blobs and sources.

A link is there at once in a sandbox that shows the folder, is no copy, and stays when the cache drops the blob; room on the disk
is free again when the last name of a file goes, so what no job of the slot needs any more is taken back.
"""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Literal

from fallow.node import platform

Holder = tuple[Literal["job", "page"], int]
"""For which job or input page, by the agent's numbers, a slot has a file."""


class GivenFiles:
    """Those of one slot."""

    def __init__(self, folder: Path) -> None:
        """folder: on the filesystem of what is given; `open` makes it."""
        self.folder = folder
        self._held: dict[Holder, set[Path]] = {}
        self._holders: Counter[Path] = Counter()

    def open(self) -> None:
        self.folder.mkdir(parents=True)

    def give(self, path: Path, holder: Holder | None) -> Path:
        """Return where the slot finds a file, or a folder. holder: None to leave it there until the slot ends.

        Raises OSError if it can't be linked.
        """
        place = self.folder / path.parent.name / path.name
        if place not in self._holders:
            _link(path, place)
            self._holders[place] = 0
        held = self._held.setdefault(holder, set()) if holder is not None else None
        if held is None:
            self._holders[place] += 1
        elif place not in held:
            held.add(place)
            self._holders[place] += 1
        return place

    def take_back(self, holder: Holder) -> None:
        """A job or a page is over: remove what was given for it alone."""
        for place in self._held.pop(holder, ()):
            self._holders[place] -= 1
            if not self._holders[place]:
                del self._holders[place]
                platform.remove_mapped(place)


def _link(path: Path, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    if path.is_dir():  # but for what slots without a sandbox may be compiling there
        shutil.copytree(path, place, copy_function=os.link, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        place.hardlink_to(path)
