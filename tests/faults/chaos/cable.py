"""A TCP proxy between a program and the hub, which can be cut, stalled, or made deaf in one direction."""

import asyncio
import contextlib
import time

CHUNK_BYTES = 64 * 1024
TO_HUB, FROM_HUB = 0, 1


class Cable:
    """One program's way to the hub; remembers when the way was good."""

    def __init__(self, hub_port: int) -> None:
        self._hub_port = hub_port
        self._flows = (asyncio.Event(), asyncio.Event())
        for flow in self._flows:
            flow.set()
        self._drops = [False, False]
        self._refuses = False
        self._is_stopped = False
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task] = set()
        self._history: list[tuple[float, bool]] = [(time.time(), False)]
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- faults ---

    def cut(self) -> None:
        """Reset every connection."""
        for pair in self._pairs:
            for writer in pair:
                writer.transport.abort()

    async def fail(self, how: str, duration_s: float, direction: int | None = None) -> None:
        """Be broken for a while: "close", "refuse", "stall", "deaf" (one way stands still) or "drop" (one way is lost).

        direction: which way; None: let the duration's milliseconds decide.
        """
        if direction is None:
            direction = int(duration_s * 1000) % 2
        if how == "close":
            self.cut()
        elif how == "refuse":
            self._refuses = True
            self.cut()
        elif how == "drop":
            self._drops[direction] = True
        else:
            for flow in self._flows if how == "stall" else (self._flows[direction],):
                flow.clear()
        self._note()
        await asyncio.sleep(duration_s)
        if how == "drop":
            self.cut()  # bytes are missing: no network would go on with this connection
        self.mend()

    def mend(self) -> None:
        """Be whole again."""
        self._refuses = False
        self._drops = [False, False]
        for flow in self._flows:
            flow.set()
        self._note()

    def stopped(self, is_stopped: bool) -> None:
        """The program at the end of it was stopped, or goes on."""
        self._is_stopped = is_stopped
        self._note()

    # --- what was ---

    def was_good(self, start: float, stop: float) -> bool:
        """Whether the program could hear the hub all the time from start to stop (Unix time)."""
        state = False
        for at, good in self._history:
            if at > stop:
                break
            if at > start and not (state and good):
                return False
            state = good
        return state

    def _note(self) -> None:
        good = bool(self._pairs) and all(flow.is_set() for flow in self._flows)
        good = good and not any(self._drops) and not self._refuses and not self._is_stopped
        if good != self._history[-1][1]:
            self._history.append((time.time(), good))

    # --- bytes ---

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers, pumps = [writer], []
        pair = None
        try:
            if self._refuses:
                return
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self._hub_port)
            writers.append(hub_writer)
            pair = (writer, hub_writer)
            self._pairs.add(pair)
            self._note()
            ways = ((TO_HUB, reader, hub_writer), (FROM_HUB, hub_reader, writer))
            pumps = [asyncio.ensure_future(self._pump(*way)) for way in ways]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            return  # the hub is down
        finally:
            if pair is not None:
                self._pairs.discard(pair)
                self._note()
            for pump in pumps:
                pump.cancel()
            for each in writers:
                each.close()

    async def _pump(self, direction: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flows[direction].wait()
                if not self._drops[direction]:
                    writer.write(data)
                    await writer.drain()
