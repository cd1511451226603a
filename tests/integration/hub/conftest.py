"""A real hub, driven frame by frame: the test is its clients and its nodes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import blake3
import pytest

from fallow.hub.core.hub import Hub
from fallow.hub.core.opening import open_hub
from fallow.hub.core.settings import HubSettings
from fallow.link.frames import (
    PROTOCOL_VERSION,
    BlobChunk,
    BlobKept,
    BlobOffer,
    BlobWanted,
    ClientHello,
    Done,
    Grant,
    NodeHello,
    Presents,
    Welcome,
)  # fmt: skip
from fallow.link.memory import memory_pair
from fallow.model.ids import Digest
from fallow.model.job import JobSpec, Pages
from fallow.model.node import NodeInfo
from fallow.model.page import InputPage, ResultPage
from fallow.model.requirements import Requirements
from fallow.model.token import Token

DEADLINE_S = 60.0
USER = Token(id="user0001", role="user", name="user", hash="", created_at=0.0)
ADMIN = Token(id="admin001", role="admin", name="admin", hash="", created_at=0.0)
NODE = Token(id="node0001", role="node", name="node", hash="", created_at=0.0)


async def until(condition: Callable[[], Any], what: Callable[[], Any] = lambda: "") -> Any:
    """Wait for a condition with a deadline; on failure show the last state."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {DEADLINE_S} s; last seen: {what()}")
        await asyncio.sleep(0.001)
    return found


class Peer:
    """One end of a link to the hub; records what comes."""

    def __init__(self, hub: Hub, token: Token, kind: str) -> None:
        self.link, hubs_end = memory_pair(asyncio.get_running_loop(), peer="test")
        self.got: list[Any] = []
        self.closed: str | None = None
        self.link.start(self.got.append, self._on_closed)
        hub.accept(hubs_end, token, kind)

    def _on_closed(self, reason: str) -> None:
        self.closed = reason

    def send(self, *frames: Any) -> None:
        for frame in frames:
            self.link.send(frame)

    def all(self, cls: type) -> list[Any]:
        return [frame for frame in self.got if isinstance(frame, cls)]

    async def wait(self, cls: type, count: int = 1, where: Callable[[Any], bool] = lambda frame: True) -> Any:
        """Return the `count`-th frame of a class for which `where` holds."""
        found = await until(
            lambda: len(hits := [f for f in self.all(cls) if where(f)]) >= count and hits, lambda: self.got
        )
        return found[count - 1]

    async def close(self) -> None:
        self.link.close("bye")
        await until(lambda: self.closed is not None)


class TestClient(Peer):
    __test__ = False

    async def hello(self, session: str = "5" * 32) -> "TestClient":
        self.send(ClientHello(PROTOCOL_VERSION, session, "3.11"))
        await self.wait(Welcome)
        return self

    async def offer(self, data: bytes) -> Digest:
        digest = Digest(blake3.blake3(data).hexdigest())
        self.send(BlobOffer(digest, len(data), None, True))
        answer = await until(lambda: next((f for f in self.got if getattr(f, "digest", None) == digest), None))
        if isinstance(answer, BlobWanted):
            self.send(BlobChunk(digest, 0, len(data), data))
        await self.wait(BlobKept, where=lambda frame: frame.digest == digest)
        return digest

    def spec(self, function: Digest, number: int = 1, **fields: Any) -> JobSpec:
        given = {
            "id": f"{number:032x}", "stages": ("map",), "function": function, "function_name": "f", "inputs": Pages(),
            "requirements": Requirements(python="3.11"),
        }  # fmt: skip
        return JobSpec(**{**given, **fields})


class TestNode(Peer):
    __test__ = False
    number = 0

    async def hello(self, node: str = "a" * 32, held: tuple = (), **fields: Any) -> "TestNode":
        self.node = node
        info = {
            "name": "n",
            "cores": 2,
            "slots": 2,
            "memory_bytes": 10**9,
            "os": "linux",
            "arch": "x86_64",
            "pythons": ("3.11",),
        }
        self.send(NodeHello(PROTOCOL_VERSION, node, NodeInfo(**{**info, **fields})), Presents(held))
        await self.wait(Welcome)
        return self

    def done(self, grant: Grant, *pages: ResultPage) -> int:
        """Deliver pages of a lease (the whole of it, one pickle of nothing in particular, by default)."""
        self.number += 1
        lease = grant.lease
        self.send(
            Done(
                self.number,
                lease.id,
                lease.job,
                pages or (ResultPage(lease.start, lease.stop, b"values", elapsed_s=0.001),),
            )
        )
        return self.number


def page(number: int, start: int, stop: int, data: bytes = b"items") -> InputPage:
    return InputPage(f"{number:032x}", start, stop, data)


class HubFactory:
    """Starts hubs on one folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @asynccontextmanager
    async def __call__(self, *, memory: bool = False, **settings: Any) -> AsyncIterator[Hub]:
        hub = open_hub(HubSettings(**{
            "folder": self.folder / "hub", "database": "memory" if memory else None, "reserve_bytes": 0,
            "admin_secret": "flw_admin", "join_secret": "flw_join", **settings,
        }))  # fmt: skip
        await hub.start()
        try:
            yield hub
        finally:
            await hub.stop()


@pytest.fixture
def hubs(tmp_path: Path) -> HubFactory:
    return HubFactory(tmp_path)


@pytest.fixture
def kit():
    """The classes and helpers above, for tests in this folder."""

    class Kit:
        client, node, page, until = TestClient, TestNode, staticmethod(page), staticmethod(until)
        USER, ADMIN, NODE = USER, ADMIN, NODE

    return Kit
