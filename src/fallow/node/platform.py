"""What differs between operating systems: processes and their groups, locks, names of signals. Nothing else asks which
system it runs on.
"""

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from fallow.model.errors import StateInUse

IS_WINDOWS = sys.platform == "win32"

ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64", "i386": "x86", "i686": "x86"}
SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}

KILL_WAIT_S = 2.0
"""How long `end_leftovers` waits for what it has killed to be gone."""


def group_arguments() -> dict[str, bool | int]:
    """Return what makes `subprocess.Popen` start a process group of its own."""
    if IS_WINDOWS:
        return {"creationflags": 0x00000200}  # CREATE_NEW_PROCESS_GROUP
    return {"start_new_session": True}


def kill_tree(pid: int) -> None:
    """Kill a process, its group, and those of its descendants that have left the group. Returns at once."""
    descendants: Sequence[psutil.Process] = ()
    with contextlib.suppress(psutil.Error):
        descendants = psutil.Process(pid).children(recursive=True)
    kill_group(pid)
    for process in descendants:
        with contextlib.suppress(psutil.Error):
            process.kill()


def kill_group(pid: int) -> None:
    """Kill the process group that `pid` leads, or what is left of it after its leader died."""
    if IS_WINDOWS:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def start_time(pid: int) -> float | None:
    """Return when a process started: with its id, it names a process for ever. None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def end_leftovers(listed: Sequence[tuple[int, float]]) -> int:
    """Kill those of the listed (process id, start time) that still run, with their children; return how many."""
    found = []
    for pid, started in listed:
        actual = start_time(pid)
        if actual is not None and abs(actual - started) < 0.05:
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
            kill_tree(pid)
    psutil.wait_procs(found, timeout=KILL_WAIT_S)
    return len(found)


def describe_exit(status: int) -> tuple[int | None, str | None]:
    """Turn a `Popen.returncode` into an exit code or a signal's name."""
    if status >= 0:
        return status, None
    try:
        return None, signal.Signals(-status).name
    except ValueError:
        return None, f"signal {-status}"


def reap(process: "subprocess.Popen[bytes]") -> tuple[int, int] | None:
    """Collect a child that has ended: its return code as Popen has it, and its peak memory in bytes (0: unknown). None
    if it still runs.
    """
    if IS_WINDOWS or not hasattr(os, "wait4"):
        status = process.poll()
        return None if status is None else (status, 0)
    if process.returncode is not None:
        return process.returncode, 0
    try:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    except ChildProcessError:  # another part of this program waits for all children
        process.returncode = process.poll() or 0
        return process.returncode, 0
    if pid == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def own_peak_memory() -> int:
    """Return this process's peak memory in bytes, which Linux counts to its children too until they exceed it."""
    if IS_WINDOWS:
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def open_exit_fd(pid: int) -> int | None:
    """Return a file descriptor that becomes readable when the process ends, where the system has such things."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def lock_file(path: Path) -> IO[bytes]:
    """Open and lock a file for as long as this process lives or until it is closed; raises StateInUse if another has it."""
    file = path.open("ab")
    try:
        if IS_WINDOWS:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
            raise StateInUse(
                f"another node's agent uses the folder {path.parent}: stop it, or give this one a folder of its own (--state)"
            ) from None
        raise
    return file
