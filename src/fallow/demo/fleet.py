"""A hub and some nodes as processes of their own on this computer, and nothing left of them afterwards.

Owns the processes, their tokens and their folder. What runs is what anybody would run: `fallow hub`, `fallow node`.
"""

import http.client
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from fallow.model.errors import FallowError, Unavailable

START_LIMIT_S = 60.0
"""How long a hub or a node may take to be ready: far more than it needs, even on a busy machine."""
STOP_LIMIT_S = 10.0
"""How long they may take to stop by themselves before they are killed."""
POLL_S = 0.05
ANSWER_LIMIT_S = 30.0
LOOPBACK = "127.0.0.1"


class Fleet:
    """`with Fleet(2) as fleet:` runs a hub and two nodes; `fleet.url` and `fleet.token` are for the client."""

    def __init__(self, nodes: int, slots: int = 1, node_options: Sequence[str] = ()) -> None:
        """node_options: more words for `fallow node`."""
        self.names = [f"node-{number}" for number in range(1, nodes + 1)]
        self.slots = slots
        self._node_options = node_options
        self.token = secrets.token_urlsafe(24)
        self._port = 0
        self._join_token = secrets.token_urlsafe(24)
        self._folder = TemporaryDirectory(prefix="fallow-demo-")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self._start_hub()
            for name in self.names:
                self.start_node(name)
            self._wait_until(lambda: len(self.connected()) == len(self.names), "the nodes to join", self.names)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Return the hub's address."""
        return f"http://{LOOPBACK}:{self._port}"

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return what the hub says of each node (`GET /api/v1/nodes`), by the names given here."""
        return {node["name"]: node for node in json.loads(self._get("/api/v1/nodes"))["nodes"]}

    def _get(self, path: str) -> bytes:
        """Ask the hub; raises Unavailable. Not by httpx, which would be a third of a small client."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=ANSWER_LIMIT_S)
        with closing(connection):
            try:
                connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"the hub does not answer: {error!r}") from error
        if answer.status != http.HTTPStatus.OK:
            raise Unavailable(f"the hub answers {path} with status {answer.status}")
        return body

    def connected(self) -> list[str]:
        """Return the names of the nodes that have joined and not been lost."""
        return [name for name, node in self.nodes().items() if node["connected"]]

    def start_node(self, name: str) -> None:
        """Start a node, for the first time or after `kill_node`: it keeps its name and its folder."""
        command = ["node", self.url, "--slots", str(self.slots), "--name", name, "--state", str(self._path(name))]
        command += self._node_options
        self._start(name, command, {"FALLOW_TOKEN": self._join_token})

    def kill_node(self, name: str) -> None:
        """Kill a node's agent by SIGKILL: it can say goodbye to nobody."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def pids(self) -> dict[str, int]:
        """Return the process ids of "hub" and of each running node."""
        return {name: process.pid for name, process in self._processes.items()}

    def stop(self) -> None:
        """End the nodes, then the hub, and remove their folder."""
        for name in [*self.names, "hub"]:
            process = self._processes.pop(name, None)
            if process is not None:
                _end(process)
        self._folder.cleanup()

    def _start_hub(self) -> None:
        tokens = {"FALLOW_ADMIN_TOKEN": self.token, "FALLOW_JOIN_TOKEN": self._join_token}
        self._start("hub", ["hub", "--port", "0", "--state", str(self._path("hub"))], tokens)
        self._wait_until(self._is_healthy, "the hub to answer", ["hub"])

    def _is_healthy(self) -> bool:
        told = re.search(rf"http://{re.escape(LOOPBACK)}:(\d+)", self._path("hub.log").read_text(errors="replace"))
        if told is None:
            return False
        self._port = int(told[1])
        try:
            self._get("/healthz")
        except Unavailable:
            return False
        return True

    def _start(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        with self._path(f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "fallow", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")} | environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the demo, which then stops them in order
            )

    def _wait_until(self, is_so: Callable[[], bool], what: str, needed: list[str]) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not is_so():
            for name in needed:
                process = self._processes[name]
                if process.poll() is not None:
                    raise FallowError(f"{name} ended with status {process.returncode}:\n{self._last_words(name)}")
            if time.monotonic() > deadline:
                words = "\n".join(self._last_words(name) for name in needed)
                raise Unavailable(f"waited {START_LIMIT_S:g} s for {what}\n{words}")
            time.sleep(POLL_S)

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _last_words(self, name: str) -> str:
        lines = self._path(f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(f"  {name}: {line}" for line in lines[-10:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and kill its whole group if it does not, or if it left anything behind."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
