"""A grid of real processes: one hub, some nodes, on loopback, in a temporary folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from fallow import Grid

sys.path.append(str(Path(__file__).parents[2]))
from ports import lasting_port

ADMIN, JOIN = "flw_admin_secret_for_tests_only", "flw_join_secret_for_tests_only"
DEADLINE_S = 60.0


def wait_for(condition: Callable[[], Any], what: Callable[[], Any] = lambda: "") -> Any:
    """Wait for a condition with a deadline; on failure show the last state."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {DEADLINE_S} s; last seen: {what()}")
        time.sleep(0.02)
    return found


class RealGrid:
    """Starts and kills the processes of a grid; fails the test if one ended that should not have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def _run(self, name: str, arguments: list[str], token: str | None = None) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
        environment |= {
            "FALLOW_ADMIN_TOKEN": ADMIN,
            "FALLOW_JOIN_TOKEN": JOIN,
            "FALLOW_CONFIG": str(self.folder / "none"),
        }
        if token is not None:
            environment["FALLOW_TOKEN"] = token
        log = (self.folder / f"{name}.log").open("ab")
        self._stack.callback(log.close)
        process = subprocess.Popen(
            [sys.executable, "-m", "fallow.cli.main", *arguments],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
        self.processes[name] = process
        return process

    def start_hub(self) -> None:
        self._run("hub", ["hub", "--state", str(self.folder / "state"), "--port", str(self.port)])
        wait_for(self.is_up, lambda: self.log("hub"))

    def is_up(self) -> bool:
        assert self.processes["hub"].poll() is None, self.log("hub")
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def start_node(self, name: str = "node", slots: int = 1, *more: str) -> None:
        self._run(name, ["node", self.url, "--slots", str(slots), "--name", name,
                         "--state", str(self.folder / name), "--sandbox", "process", *more], JOIN)  # fmt: skip

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        process.send_signal(how)
        process.wait(DEADLINE_S)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def api(self, path: str, method: str = "GET", token: str = ADMIN, **more: Any) -> httpx.Response:
        return httpx.request(
            method,
            f"{self.url}/api/v1/{path}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=DEADLINE_S,
            **more,
        )

    def client(self) -> Grid:
        return self._stack.enter_context(Grid(self.url, token=ADMIN))

    def close(self) -> None:
        failed = {
            name: process.returncode for name, process in self.processes.items() if process.poll() not in {None, 0}
        }
        self._stack.close()
        everything: list[psutil.Process] = []
        for process in self.processes.values():
            if process.poll() is None:
                everything += [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                process.terminate()
        _, alive = psutil.wait_procs(everything, timeout=DEADLINE_S)
        for process in self.processes.values():
            process.wait(DEADLINE_S)
        left = [process.cmdline() for process in alive if process.is_running()]
        for process in alive:
            process.kill()
        assert not failed, {name: (code, self.log(name)[-2000:]) for name, code in failed.items()}
        assert not left, f"processes outlived their grid: {left}"


@pytest.fixture
def real_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealGrid]:
    for name in ("FALLOW_HUB", "FALLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "none"))
    grid = RealGrid(tmp_path)
    try:
        yield grid
    finally:
        grid.close()


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_for
