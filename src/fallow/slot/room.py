"""Whether a file may lie in memory: one rule for slots, which put large results there, and for the store of blobs."""

import os

KEPT_FREE = 0.5
"""Part of the memory filesystem that is left to others."""
KEPT_AVAILABLE = 0.25
"""Part of the computer's memory that stays available: what lies there can't be dropped as a disk's cache can."""
HEAD_BYTES = 256
"""Of /proc/meminfo: total, free and available come first."""


def has_room(folder: str, size_bytes: int) -> bool:
    """Return whether a file of this size may be made in a folder of a memory filesystem; no if that can't be told."""
    try:
        found = os.statvfs(folder)
        with open("/proc/meminfo", "rb", buffering=0) as file:  # noqa: PTH123 -- pathlib costs a slot's start 8 ms
            total, _, available = (int(line.split()[1]) * 1024 for line in file.read(HEAD_BYTES).splitlines()[:3])
    except (OSError, AttributeError, ValueError, IndexError):
        return False
    if found.f_bavail * found.f_frsize - size_bytes <= found.f_blocks * found.f_frsize * KEPT_FREE:
        return False
    return available - size_bytes > total * KEPT_AVAILABLE
