"""Fake agents: nodes that speak the real protocol over real WebSockets, but answer every lease at once, or after some seconds.

FALLOW_TOKEN=... python benchmarks/load/agents.py URL --agents 1000

One process drives thousands of them, because each is little more than a socket: the WebSocket side is written out here
(a client's frames are masked, a server's are not), the frames inside are Fallow's own. Like a real agent each one
says hello, presents no leases, beats and pings in time, and keeps what it finished until the hub has acknowledged it.
It runs no Python tasks: every task's value is 7, in pages that any client can read. With `--answer-after 0.5 2` it answers one
lease after the other, each after a random time between these, and holds the others meanwhile.

Commands on stdin, one per line, answered by one line of JSON: `counts`, `leave N` (N agents close their connection
without a word), `join N` (new nodes that were never seen before). It ends at end of file.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import secrets
import sys
import time
from collections import deque
from functools import cache, partial
from urllib.parse import urlsplit

from websockets.frames import apply_mask

from fallow.link.codec import FrameDecoder, encode_frame, join_frames
from fallow.link.frames import PROTOCOL_VERSION, Acknowledged, Beat, Done, Grant, NodeHello, Presents, ToNode, Welcome
from fallow.link.websocket import PING_S
from fallow.model.ids import NodeId
from fallow.model.node import NodeInfo
from fallow.model.page import ResultPage
from fallow.slot.pages import encode_list

VALUE = 7
"""The result of every task."""
TASKS_PER_PAGE = 1 << 16
"""Pages of 131 KB: seven of them fit into a message."""
PAGES_PER_MESSAGE = 7
CONNECTING = 100
"""Connections that are being opened at a time."""
PORTS_PER_SOURCE = 20_000
"""Agents per loopback address: a port names one connection of an address."""
SLOW_START_S = 120.0

_decode = FrameDecoder(ToNode).decode


@cache
def page_of(tasks):
    """The bytes of a result page of so many tasks."""
    return b"".join(encode_list([VALUE] * tasks))


class Counts:
    """What all agents of the process did together."""

    def __init__(self):
        self.welcomed = self.leases = self.tasks = self.acknowledged = self.lost = 0
        self.waited_s = []
        """Seconds from a finished lease to its acknowledgement, of those since the last question."""

    def take(self):
        waited, self.waited_s = sorted(self.waited_s), []
        return {
            "welcomed": self.welcomed, "leases": self.leases, "tasks": self.tasks, "acknowledged": self.acknowledged,
            "lost": self.lost, "waited_ms": [round(waited[int(len(waited) * q)] * 1e3, 2) for q in (0.5, 0.99)] if waited else [],
            "cpu_s": time.process_time(),
        }  # fmt: skip


class Agent(asyncio.Protocol):
    """One node of one slot."""

    __slots__ = ("_after_s", "_answer", "_beat", "_beats_s", "_buffer", "_counts", "_each_s", "_is_busy", "_is_open", "_loop", "_number",
                 "_path", "_ping", "_queue", "_secret", "_spool", "_transport", "node", "welcomed")  # fmt: skip

    def __init__(self, loop, path, secret, each_s, after_s, counts):
        """after_s: the least and the most seconds that a lease takes; None: none."""
        self._loop, self._path, self._secret, self._each_s, self._counts = loop, path, secret, each_s, counts
        self._after_s = after_s
        self.node = NodeId(secrets.token_hex(16))
        self.welcomed = loop.create_future()
        self._buffer = b""
        self._is_open = False
        self._number = 0
        self._spool = []
        """(number, time, lease, frame) of finished leases that are not acknowledged, oldest first."""
        self._queue = deque()
        """Leases that are not finished, of which the first one runs."""
        self._beat = self._ping = self._answer = None
        self._beats_s = (30.0, 5.0)
        """Seconds between beats, idle and with leases."""
        self._is_busy = False

    def connection_made(self, transport):
        self._transport = transport
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        transport.write(
            (
                f"GET {self._path} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {self._secret}\r\n\r\n"
            ).encode()
        )

    def data_received(self, data):
        if self._buffer:
            data = self._buffer + data
        at = 0 if self._is_open else self._open(data)
        while len(data) - at >= 2:
            opcode, length, start = data[at] & 15, data[at + 1], at + 2
            if length > 125:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start])
            if len(data) < start + length:
                break
            at = start + length
            if opcode == 2:
                self._message(data[start:at])
            elif opcode == 8:
                self._transport.close()
        self._buffer = data[at:] if at else data

    def _open(self, data):
        """Read the answer to the handshake; return where WebSocket frames begin."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return 0
        assert data.startswith(b"HTTP/1.1 101 "), data[:200]
        self._is_open = True
        info = NodeInfo(
            name=self.node[:8], cores=1, slots=1, memory_bytes=1 << 30, os="linux", arch="x86_64",
            pythons=(f"{sys.version_info.major}.{sys.version_info.minor}",),
        )  # fmt: skip
        self._send([encode_frame(NodeHello(PROTOCOL_VERSION, self.node, info)), encode_frame(Presents(()))])
        self._ping = self._loop.call_later(PING_S, self._send_ping)
        return end + 4

    def _message(self, data):
        out, counts = [], self._counts
        for frame in _decode(data):
            kind = type(frame)
            if kind is Grant:
                if not self._is_busy:
                    self._beat.cancel()
                    self._schedule_beat(is_busy=True)
                if self._after_s is None:
                    out += self._finish(frame.lease)
                else:
                    self._queue.append(frame.lease)
                    if len(self._queue) == 1:
                        self._run_first()
            elif kind is Acknowledged:
                now, spool = time.monotonic(), self._spool
                while spool and spool[0][0] <= frame.number:
                    counts.acknowledged += 1
                    counts.waited_s.append(now - spool.pop(0)[1])
            elif kind is Welcome:
                counts.welcomed += 1
                self._beats_s = (frame.idle_heartbeat_s, frame.heartbeat_s)
                self._schedule_beat(is_busy=False)
                if not self.welcomed.done():
                    self.welcomed.set_result(None)
        self._send_all(out)

    def _send_all(self, out):
        while out:
            self._send(out[:PAGES_PER_MESSAGE])
            del out[:PAGES_PER_MESSAGE]

    def _run_first(self):
        self._answer = self._loop.call_later(random.uniform(*self._after_s), self._finish_first)

    def _finish_first(self):
        self._send_all(self._finish(self._queue.popleft()))
        if self._queue:
            self._run_first()

    def _finish(self, lease):
        """Return the frames that report all of a lease."""
        counts = self._counts
        counts.leases += 1
        counts.tasks += lease.stop - lease.start
        frames = []
        for start in range(lease.start, lease.stop, TASKS_PER_PAGE):
            stop = min(start + TASKS_PER_PAGE, lease.stop)
            page = ResultPage(start, stop, page_of(stop - start), elapsed_s=self._each_s * (stop - start))
            self._number += 1
            frames.append(encode_frame(Done(self._number, lease.id, lease.job, (page,))))
            self._spool.append((self._number, time.monotonic(), lease.id, frames[-1]))
        return frames

    def _schedule_beat(self, *, is_busy):
        self._is_busy = is_busy
        self._beat = self._loop.call_later(self._beats_s[is_busy], self._send_beat)

    def _send_beat(self):
        held = tuple(dict.fromkeys((*(lease for _, _, lease, _ in self._spool), *(lease.id for lease in self._queue))))
        self._send([encode_frame(Beat((), held))])
        self._schedule_beat(is_busy=bool(held))

    def _send_ping(self):
        self._write(0x89, secrets.token_bytes(4))
        self._ping = self._loop.call_later(PING_S, self._send_ping)

    def _send(self, frames):
        self._write(0x82, join_frames(frames))

    def _write(self, head, data):
        size, mask = len(data), secrets.token_bytes(4)
        if size < 126:
            length = bytes((head, 0x80 | size))
        elif size < 1 << 16:
            length = bytes((head, 0xFE)) + size.to_bytes(2)
        else:
            length = bytes((head, 0xFF)) + size.to_bytes(8)
        self._transport.write(length + mask + apply_mask(data, mask))

    def connection_lost(self, error):
        for timer in (self._beat, self._ping, self._answer):
            if timer is not None:
                timer.cancel()
        self._counts.lost += 1
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(str(error or "the hub closed the connection")))

    def leave(self):
        """Be gone without a word, as a machine that is switched off; the socket's end tells the hub."""
        self._transport.abort()


class Fleet:
    """The agents of one process."""

    def __init__(self, url, secret, each_s, after_s):
        parts = urlsplit(url)
        self._host, self._port, self._secret = parts.hostname, parts.port, secret
        self._each_s, self._after_s = each_s, after_s
        self.counts = Counts()
        self._agents = []
        self._made = 0

    async def join(self, count):
        """Connect so many new nodes and wait until the hub has welcomed each."""
        turns = asyncio.Semaphore(CONNECTING)
        await asyncio.gather(*(self._connect(turns) for _ in range(count)))

    async def _connect(self, turns):
        async with turns:
            loop = asyncio.get_running_loop()
            make = partial(Agent, loop, "/link/node", self._secret, self._each_s, self._after_s, self.counts)
            self._made += 1
            source = f"127.0.0.{2 + self._made // PORTS_PER_SOURCE % 200}" if self._host == "127.0.0.1" else None
            _, agent = await loop.create_connection(
                make, self._host, self._port, local_addr=(source, 0) if source else None
            )
            await asyncio.wait_for(agent.welcomed, SLOW_START_S)
            self._agents.append(agent)

    def leave(self, count):
        """Close that many connections, oldest first."""
        gone, self._agents = self._agents[:count], self._agents[count:]
        for agent in gone:
            agent.leave()


async def main(arguments):
    fleet = Fleet(arguments.url, os.environ["FALLOW_TOKEN"], arguments.seconds_per_task, arguments.answer_after)
    await fleet.join(arguments.agents)
    print(json.dumps(fleet.counts.take()), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.split():
            case ["join", number]:
                await fleet.join(int(number))
            case ["leave", number]:
                fleet.leave(int(number))
        print(json.dumps(fleet.counts.take()), flush=True)


if __name__ == "__main__":
    from fallow.link.loop import loop_factory

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument(
        "--seconds-per-task", type=float, default=10.0, help="as reported to the hub; 10 makes leases of one task"
    )
    parser.add_argument("--answer-after", nargs=2, type=float, metavar=("LEAST", "MOST"), help="seconds per lease")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(parser.parse_args()))
