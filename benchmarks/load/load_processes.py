"""The hub and the fake agents as processes, each on a core of its own where there are two, and what they use."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from fallow import Grid

ADMIN = "flw_admin-of-the-load-test-0123456789"
JOIN = "flw_join-of-the-load-test-01234567890"
AGENTS, CLIENTS = (Path(__file__).parent / name for name in ("agents.py", "clients.py"))
START_S = 60.0
STATUS_S = 0.02


def _pin(process, core):
    if core is not None and hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(process.pid, {core})


class Use:
    """CPU seconds and memory of a process."""

    def __init__(self, pid):
        self._process = psutil.Process(pid)

    @property
    def cpu_s(self):
        times = self._process.cpu_times()
        return times.user + times.system

    @property
    def memory_mb(self):
        """Memory of the process alone (USS)."""
        return self._process.memory_full_info().uss / 1e6


class Hub:
    """A `fallow hub` process with SQLite in a folder, on core 0 (None: wherever the system puts it)."""

    def __init__(self, folder=None, core=0):
        self._own = None if folder is not None else tempfile.TemporaryDirectory(prefix="fallow-load-")
        self.folder = Path(folder if folder is not None else self._own.name)
        self._core = core

    def __enter__(self):
        self.start()
        return self

    def start(self):
        """Start the hub; returns the seconds until it answered."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
        environment.update(FALLOW_ADMIN_TOKEN=ADMIN, FALLOW_JOIN_TOKEN=JOIN)
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fallow", "hub", "--state", self.folder / "hub", "--port", "0"],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        _pin(self.process, self._core)
        for line in self.process.stdout:
            if line.startswith("A browser shows it all"):
                break
        else:
            raise RuntimeError(f"the hub ended with code {self.process.wait()}")
        self.url = line.rsplit(" ", 1)[-1].strip()
        self.use = Use(self.process.pid)
        return time.perf_counter() - began

    def grid(self):
        """Open a client's handle."""
        return Grid(self.url, token=ADMIN, progress=False)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        if self._own is not None:
            self._own.cleanup()


class Agents:
    """A process of fake agents, on core 1."""

    def __init__(self, hub, count, *, seconds_per_task=10.0, answer_after_s=None, core=1):
        """seconds_per_task: as reported to the hub: 10 makes leases of one task. answer_after_s: least and most, None: at once."""
        how = ["--seconds-per-task", str(seconds_per_task)]
        if answer_after_s is not None:
            how += ["--answer-after", *map(str, answer_after_s)]
        self._process = subprocess.Popen(
            [sys.executable, AGENTS, hub.url, "--agents", str(count), *how],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "FALLOW_TOKEN": JOIN},
        )  # fmt: skip
        _pin(self._process, core)

    def __enter__(self):
        self.use = Use(self._process.pid)
        self.first = self._answer()
        return self

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the agents ended with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, command="counts"):
        """Give a command; returns what the agents have done until then."""
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(START_S)
        self._process.stdout.close()


class Clients:
    """A process of submitting clients, on core 1; within, all are connected."""

    def __init__(self, hub, count, seconds, *, core=1):
        self._process = subprocess.Popen(
            [sys.executable, CLIENTS, hub.url, "--clients", str(count), "--seconds", str(seconds)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "FALLOW_TOKEN": ADMIN},
        )  # fmt: skip
        _pin(self._process, core)

    def __enter__(self):
        self._line()
        return self

    def _line(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the clients ended with code {self._process.wait()}")
        return line

    def answer(self):
        """Wait for the end; returns what they measured."""
        return json.loads(self._line())

    def __exit__(self, *_):
        self._process.wait(START_S)
        self._process.stdout.close()


def allow_files():
    """Let processes have as many connections as the system allows."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
