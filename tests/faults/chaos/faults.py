"""The faults: each kind strikes at random instants of its own, from the seed."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import psutil
from fleet import ADMIN, CLIENTS, NODES, RESERVE_BYTES, Fleet, Program
from ledger import read_database

from fallow.hub.web.results import BytesList
from fallow.model.ranges import RangeSet
from fallow.state.database import FILE_NAME

FIRST_WITHIN_S = 12.0
MEAN_S = {
    "hub killed": 11.0,
    "agent killed": 11.0,
    "slot killed": 3.0,
    "client killed": 9.0,
    "agent stopped": 14.0,
    "node and slots stopped": 25.0,
    "hub stopped": 40.0,
    "link cut": 3.0,
    "disk below reserve": 30.0,
    "disk full": 35.0,
}
LINK_FAULTS = ("close", "close", "refuse", "stall", "deaf", "drop")


class Faults:
    """Strikes until `stop`; then everything is whole again."""

    def __init__(self, fleet: Fleet, seed: str, seconds: float) -> None:
        self.fleet = fleet
        self.counts: Counter = Counter()
        self.findings: list[str] = []
        self.hub_kills: list[float] = []
        self.disk_faults: list[tuple[float, float]] = []
        self._seed = seed
        self._seconds = seconds
        self._disk = asyncio.Lock()
        self._over = asyncio.Event()
        self._broken_until = 0.0
        self._strikes: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "hub killed": self._kill_hub,
            "agent killed": lambda chance: self._kill_program(chance, self._chosen(chance, NODES)),
            "slot killed": self._kill_slot,
            "client killed": lambda chance: self._kill_program(chance, self._chosen(chance, CLIENTS)),
            "agent stopped": lambda chance: self._stop(chance, self._chosen(chance, NODES), whole=False),
            "node and slots stopped": lambda chance: self._stop(chance, self._chosen(chance, NODES), whole=True),
            "hub stopped": lambda chance: self._stop(chance, self.fleet.hub, whole=False),
            "link cut": self._cut,
        }
        if fleet.is_root:
            self._strikes["disk below reserve"] = lambda chance: self._fill(chance, leave=RESERVE_BYTES // 2)
            self._strikes["disk full"] = lambda chance: self._fill(chance, leave=0)

    async def run(self) -> None:
        """Strike for `seconds`."""
        watch = asyncio.create_task(self.supervise())
        strikes = [asyncio.create_task(self._strike(kind)) for kind in self._strikes]
        await asyncio.wait([watch, *strikes], timeout=self._seconds, return_when=asyncio.FIRST_EXCEPTION)
        self._over.set()
        await asyncio.gather(*strikes)  # what is broken is mended first
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch

    async def _strike(self, kind: str) -> None:
        chance = random.Random(f"{self._seed}/{kind}")
        wait_s = chance.uniform(2, min(FIRST_WITHIN_S, self._seconds / 2))
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), wait_s)
            if self._over.is_set():
                return
            self.counts[kind] += 1
            await self._strikes[kind](chance)
            wait_s = chance.expovariate(1 / MEAN_S[kind])

    def _chosen(self, chance: random.Random, names) -> Program:
        return self.fleet.programs[chance.choice(list(names))]

    # --- processes ---

    async def supervise(self) -> None:
        """Start again what ended by itself, and note it; a hub without room may end, but says so."""
        while True:
            await asyncio.sleep(0.1)
            for name, program in self.fleet.programs.items():
                if program.lock.locked() or program.is_running:
                    continue
                if name in CLIENTS and program.process.returncode == 0:
                    continue  # it was told to stop
                async with program.lock:
                    is_full = name == "hub" and time.time() - self._broken_until < 5
                    if is_full and program.process.returncode == 1:
                        self.counts["hub refused to start on a full disk"] += 1
                    else:
                        code = program.process.returncode
                        self.findings.append(f"{name} ended by itself with {code}: {program.tail()}")
                    await asyncio.sleep(0.5)
                    self.fleet.start(name)

    def _note_deaths(self, program: Program) -> None:
        for process in program.tree():
            self.fleet.ledger.deaths[process.pid].append(time.time() + 0.5)

    async def _kill_program(self, chance: random.Random, program: Program) -> None:
        async with program.lock:
            if program.is_running:
                self._note_deaths(program)
                await program.kill()
            await asyncio.sleep(chance.choice([0.05, 0.5, 2.0, 6.0]) * chance.random())
            self.fleet.start(program.name)

    async def _kill_slot(self, chance: random.Random) -> None:
        program = self._chosen(chance, NODES)
        if program.lock.locked():
            return
        slots = program.tree()[1:]
        if slots:
            slot = chance.choice(slots)
            with contextlib.suppress(psutil.NoSuchProcess):
                self.fleet.ledger.deaths[slot.pid].append(time.time())
                slot.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM]))

    async def _kill_hub(self, chance: random.Random) -> None:
        async with self.fleet.hub.lock:
            await self._kill_hub_now(chance)
            while chance.random() < 0.3:  # while it opens its state
                await asyncio.sleep(chance.random())
                self.counts["hub killed while it started"] += 1
                await self._kill_hub_now(chance)

    async def _kill_hub_now(self, chance: random.Random) -> None:
        fleet = self.fleet
        await self._ask_what_is_acknowledged(chance)
        await fleet.hub.kill()
        at = time.time()
        self.hub_kills.append(at)
        if (fleet.state / FILE_NAME).exists():
            fleet.ledger.durable.append(await asyncio.to_thread(read_database, fleet.state, at))
        if chance.random() < 0.3:
            self._tear(chance, fleet.state / f"{FILE_NAME}-wal")
        await asyncio.sleep(chance.choice([0.0, 0.3, 3.0]) * chance.random())
        fleet.hub.start()

    def _tear(self, chance: random.Random, log: Path) -> None:
        """Leave half-written frames behind the end of the write-ahead log."""
        with contextlib.suppress(OSError):
            if log.stat().st_size:
                with log.open("ab") as file:
                    file.write(chance.randbytes(chance.randrange(1, 9000)))
                self.counts["write-ahead log torn"] += 1

    async def _ask_what_is_acknowledged(self, chance: random.Random) -> None:
        headers = {"Authorization": f"Bearer {ADMIN}", "Accept": "application/msgpack"}
        base = f"{self.fleet.url}/api/v1/jobs"
        try:
            async with httpx.AsyncClient(headers=headers, timeout=1) as http:
                answer = await http.get(base, headers={"Accept": "application/json"})
                jobs = [job for job in answer.json()["jobs"] if job["name"]] if answer.status_code == 200 else []
                for job in chance.sample(jobs, min(2, len(jobs))):
                    answer = await http.get(f"{base}/{job['id']}/results")
                    if answer.status_code == 200:
                        pages = msgspec.msgpack.decode(answer.content, type=BytesList).pages
                        settled = RangeSet()
                        for page in pages:
                            for start, stop in zip(page.counts[::2], page.counts[1::2], strict=True):
                                settled.add(start, stop)
                        self.fleet.ledger.acknowledged.append((time.time(), job["name"], settled))
                        self.counts["acknowledged results noted"] += len(settled)
        except httpx.HTTPError:
            return  # it is stopped, opens its state, or its disk is full

    async def _stop(self, chance: random.Random, program: Program, *, whole: bool) -> None:
        async with program.lock:
            processes = program.tree() if whole else program.tree()[:1]
            cables = [self.fleet.cables[program.name]] if program.name in NODES else self.fleet.cables.values()
            for cable in cables:
                cable.stopped(True)
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            await asyncio.sleep(chance.choice([0.5, 3.0, 9.0]) * chance.random())
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            for cable in cables:
                cable.stopped(False)

    # --- links and disk ---

    async def _cut(self, chance: random.Random) -> None:
        cable = self.fleet.cables[chance.choice([*NODES, *NODES, *CLIENTS])]
        how = chance.choice(LINK_FAULTS)
        self.counts[f"link cut: {how}"] += 1
        await cable.fail(how, chance.choice([0.2, 2.0, 8.0]) * chance.random())

    async def _fill(self, chance: random.Random, leave: int) -> None:
        """Leave so many bytes on the hub's disk for a while."""
        async with self._disk:
            ballast = self.fleet.disk / "ballast"
            deadline = time.monotonic() + chance.uniform(1.0, 5.0)
            with ballast.open("wb") as file:
                while time.monotonic() < deadline:
                    self._broken_until = time.time()
                    disk = os.statvfs(self.fleet.disk)
                    excess = disk.f_bavail * disk.f_frsize - leave
                    if excess > 0:
                        with contextlib.suppress(OSError):
                            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), excess)
                    await asyncio.sleep(0.05)
            ballast.unlink()
            self._broken_until = time.time()
