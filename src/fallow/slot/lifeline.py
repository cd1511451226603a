"""Ends the slot, and everything that its tasks have started, when its agent is gone.

A thread waits for the agent's end of the pipe to close, which happens however the agent ends, kill -9 included. Linux's
parent-death signal is not used: it would end the slot but leave its children behind, and it fires when the
thread that started the slot ends, which in an embedded grid is not the end of the process.
"""

import os
import select
import signal
import threading

CHECK_MS = 5_000
"""How often the parent is looked for besides: a process that the agent forked may hold its end of the pipe open."""


def hold(pipe: int, parent: int) -> None:
    """Start watching; `pipe` is what the agent writes to, `parent` its process id."""
    if not hasattr(select, "poll"):
        return  # Windows: the agent's job object ends its slots with it
    threading.Thread(target=_watch, args=(pipe, parent), name="fallow-lifeline", daemon=True).start()


def _watch(pipe: int, parent: int) -> None:
    poll = select.poll()
    poll.register(pipe, 0)  # hang-ups are reported without being asked for; data is the main thread's
    while not poll.poll(CHECK_MS) and os.getppid() == parent:
        pass
    end_group()


def end_group() -> None:
    """Kill this process and all in its group: tasks' children too."""
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
