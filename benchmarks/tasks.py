"""What the tasks do: importable by every system's workers, with nothing but the standard library and NumPy."""

import time
from pathlib import Path
from typing import Any

ARRAY_NUMBERS = 1_000_000
"""8 MB of float64."""
POLL_S = 0.001

inherited: Any = None
"""The array that a forked worker of the process pool finds in its memory."""


def nothing() -> None:
    """Do nothing: what is left is the system's own time."""


def square(n: int) -> int:
    return n * n


def squares(start: int, stop: int) -> list[int]:
    """A batch made by hand, with the function written out in it: the fastest that a batch can be."""
    return [n * n for n in range(start, stop)]


def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def hold(folder: str, number: int) -> int:
    """Say that it runs, and keep its slot until it is released."""
    Path(folder, f"holding-{number}").touch()
    while not Path(folder, "release").exists():
        time.sleep(POLL_S)
    return number


def total(array: Any) -> float:
    return float(array.sum())


def make(number: int) -> Any:
    import numpy as np

    return np.full(ARRAY_NUMBERS, float(number))


def touch(array: Any, number: int) -> float:
    """Use a thousand numbers of a large array."""
    return float(array[number :: len(array) // 1000].sum())


def touch_inherited(number: int) -> float:
    return touch(inherited, number)


def touch_file(path: str, number: int) -> float:
    import numpy as np

    return touch(np.load(path, mmap_mode="r"), number)
