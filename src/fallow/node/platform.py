"""What differs between operating systems: processes and their groups, locks, names of signals. Nothing else asks which
system it runs on.
"""

import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from fallow.model.errors import StateInUse
from fallow.node.channel import ChannelKind

if TYPE_CHECKING:
    import resource

IS_WINDOWS = sys.platform == "win32"

ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64", "i386": "x86", "i686": "x86"}
SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}

KILL_WAIT_S = 2.0
"""How long `end_leftovers` waits for what it has killed to be gone."""


def _can_watch_processes() -> bool:
    """Whether the event loop can be told of a process's end by a descriptor (Linux from 5.3, unless a sandbox forbids)."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError):
        return False
    return True


CHANNEL: ChannelKind = "watched" if _can_watch_processes() else "threaded"
"""How slots are connected, unless the settings say otherwise."""


# --- processes and what they start --------------------------------------------------------------


def spawn(
    command: Sequence[str], pipes: tuple[int, int, int, int], environment: Mapping[str, str], folder: Path | None
) -> "subprocess.Popen[bytes]":
    """Start a slot: a process in a group of its own. pipes: its fds 0, 1 and 2, and its control pipe, which is named in
    one more argument. Raises OSError.
    """
    inward, outward, noise, control = pipes
    arguments: dict[str, Any]
    if sys.platform == "win32":
        import msvcrt

        handle = msvcrt.get_osfhandle(control)
        os.set_handle_inheritable(handle, True)
        startup = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        arguments = {"startupinfo": startup, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        handle = control
        arguments = {"pass_fds": (control,), "start_new_session": True}
    return subprocess.Popen(
        [*command, str(handle)], stdin=inward, stdout=outward, stderr=noise, cwd=folder, env=environment, **arguments
    )


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    _kernel.CreateJobObjectW.restype = wintypes.HANDLE
    _kernel.CreateJobObjectW.argtypes = [wintypes.LPVOID, wintypes.LPCWSTR]
    _kernel.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD]
    _kernel.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    _kernel.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
    _kernel.CloseHandle.argtypes = [wintypes.HANDLE]
    _KILL_ON_JOB_CLOSE = 0x2000
    _EXTENDED_LIMIT_INFORMATION = 9

    class _BasicLimits(ctypes.Structure):
        _fields_ = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        ]

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = [
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        ]

    class ProcessTree:
        """A process and all that it starts, in a job object: they end with the last handle to it, so with the agent."""

        def __init__(self, process: "subprocess.Popen[bytes]") -> None:
            self._pid = process.pid
            self._job = _kernel.CreateJobObjectW(None, None)
            limits = _ExtendedLimits()
            limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
            _kernel.SetInformationJobObject(
                self._job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            _kernel.AssignProcessToJobObject(self._job, int(process._handle))  # psutil's list of children is the net

        def kill(self) -> None:
            """Kill all of them. Returns at once."""
            if not _kernel.TerminateJobObject(self._job, 1):
                kill_tree(self._pid)

        def kill_rest(self) -> None:
            """The process has ended: kill what it has started."""
            _kernel.TerminateJobObject(self._job, 1)

        def close(self) -> None:
            _kernel.CloseHandle(self._job)

else:

    class ProcessTree:
        """A process that leads a group, and all that it starts."""

        def __init__(self, process: "subprocess.Popen[bytes]") -> None:
            self._pid = process.pid
            self._has_ended = False

        def kill(self) -> None:
            """Kill all of them. Returns at once."""
            if not self._has_ended:
                kill_tree(self._pid)

        def kill_rest(self) -> None:
            """The process has ended: kill what it has started and what is in its group still."""
            self._has_ended = True
            kill_group(self._pid)

        def close(self) -> None:
            pass


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
    if sys.platform == "win32":
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()
    else:
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
    return process.returncode, _peak_bytes(usage)


def wait(process: "subprocess.Popen[bytes]") -> tuple[int, int]:
    """Wait for a child's end, in a thread: what `reap` returns."""
    if IS_WINDOWS or not hasattr(os, "wait4"):
        return process.wait(), 0
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except ChildProcessError:
        return process.wait(), 0
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, _peak_bytes(usage)


def own_peak_memory() -> int:
    """Return this process's peak memory in bytes, which Linux counts to its children too until they exceed it."""
    if sys.platform == "win32":
        return 0
    if sys.platform == "linux":  # getrusage counts that of whoever started us too
        with contextlib.suppress(OSError, ValueError, IndexError):
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return _peak_bytes(resource.getrusage(resource.RUSAGE_SELF))


def _peak_bytes(usage: "resource.struct_rusage") -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def open_exit_fd(pid: int) -> int:
    """Return a file descriptor that becomes readable when the process ends. For CHANNEL "watched" only; raises OSError."""
    if sys.platform != "linux":
        raise OSError("this system has no descriptors of processes")
    return os.pidfd_open(pid)


# --- pipes --------------------------------------------------------------------------------------

PEEK_S = 0.05
"""How often a pipe is looked at where nothing tells that it can be read."""


def wait_readable(fd: int) -> None:
    """Return when a pipe has something to read, or ends."""
    if sys.platform == "win32":
        while _peek(fd) == 0:
            time.sleep(PEEK_S)
    else:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll()


def read_waiting(fd: int, size: int) -> bytes | None:
    """Return what lies in a pipe, None if that is nothing yet; empty at its end. Never blocks, if nobody else reads it."""
    if sys.platform == "win32":
        waiting = _peek(fd)
        return b"" if waiting is None else os.read(fd, min(waiting, size)) if waiting else None
    try:
        os.set_blocking(fd, False)
        return os.read(fd, size)
    except BlockingIOError:
        return None


if sys.platform == "win32":

    def _peek(fd: int) -> int | None:
        """Return how many bytes lie in a pipe; None at its end."""
        import _winapi
        import msvcrt

        try:
            return _winapi.PeekNamedPipe(msvcrt.get_osfhandle(fd), 0)[0]
        except BrokenPipeError:
            return None


# --- files --------------------------------------------------------------------------------------


def remove_mapped(path: Path) -> None:
    """Delete a file that processes have mapped, where the system allows it; else nothing: it is deleted when it is free."""
    with contextlib.suppress(PermissionError):
        path.unlink(missing_ok=True)


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


# --- memory -------------------------------------------------------------------------------------

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 -- folders in it are made with mode 0700
MEMORY_FOLDER_BYTES = 2_000_000_000
"""A folder in memory with less room is left to others (containers often have 64 MB)."""


def memory_folder() -> Path | None:
    """Return a folder whose files lie in memory and can be mapped by all processes; None where there is none with room."""
    try:
        if sys.platform != "linux" or shutil.disk_usage(MEMORY_FOLDER).free < MEMORY_FOLDER_BYTES:
            return None
    except OSError:
        return None
    return MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None
