"""Files of large results, mapped: arrays lie in the file's pages, may be written to, and keep the mapping alive."""

import mmap
import weakref
from pathlib import Path

MAX_MAPPED = 4096
"""Files mapped at a time, where the system has no limit for descriptors: each mapping holds one."""
PART_OF_DESCRIPTORS = 4
"""A program may use the other three parts of those that it may have for something else."""

_mapped: "weakref.WeakSet[mmap.mmap]" = weakref.WeakSet()
"""Of this process, as its limit of descriptors is."""


def map_file(path: Path) -> memoryview:
    """Return the bytes of a file, private to this process and writable; beyond the limit of mappings in memory of its own.

    Raises OSError, ValueError if the file is empty.
    """
    with path.open("rb", buffering=0) as file:
        if can_map():
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            _mapped.add(mapped)
            return memoryview(mapped)
        size = path.stat().st_size
        own = memoryview(mmap.mmap(-1, size))
        at = 0
        while at < size and (count := file.readinto(own[at:])):
            at += count
        return own[:at]


def can_map() -> bool:
    """Return whether one more file can be mapped."""
    return len(_mapped) < _limit()


def _limit() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return MAX_MAPPED
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_MAPPED if descriptors == resource.RLIM_INFINITY else min(MAX_MAPPED, descriptors // PART_OF_DESCRIPTORS)
