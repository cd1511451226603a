"""Real hubs and nodes as processes, for the tests that need them. Loaded by the conftests of their folders.

Everything lives in the test's temporary folder. At the end all that is left is killed by process group, and the test
fails if a program had crashed or written a traceback.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

sys.path.append(str(Path(__file__).parent))
from ports import lasting_port

DEADLINE_S = 60.0
POLL_S = 0.02
ADMIN = "flw_admin-for-tests-0123456789"
JOIN = "flw_join-for-tests-0123456789"


def wait_until(is_so, what="it", deadline_s=DEADLINE_S):
    """Wait for the condition and return what it returned; fails with the last value seen."""
    deadline = time.monotonic() + deadline_s
    while not (seen := is_so()):
        assert time.monotonic() < deadline, f"waited {deadline_s:g} s for {what}; last: {seen!r}"
        time.sleep(POLL_S)
    return seen


def slots_of(process):
    """Return the slots that a process has: one of its other children may be gone when it is looked at."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "fallow/slot" in " ".join(child.cmdline()):
                found.append(child)
    return found


class Program:
    """One `fallow …` process with its output in a file."""

    def __init__(self, folder, name, arguments, environment, within=()):
        """within: a command that starts it, such as one that enters a network namespace."""
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "fallow", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    def said(self):
        return self.log.read_text(encoding="utf-8")

    def wait(self):
        """Wait for its end; return the exit code."""
        return self.process.wait(DEADLINE_S)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.wait()

    def end(self):
        """Kill what is left of its process group."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(DEADLINE_S)


class HubProgram(Program):
    """A hub that answers."""

    def __init__(self, folder, name, arguments, environment):
        super().__init__(folder, name, ["hub", *arguments], environment)
        self.url = wait_until(self._address, "the hub to be ready")
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {ADMIN}"}, trust_env=False)

    def _address(self):
        assert self.process.poll() is None, self.said()
        lines = self.said().splitlines()
        ready = [line for line in lines if line.startswith("A browser shows it all")]
        return ready[0].rsplit(" ", 1)[-1] if ready else None

    def get(self, path):
        answer = self.http.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def job(self, function="math:sqrt", items=(1, 4, 9), **options):
        answer = self.http.post("/api/v1/jobs", json={"function": function, "items": list(items), **options})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def wait_done(self, job):
        return wait_until(lambda: (found := self.get(f"/jobs/{job}"))["state"] == "done" and found, f"job {job}")

    def end(self):
        if hasattr(self, "http"):
            self.http.close()
        super().end()


class Programs:
    """Starts programs and clears up after them."""

    def __init__(self, folder):
        self.folder = folder
        self.all = []

    def environment(self, **more):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
        return {**kept, "FALLOW_CONFIG": str(self.folder / "no-config.toml"), "HOME": str(self.folder), **more}

    def start(self, *arguments, name="program", within=(), **environment):
        return self._keep(Program(self.folder, name, arguments, self.environment(**environment), within))

    def hub(self, *arguments, name="hub", **environment):
        """Start a hub with known tokens, on a port that it can come back to; `name` is its state folder too."""
        tokens = {"FALLOW_ADMIN_TOKEN": ADMIN, "FALLOW_JOIN_TOKEN": JOIN}
        arguments = ["--state", self.folder / name, *(arguments or ("--port", lasting_port()))]
        return self._keep(HubProgram(self.folder, name, arguments, self.environment(**{**tokens, **environment})))

    def node(self, hub, *arguments, name="node-1", within=(), **environment):
        """Start a node with two slots and wait until it has joined. Its tasks may write where tests look for it."""
        options = ["--slots", "2", "--name", name, "--state", self.folder / name, "--sandbox", "process"]
        environment = {"FALLOW_TOKEN": JOIN, **environment}
        program = self.start("node", hub.url, *options, *arguments, name=name, within=within, **environment)

        def has_joined():
            assert program.process.poll() is None, program.said()
            return any(node["name"] == name and node["connected"] for node in hub.get("/nodes")["nodes"])

        wait_until(has_joined, f"{name} to join")
        return program

    def run(self, *arguments, stdin="", **environment):
        """Run a command to its end; return exit code, stdout and stderr."""
        found = subprocess.run(
            [sys.executable, "-m", "fallow", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=self.folder,
            env=self.environment(**environment),
        )
        return found.returncode, found.stdout, found.stderr

    def _keep(self, program):
        self.all.append(program)
        return program

    def close(self):
        said = {}
        for program in reversed(self.all):
            crashed = program.process.poll() not in {None, 0, 1, -signal.SIGKILL, -signal.SIGTERM}
            program.end()
            if crashed or "Traceback" in program.said():
                said[program.name] = program.said()
        assert not said, "\n".join(f"--- {name}\n{words}" for name, words in said.items())


@pytest.fixture
def programs(tmp_path):
    made = Programs(tmp_path)
    yield made
    made.close()
