"""The processes under test: a hub on a small filesystem, nodes and clients behind cables."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
from cable import Cable
from ledger import Ledger

sys.path.append(str(Path(__file__).parents[2]))
from ports import lasting_port

HERE = Path(__file__).parent
ADMIN, JOIN = "flw_admin_secret_for_chaos_only", "flw_join_secret_for_chaos_only"
DISK_BYTES = 256 << 20
RESERVE_BYTES = 16 << 20
NODES = {"one": 2, "two": 1, "three": 1}
"""Slots by node."""
CLIENTS = ("ann", "bob", "cleo")


class Program:
    """A process that is started again whenever it was killed; one that ends by itself is a finding."""

    def __init__(self, name: str, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.starts = 0
        self._log = folder / f"{name}.log"
        self._command = command
        self._environment = environment
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            log.write(f"--- start {self.starts} at {time.time():.3f}\n".encode())
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment,
                cwd=HERE, start_new_session=True,
            )  # fmt: skip
        self.starts += 1

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tree(self) -> list[psutil.Process]:
        try:
            me = psutil.Process(self.process.pid)
            return [me, *me.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    async def kill(self) -> None:
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    def tail(self, characters: int = 3000) -> str:
        return self._log.read_text(errors="replace")[-characters:]


class Fleet:
    """One hub, some nodes and clients."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder = folder
        self.ledger = Ledger(folder)
        self.is_root = os.name == "posix" and os.geteuid() == 0
        self.disk = folder / "disk"
        self.state = self.disk / "state"
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.cables: dict[str, Cable] = {}
        self.programs: dict[str, Program] = {}
        self._seed = seed

    @property
    def hub(self) -> Program:
        return self.programs["hub"]

    def nodes(self) -> list[Program]:
        return [self.programs[name] for name in NODES]

    def clients(self) -> list[Program]:
        return [self.programs[name] for name in CLIENTS]

    async def open(self) -> None:
        self.disk.mkdir()
        if self.is_root:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "fallow-chaos", self.disk], check=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
        environment |= {
            "FALLOW_ADMIN_TOKEN": ADMIN,
            "FALLOW_JOIN_TOKEN": JOIN,
            "FALLOW_CONFIG": str(self.folder / "none"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        reserve = str(RESERVE_BYTES if self.is_root else 0)
        hub = [sys.executable, str(HERE / "chaos_hub.py"), str(self.state), str(self.port), reserve]
        self.programs["hub"] = Program("hub", self.folder, hub, environment)
        for name in (*NODES, *CLIENTS):
            cable = self.cables[name] = Cable(self.port)
            await cable.open()
            url = f"http://127.0.0.1:{cable.port}"
            if name in NODES:
                token, command = JOIN, self._node(name, url)
            else:
                token, command = (
                    ADMIN,
                    [sys.executable, str(HERE / "chaos_client.py"), url, str(self.folder), name, self._seed],
                )
            self.programs[name] = Program(name, self.folder, command, {**environment, "FALLOW_TOKEN": token})
        self.hub.start()
        await self.wait_up()
        for name in (*NODES, *CLIENTS):
            self.start(name)

    def _node(self, name: str, url: str) -> list[str]:
        command = [sys.executable, "-m", "fallow", "node", url, "--slots", str(NODES[name]), "--name", name,
                   "--state", str(self.folder / f"node-{name}"), "--reserve", "1MB", "--memory", "2GB",
                   "--sandbox", "process"]  # fmt: skip
        if name == "two" and self.is_root and shutil.which("unshare"):
            # It does not see the hub's files, as if it were another computer: blobs travel over its link.
            hide = f'mount -t tmpfs none "{self.disk}" && exec "$@"'
            return ["unshare", "--mount", "sh", "-c", hide, "sh", *command]
        return command

    def start(self, name: str) -> None:
        program = self.programs[name]
        program.start()
        if name in NODES:
            self.ledger.agents[program.process.pid] = (name, self.cables[name])

    async def wait_up(self) -> None:
        deadline = time.monotonic() + 60
        async with httpx.AsyncClient() as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get(f"{self.url}/healthz", timeout=2)).status_code == 200:
                        return
                if time.monotonic() > deadline:
                    raise AssertionError(f"the hub does not come up: {self.hub.tail()}")
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        for cable in self.cables.values():
            await cable.close()
        for program in self.programs.values():
            for process in program.tree():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            if program.is_running:
                program.process.terminate()
        for program in self.programs.values():
            if program.process is not None:
                try:
                    await asyncio.to_thread(program.process.wait, 15)
                except subprocess.TimeoutExpired:
                    await program.kill()
        if self.is_root:
            subprocess.run(["umount", "--lazy", self.disk], check=True)
