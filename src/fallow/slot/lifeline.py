"""Ends the slot, and everything that its tasks have started, when its agent is gone; and hears the agent while a task runs.

A thread reads the control pipe, which carries a message only when the agent takes work back (CUT), and ends however the
agent ends, kill -9 included. Linux's parent-death signal is not used: it would end the slot but leave its children
behind, and it fires when the thread that started the slot ends, which in an embedded grid is not the end of the process.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable

from fallow.slot.protocol import CUT, HEADER

CHECK_MS = 5_000
"""How often the parent is looked for besides: a process that the agent forked may hold its end of the pipe open."""


def open_control(argument: str) -> int:
    """Return the file descriptor of the control pipe that the agent names: a handle on Windows. No child inherits it."""
    control = int(argument)
    if sys.platform == "win32":
        import msvcrt

        os.set_handle_inheritable(control, False)
        return msvcrt.open_osfhandle(control, os.O_RDONLY | os.O_BINARY)
    os.set_inheritable(control, False)
    return control


def hold(control: int, parent: int, on_cut: Callable[[int], None]) -> None:
    """Start watching. parent: the process that started this one. on_cut: called, in the thread, with the number of a run."""
    threading.Thread(target=_watch, args=(control, parent, on_cut), name="fallow-lifeline", daemon=True).start()


def _watch(control: int, parent: int, on_cut: Callable[[int], None]) -> None:
    poll = select.poll() if hasattr(select, "poll") else None  # on Windows the agent's job object ends its slots too
    if poll is not None:
        poll.register(control, select.POLLIN)
    while True:
        if poll is not None and not poll.poll(CHECK_MS):
            if os.getppid() == parent:
                continue
            break
        message = os.read(control, HEADER.size)  # short ones: whole or not at all
        if len(message) < HEADER.size:
            break
        kind, _, _, number, *_ = HEADER.unpack(message)
        if kind == CUT:
            on_cut(number)
    end_group()


def end_group() -> None:
    """Kill this process and all in its group: tasks' children too."""
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
