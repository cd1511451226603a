"""Inputs too large for a frame: in order, whatever their sizes, and not in memory any longer than they are used."""

import ctypes
import mmap
import os
import sys

import numpy as np
import pytest
from tests.programs import wait_until

from fallow import Grid
from fallow.model.page import INLINE_BYTES

pytestmark = pytest.mark.slow

LARGE = 2 * INLINE_BYTES


def length(data):
    return len(data)


def total(array):
    return float(array.sum())


def in_memory(path):
    """Return how many pages of a file the system holds in memory."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        found = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        refused = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), found
        )
        del start
        assert not refused
        return sum(each & 1 for each in found)


def can_be_set_aside(folder):
    """Return whether files in this folder leave the memory when that is asked for; those of a memory filesystem can't."""
    path = folder / "probe"
    path.write_bytes(bytes(LARGE))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return not in_memory(path)


@pytest.mark.parametrize("durable", [False, True])
def test_large_and_small_inputs_come_in_their_order(tmp_path, durable):
    sizes = [LARGE + n if n % 3 else n for n in range(14)]
    with Grid(slots=2, state=tmp_path if durable else None) as grid:
        assert list(grid.map(length, (b"x" * size for size in sizes))) == sizes
        assert grid.map(length, [b"y" * size for size in sizes]).result(60) == sizes


def test_equal_large_inputs_are_sent_beside_each_other(tmp_path):
    with Grid(slots=2, state=tmp_path) as grid:
        assert list(grid.map(length, [bytes(LARGE)] * 8)) == [LARGE] * 8


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is set aside")
def test_files_of_large_inputs_leave_the_memory_once_they_are_used(tmp_path):
    if not can_be_set_aside(tmp_path):
        pytest.skip("files here lie in memory only")
    arrays = [np.full(LARGE // 8, float(n)) for n in range(12)]
    with Grid(slots=2, state=tmp_path) as grid:
        job = grid.map(total, arrays, name="sums")
        assert list(job) == [array.sum() for array in arrays]
        files = [path for path in tmp_path.glob("blobs/blobs/*/*") if path.stat().st_size > LARGE]
        assert len(files) == len(arrays)
        wait_until(lambda: not any(map(in_memory, files)), "files of used inputs out of memory")
