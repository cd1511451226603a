"""Processes that a program leaves running: found as this slot's children, and ended with it.

On Linux a slot adopts what its descendants leave behind, whatever groups and sessions they moved to. Elsewhere they stay until
the slot ends and takes its process group along.
"""

import contextlib
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE = 1
ROUNDS = 100
"""Generations of processes that start others while they are being ended."""

_adopted: list[bool] = []
"""Whether this process is the parent of orphans, once it has tried to be."""


def adopt() -> None:
    """Become the parent of orphans. A root's programs lose the right to write what is read-only, such as shared inputs."""
    if _adopted or sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        _adopted.append(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
        if os.geteuid() == 0:
            prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def are_ended() -> bool:
    """Whether nothing can be left of a program that has ended."""
    return any(_adopted)


def children() -> set[int]:
    """Return the processes that this one has started or adopted."""
    if not any(_adopted) or not _has_children():
        return set()
    own = os.getpid()
    return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent_of(pid) == own}


def end(spared: set[int]) -> None:
    """Kill all children but these, and what they leave in turn."""
    for _ in range(ROUNDS):
        found = children() - spared
        if not found:
            return
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return -1
