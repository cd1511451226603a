"""An agent that is killed leaves nothing in its sandboxes running, not even what can't notice by itself."""

import os
import signal
import time

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.service("bubblewrap")]

MARKER = f"daemon-of-a-killed-agent-{os.getpid()}"


def settle_in(marker):
    """Start a daemon, then stop this slot: it hears no more of anything."""
    import os
    import signal

    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sh", ["sh", "-c", f"while :; do sleep 0.05; done # {marker}"])
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSTOP)


def found(word):
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE
        and any(word in each for each in process.info["cmdline"] or ())
    ]


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, (found(MARKER), found("/one/slots/"))
        time.sleep(0.02)


def test_a_killed_agent_takes_its_sandboxes_along(programs, grid_of):
    hub = programs.hub()
    node = programs.node(hub, "--slots", "1", "--sandbox", "bubblewrap", name="one")
    slots = str(programs.folder / "one" / "slots")
    grid_of(hub.url).map(settle_in, [MARKER], name="daemon")
    until(lambda: found(MARKER) and found(slots))
    node.stop(signal.SIGKILL)
    until(lambda: not found(MARKER) and not found(slots))
