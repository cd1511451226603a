"""A hub and a node inside the client's own process: the grid of one computer. Alone here may the client import them."""

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from pathlib import Path

import psutil

from fallow.client.config import cache_path
from fallow.client.direct import DirectCalls
from fallow.hub.core.hub import Hub
from fallow.hub.core.opening import open_hub
from fallow.hub.core.settings import HubSettings
from fallow.link.link import Link
from fallow.link.memory import memory_pair
from fallow.model.errors import StateError
from fallow.model.token import Token
from fallow.node import platform
from fallow.node.agent import Agent
from fallow.node.settings import NodeSettings
from fallow.state.folder import LOCK_NAME, StateFolder

RESERVE_BYTES = 64_000_000
"""Free space that an embedded grid leaves; less than a hub's, as nobody else's results are at stake."""
MEMORY_PREFIX = "fallow-grid-"
MEMORY_TRIES = 3


class EmbeddedGrid:
    """Lives on the engine's event loop; links are function calls."""

    def __init__(self, state: Path | None, slots: int | None) -> None:
        """state: folder that outlives the process, None for memory and a temporary folder."""
        self._state = state
        self._slots = slots if slots is not None else (os.cpu_count() or 1)
        self._temporary: Path | None = None
        self._quick: StateFolder | None = None
        self._hub: Hub | None = None
        self._agent: Agent | None = None
        self._agent_task: asyncio.Task[None] | None = None
        self._token = Token(id="embedded", role="admin", name="embedded grid", hash="", created_at=time.time())

    @property
    def is_durable(self) -> bool:
        return self._state is not None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._temporary = Path(tempfile.mkdtemp(prefix="fallow-"))
        folder = self._state if self._state is not None else self._temporary
        if self._state is None:
            self._quick = _folder_in_memory()
        self._hub = open_hub(
            HubSettings(
                folder=folder,
                database=None if self._state is not None else "memory",
                memory_folder=self._quick.path if self._quick is not None else None,
                trusts_files=True,
                reserve_bytes=RESERVE_BYTES,
            )
        )
        try:
            await self._hub.start()
        except BaseException:
            self._remove_folders()
            raise
        settings = NodeSettings(
            name=socket.gethostname(),
            slots=self._slots,
            cores=self._slots,
            memory_bytes=psutil.virtual_memory().total,
            folder=folder / "node",  # kept with the state: the same node takes up its leases again
            memory_folder=self._quick.path / "node" if self._quick is not None else None,
            hashes_results=self._state is not None,
            shared_environments=cache_path() / "environments" if self._state is None else None,
            spool=False,
            benchmark=False,
            probes=False,
            reserve_bytes=RESERVE_BYTES,
        )
        self._agent = Agent(settings, self._connect_node)
        self._agent_task = asyncio.create_task(self._agent.run())
        if any(spec.requirements.sandbox is not None for spec in self._hub.book.specs.values()):
            self.want_sandboxes()  # jobs of an earlier process wait for one

    @property
    def direct_calls(self) -> DirectCalls | None:
        """Who takes calls past the hub; None if it makes them durable."""
        return None if self.is_durable or self._agent is None else self._agent.direct_calls

    def want_sandboxes(self) -> None:
        """A job asks for a sandbox: find out which there are."""
        if self._agent is not None:
            self._agent.probe()

    async def _connect_node(self) -> Link:
        return self._link("node")

    async def connect(self) -> Link:
        """Open a client's link."""
        return self._link("client")

    def _link(self, kind: str) -> Link:
        assert self._hub is not None
        ours, hubs = memory_pair(self._loop)
        self._hub.accept(hubs, self._token, kind)
        return ours

    async def stop_node(self) -> None:
        """End the slots and what runs in them."""
        if self._agent is not None:
            await self._agent.stop(drain=False)
        if self._agent_task is not None:
            self._agent_task.cancel()
            await asyncio.gather(self._agent_task, return_exceptions=True)

    async def stop(self) -> None:
        """Make what is to be kept durable, remove the temporary folder."""
        if self._hub is not None:
            await self._hub.stop()
        self._remove_folders()

    def _remove_folders(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        if self._quick is not None:
            shutil.rmtree(self._quick.path, ignore_errors=True)
            self._quick.close()


def _folder_in_memory() -> StateFolder | None:
    """Make and lock a folder in memory, if there is such a thing here, and free what killed grids have left there."""
    base = platform.memory_folder()
    if base is None:
        return None
    for left in base.glob(f"{MEMORY_PREFIX}*"):
        with contextlib.suppress(StateError):  # in use, or another user's
            dead = StateFolder(left)
            dead.open()
            shutil.rmtree(left, ignore_errors=True)
            dead.close()
    for _ in range(MEMORY_TRIES):
        folder = StateFolder(base / f"{MEMORY_PREFIX}{secrets.token_hex(8)}")
        with contextlib.suppress(StateError):
            folder.open()
            if (folder.path / LOCK_NAME).exists():
                return folder
            folder.close()  # another grid freed it before it was locked
    return None
