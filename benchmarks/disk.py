"""What the machine's disk can do in the folder where the hub keeps its state: the floor for all that is durable."""

import os
import tempfile
import time
from pathlib import Path

BLOCK_BYTES = 8_000_000
BLOCKS = {"full": 64, "quick": 64, "small": 2}
COMMITS = 50


def floor(scale: str) -> dict[str, float]:
    """Return MB/s of blocks written and synced one by one, and ms of one small append and sync."""
    with tempfile.TemporaryDirectory(prefix="bench-disk-") as folder:
        return {
            "fsynced writes, MB/s": _blocks(Path(folder), BLOCKS[scale]),
            "fsync of 4 KiB, ms": _commit(Path(folder)),
        }


def _blocks(folder: Path, count: int) -> float:
    block = os.urandom(BLOCK_BYTES)
    directory = os.open(folder, os.O_RDONLY)
    began = time.perf_counter()
    for number in range(count):
        with (folder / str(number)).open("wb", buffering=0) as file:
            file.write(block)
            os.fsync(file.fileno())
        os.fsync(directory)
    seconds = time.perf_counter() - began
    os.close(directory)
    return count * BLOCK_BYTES / 1e6 / seconds


def _commit(folder: Path) -> float:
    block = os.urandom(4096)
    with (folder / "log").open("ab", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(COMMITS):
            file.write(block)
            os.fsync(file.fileno())
        return (time.perf_counter() - began) / COMMITS * 1e3
