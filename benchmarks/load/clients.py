"""Clients that each submit a job of one task after the other and wait until the hub has acknowledged it as durable.

FALLOW_TOKEN=... python benchmarks/load/clients.py URL --clients 100 --seconds 10

They speak Fallow's frames over its own links; there are no nodes, so the hub does nothing but accept. A submission is a job, its
only input and its seal, sent together; it is acknowledged once both job and input are. Prints one line once all are connected,
and one of JSON at the end.
"""

import argparse
import asyncio
import json
import os
import secrets
import time

from blake3 import blake3

from fallow.link.frames import (
    PROTOCOL_VERSION,
    Accepted,
    AddInput,
    BlobChunk,
    BlobKept,
    BlobOffer,
    ClientHello,
    CreateJob,
    JobCreated,
    Seal,
    Welcome,
)
from fallow.link.websocket import dial
from fallow.model.ids import Digest, JobId, SessionId
from fallow.model.job import JobSpec, Pages
from fallow.model.page import InputPage
from fallow.slot.pages import encode_list

FUNCTION = b"a function that nobody runs"
DIGEST = Digest(blake3(FUNCTION).hexdigest())
INPUT = b"".join(encode_list([7]))
CONNECTING = 50


class Client:
    """One session."""

    async def open(self, url, secret, turns):
        async with turns:
            self._link = await dial(url, secret, "client")
            self._awaited, self._event = {Welcome}, asyncio.Event()
            self._link.start(self._on_frame, lambda _: None)
            self._link.send(ClientHello(PROTOCOL_VERSION, SessionId(secrets.token_hex(16)), "3.11"))
            await self._event.wait()
            await self._ask({BlobKept}, BlobOffer(DIGEST, len(FUNCTION)), BlobChunk(DIGEST, 0, len(FUNCTION), FUNCTION))

    def _on_frame(self, frame):
        self._awaited.discard(type(frame))
        if not self._awaited:
            self._event.set()

    async def _ask(self, awaited, *frames):
        self._awaited = set(awaited)
        self._event.clear()
        for frame in frames:
            self._link.send(frame)
        await self._event.wait()

    async def submit_until(self, end):
        """Return the seconds that each submission took."""
        waited = []
        while (began := time.perf_counter()) < end:
            job = JobId(secrets.token_hex(16))
            spec = JobSpec(id=job, stages=("map",), function=DIGEST, function_name="f", inputs=Pages())
            await self._ask(
                {JobCreated, Accepted}, CreateJob(spec), AddInput(InputPage(job, 0, 1, INPUT)), Seal(job, 1)
            )
            waited.append(time.perf_counter() - began)
        return waited


async def main(arguments):
    clients, turns = [Client() for _ in range(arguments.clients)], asyncio.Semaphore(CONNECTING)
    await asyncio.gather(*(client.open(arguments.url, os.environ["FALLOW_TOKEN"], turns) for client in clients))
    print("connected", flush=True)
    began, cpu_s = time.perf_counter(), time.process_time()
    found = await asyncio.gather(*(client.submit_until(began + arguments.seconds) for client in clients))
    took, waited = time.perf_counter() - began, sorted(each for some in found for each in some)
    ms = [waited[int(len(waited) * q)] * 1e3 for q in (0.5, 0.99)]
    cpu_us = (time.process_time() - cpu_s) / len(waited) * 1e6
    print(json.dumps({"count": len(waited), "per_s": len(waited) / took, "ms": ms, "clients_us": cpu_us}))


if __name__ == "__main__":
    from fallow.link.loop import loop_factory

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(parser.parse_args()))
