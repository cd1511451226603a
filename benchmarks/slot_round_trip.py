"""What a node costs: from a lease in the agent's hands to its result on the link, and tasks per second over two slots.

    python benchmarks/slot_round_trip.py [--uvloop] [--profile]

The link is one that records; hub, network and client are not part of it.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from blake3 import blake3

from fallow.link.frames import (
    PROTOCOL_VERSION,
    Acknowledged,
    BlobChunk,
    BlobWanted,
    Done,
    Forget,
    Grant,
    Welcome,
)
from fallow.model.job import Counting, JobSpec, Pages
from fallow.model.lease import Lease
from fallow.model.page import InputPage
from fallow.node.agent import Agent
from fallow.node.settings import NodeSettings
from fallow.slot import pages, pickling

PAGE_ITEMS = 4096


class HubEnd:
    """The least that an agent needs of a hub; it is the link, too."""

    def __init__(self) -> None:
        self.peer = "benchmark"
        self.blobs: dict[str, bytes] = {}
        self.done: list[Done] = []
        self.settled = 0
        self.wanted = 0
        self.finished: asyncio.Future[None] | None = None

    def start(self, on_frame, on_closed):
        self.on_frame, self.on_closed = on_frame, on_closed
        on_frame(Welcome(PROTOCOL_VERSION, 1, "benchmark"))

    def send(self, frame, *, bulk=False):
        if type(frame) is Done:
            for page in frame.pages:
                self.settled += page.stop - page.start
            self.on_frame_soon(Acknowledged(frame.number))
            if self.settled >= self.wanted and self.finished is not None and not self.finished.done():
                self.at = time.perf_counter()
                self.finished.set_result(None)
        elif isinstance(frame, BlobWanted):
            data = self.blobs[frame.digest]
            self.on_frame_soon(BlobChunk(frame.digest, 0, len(data), data))

    def on_frame_soon(self, frame):
        asyncio.get_running_loop().call_soon(self.on_frame, frame)

    async def drained(self):
        pass

    def close(self, reason=""):
        self.on_closed(reason)

    def put(self, data):
        digest = blake3(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def expect(self, tasks):
        self.settled, self.wanted = 0, tasks
        self.finished = asyncio.get_running_loop().create_future()
        return self.finished


def nothing(x):
    return x


def square(x):
    return x * x


async def lone_task(hub, count):
    spec = JobSpec(
        id="1" * 32, stages=("call",), function=hub.put(pickling.dumps([nothing])), function_name="f", inputs=Pages()
    )
    times = []
    for i in range(count):
        page = InputPage(spec.id, i, i + 1, pages.encode_calls([pickling.dumps(((i,), {}))]))
        wait = hub.expect(1)
        began = time.perf_counter()
        hub.on_frame(Grant(Lease(i + 1, spec.id, i, i + 1), spec if i == 0 else None, (page,)))
        await wait
        times.append((hub.at - began) * 1e6)
    hub.on_frame(Forget(spec.id))
    return times[count // 10 :]


async def many_tasks(hub, number, function, count, *, paged):
    job = str(number) * 32
    spec = JobSpec(
        id=job, stages=("map",), function=hub.put(pickling.dumps([function])), function_name="f",
        inputs=Pages() if paged else Counting(0, 1),
    )  # fmt: skip
    wait = hub.expect(count)
    began = time.perf_counter()
    step = PAGE_ITEMS * 8
    for start in range(0, count, step):
        stop = min(count, start + step)
        sent = []
        if paged:
            for at in range(start, stop, PAGE_ITEMS):
                end = min(at + PAGE_ITEMS, stop)
                sent.append(InputPage(job, at, end, b"".join(pages.encode_list(list(range(at, end))))))
        hub.on_frame(
            Grant(Lease(number << 20 | start + 1, job, start, stop), spec if start == 0 else None, tuple(sent))
        )
        await asyncio.sleep(0)
    await wait
    elapsed = hub.at - began
    hub.on_frame(Forget(job))
    return elapsed


async def main(profile):
    with tempfile.TemporaryDirectory() as folder:
        hub = HubEnd()

        async def connect():
            return hub

        settings = NodeSettings(
            folder=Path(folder) / "node",
            name="bench",
            slots=2,
            cores=2,
            memory_bytes=1 << 33,
            spool=False,
            benchmark=False,
        )
        agent = Agent(settings, connect)
        began = time.perf_counter()
        running = asyncio.create_task(agent.run())
        while not all(slot.process.is_ready for slot in agent._dispatcher.pool) or not list(agent._dispatcher.pool):
            if running.done():
                running.result()  # why it could not start
            await asyncio.sleep(0.001)
        print(f"two slots ready after          {(time.perf_counter() - began) * 1e3:8.1f} ms")
        times = await lone_task(hub, 3000)
        quantiles = statistics.quantiles(times, n=20)
        print(
            f"lone task, grant to Done       {statistics.median(times):8.1f} us median, {min(times):.1f} min, {quantiles[18]:.1f} p95"
        )
        n = 1_000_000
        if profile:
            import cProfile

            profiler = cProfile.Profile()
            profiler.enable()
        for number, paged in ((2, False), (3, True), (4, False), (5, True)):
            elapsed = await many_tasks(hub, number, square, n, paged=paged)
            kind = "pages of 4,096" if paged else "counting      "
            print(f"a million squares, {kind} {n / elapsed / 1e6:6.2f} million/s ({elapsed * 1e3:.0f} ms)")
        if profile:
            profiler.disable()
            profiler.print_stats("tottime")
        began = time.perf_counter()
        await agent.stop()
        await running
        print(f"stop                           {(time.perf_counter() - began) * 1e3:8.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.uvloop:
        import uvloop

        uvloop.run(main(options.profile))
    else:
        asyncio.run(main(options.profile))
    sys.exit(0)
