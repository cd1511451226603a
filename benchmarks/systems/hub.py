"""`fallow hub` and two `fallow node` of one slot on loopback: SQLite in a temporary folder, `synchronous=FULL`."""

import time

from fallow import Grid
from fallow.demo.fleet import Fleet
from systems import WORKERS
from systems.embedded import Embedded

UNMEASURED = 1.0
"""Score of a node that has not finished measuring itself."""
BENCHMARK_LIMIT_S = 30.0
NO_SANDBOX = ("--sandbox", "process")
"""As the peers: what sandboxes cost is measured by benchmarks/sandboxes.py, and tasks here leave files."""


class ThroughHub(Embedded):
    packages = (*Embedded.packages, "uvicorn", "uvloop", "litestar", "sqlalchemy")

    def start(self) -> None:
        self._fleet = Fleet(WORKERS, node_options=NO_SANDBOX).__enter__()
        self._grid = Grid(self._fleet.url, token=self._fleet.token, progress=False)

    def stop(self) -> None:
        self._grid.close()
        self._fleet.stop()

    def settle(self) -> None:
        deadline = time.monotonic() + BENCHMARK_LIMIT_S
        while UNMEASURED in (node["score"] for node in self._fleet.nodes().values()):
            if time.monotonic() > deadline:
                raise TimeoutError("the nodes' own benchmark did not end")
            time.sleep(0.1)

    def processes(self) -> dict[str, int]:
        return {"hub": self._fleet.pids()["hub"]}


SYSTEM = ThroughHub
