"""What the clients of the fault harness run, and the truth that their results are compared with.

Slots import this module from the archive that travels beside the function. Every execution leaves one line in the
ledger: an append of less than a page is atomic.
"""

import os
import signal
import time
from pathlib import Path

LARGE_BYTES = 1_300_000
KEPT_OF = 3
RAISES_OF = 5
CRASHES_OF = 17


def note(folder: str, label: str, index: int) -> None:
    line = f"{label} {index} {os.getpid()} {os.getppid()} {time.time():.6f}\n"
    handle = os.open(os.path.join(folder, "ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def value(index: int) -> tuple[int, int]:
    return index, index * index * 7 % 1_000_003


def large(index: int) -> bytes:
    return (b"%08d" % index) * (LARGE_BYTES * (1 + index % 3) // 8)


class Task:
    """Notes that it ran, takes its time, returns `value`."""

    def __init__(self, folder: str, label: str, pause_s: float) -> None:
        self.folder, self.label, self.pause_s = folder, label, pause_s

    def __call__(self, index):
        note(self.folder, self.label, index)
        if self.pause_s:
            time.sleep(self.pause_s * (0.2 + (index * 37 % 100) / 60))
        return self.work(index)

    def work(self, index):
        return value(index)


class OfItem(Task):
    """The item is (index, bytes): pages of items."""

    def __call__(self, item):
        index, payload = item
        assert payload == bytes([index % 256]) * len(payload)
        return super().__call__(index)


class OfResult(Task):
    """The item is another job's result."""

    def __call__(self, item):
        assert tuple(item) == value(item[0])
        return super().__call__(item[0])


class Keep(Task):
    def work(self, index):
        return index % KEPT_OF == 0


class Large(Task):
    def work(self, index):
        return large(index)


class Prints(Task):
    def work(self, index):
        print("task", index, "says", "x" * (index % 200))
        os.write(1, b"and this goes around Python\n")
        return value(index)


class Raises(Task):
    def work(self, index):
        if index % RAISES_OF == 0:
            raise ValueError(f"no {index}")
        return value(index)


class Crashes(Task):
    """Some take their process down at the first attempt."""

    def work(self, index):
        if index % CRASHES_OF == 0:
            try:
                Path(self.folder, f"crashed-{self.label}-{index}").touch(exist_ok=False)
            except FileExistsError:
                return value(index)
            if index % 2:
                os._exit(3)
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)
        return value(index)


class WithRef(Task):
    def __call__(self, index, data):
        assert len(data) == LARGE_BYTES
        return super().__call__(index)


def kept(index: int) -> bool:
    return index % KEPT_OF == 0


def add(one, other):
    return (one[0] + other[0], one[1] + other[1])


def truth(kind: str, size: int) -> list:
    """Return what a job of this kind must have found."""
    if kind == "filter":
        return [index for index in range(size) if kept(index)]
    if kind == "large":
        return [large(index) for index in range(size)]
    if kind == "raises":
        return [f"no {index}" if index % RAISES_OF == 0 else value(index) for index in range(size)]
    return [value(index) for index in range(size)]


def plain(result):
    """Make results comparable: exceptions by their text."""
    return str(result) if isinstance(result, BaseException) else result
