"""Between a program and the hub, message by message: some are doubled, come after the next one, or are replaced by garbage."""

import asyncio
import contextlib
import random

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, WebSocketException

SPARED = 2
"""Messages of each direction that pass unharmed on a new connection: hello and welcome."""
OVERDUE = 50
"""A fault that chance has not brought among so many messages comes then: how many there are depends on the computer."""


class Meddler:
    """A WebSocket proxy. `chances` has the probability of each fault for a message; the seed decides which it is."""

    def __init__(self, hub_port: int, seed: int, chances: dict[str, float]) -> None:
        self._hub_port = hub_port
        self._random = random.Random(seed)
        self._chances = chances
        self.counts = dict.fromkeys(chances, 0)
        self._messages = 0
        self.port = 0

    async def open(self) -> None:
        self._server = await serve(self._carry, "127.0.0.1", 0, max_size=None, compression=None)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close(close_connections=True)
        await self._server.wait_closed()

    async def _carry(self, outer) -> None:
        headers = {"Authorization": outer.request.headers["Authorization"]}
        url = f"ws://127.0.0.1:{self._hub_port}{outer.request.path}"
        with contextlib.suppress(OSError, WebSocketException):
            async with connect(url, additional_headers=headers, max_size=None, compression=None, proxy=None) as inner:
                pumps = [asyncio.ensure_future(self._pump(*ends)) for ends in ((outer, inner), (inner, outer))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()

    async def _pump(self, source, target) -> None:
        held: list[bytes] = []
        count = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                try:
                    async with asyncio.timeout(0.05 if held else None):
                        message = await source.recv()
                except TimeoutError:  # nothing came that could overtake it
                    await target.send(held.pop())
                    continue
                count += 1
                fault = self._fault() if count > SPARED else None
                if fault == "late":
                    held.append(message)
                    if len(held) == 1:
                        continue
                    message = held.pop(0)
                elif fault == "garbage":
                    message = self._random.randbytes(len(message))
                await target.send(message)
                if fault == "doubled":
                    await target.send(message)
                while held:
                    await target.send(held.pop())

    def _fault(self) -> str | None:
        self._messages += 1
        for fault, chance in self._chances.items():
            is_overdue = self._messages > OVERDUE and not self.counts[fault]
            if self._random.random() < chance or is_overdue:
                self.counts[fault] += 1
                return fault
        return None
