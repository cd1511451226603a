"""The start of a slot in a container. No descriptors can be passed through a container engine, so the slot takes its pipes from
a socket in its folder, and from then on is like any other.

The container's first process stays behind as its keeper: the kernel keeps signals from the first process of a
container, so a task could not be seen to die of one there. It collects orphans, says how the slot ended and what its peak was,
and when it ends, which it also does when the agent closes its connection or is gone, the kernel ends everything else.
"""

import contextlib
import os
import select
import signal
import socket
from typing import NoReturn

from fallow.slot.protocol import CONNECTIONS, STATE

CGROUP = "/sys/fs/cgroup"
"""Where engines show a container its own control group, without the right to write."""


def enter(path: str) -> str:
    """Connect to the agent's socket and go on in a child process, with its pipes as fds 0, 1 and 2; return the control
    pipe's fd.
    """
    folder, _, name = path.rpartition("/")
    os.chdir(folder)  # paths of sockets must be short
    pipes = []
    for _ in range(CONNECTIONS):
        pipe = socket.socket(socket.AF_UNIX)
        pipe.connect(name)
        pipes.append(pipe)
    messages, noise, control, report = pipes
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    os.dup2(noise.fileno(), 1)  # the engine's log would grow without bounds on the owner's disk
    os.dup2(noise.fileno(), 2)
    slot = os.fork()
    if slot:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one signal that Python handles: tasks could end it
        for pipe in (messages, control):
            pipe.close()
        _keep(slot, report, woken)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for fd in (woken, wake):
        os.close(fd)
    report.close()
    os.dup2(messages.fileno(), 0)
    os.dup2(messages.fileno(), 1)
    messages.close()
    noise.close()
    return str(control.detach())


def _keep(slot: int, report: socket.socket, woken: int) -> NoReturn:
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if report.fileno() in ready:
            try:
                if not report.recv(1):
                    os._exit(1)  # the agent has closed the connection, or is gone
                report.sendall(_state(None, 0))
            except OSError:
                os._exit(1)
        if woken in ready:
            os.read(woken, 4096)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.wait4(-1, os.WNOHANG))[0]:
                    if ended[0] == slot:
                        status, peak = os.waitstatus_to_exitcode(ended[1]), ended[2].ru_maxrss * 1024
                        with contextlib.suppress(OSError):
                            report.sendall(_state(status, peak))
                        os._exit(0)


def _state(status: int | None, peak: int) -> bytes:
    peak = max(peak, _figure("memory.peak", "memory/memory.max_usage_in_bytes"))
    kills = _figure("memory.events", "memory/memory.oom_control", "oom_kill")
    refusals = _figure("pids.events", "pids/pids.events", "max")
    return STATE.pack(status is not None, status or 0, peak, kills, refusals)


def _figure(second: str, first: str, key: str = "") -> int:
    """Read a figure of the container's own control group, of version 2 or 1; 0 if it can't be had."""
    for name in (second, first):
        with contextlib.suppress(OSError, ValueError, KeyError), open(f"{CGROUP}/{name}") as file:  # noqa: PTH123
            return int(dict(line.split() for line in file)[key] if key else file.read())
    return 0
