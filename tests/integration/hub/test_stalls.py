"""A hub that was busy for long hears what came meanwhile before it calls nodes lost."""

import asyncio

from fallow.link.frames import Beat, CreateJob, Grant, Seal
from fallow.model.job import Counting

STALL_S = 16.0
"""Over three heartbeats."""


def test_nodes_whose_heartbeats_waited_in_a_busy_hub_keep_their_leases(hubs, kit, monkeypatch):
    async def main():
        loop = asyncio.get_running_loop()
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            alive = await kit.node(hub, kit.NODE, "node").hello("a" * 32, slots=1)
            dead = await kit.node(hub, kit.NODE, "node").hello("b" * 32, slots=1)
            spec = client.spec(await client.offer(b"function"), inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 2))
            grant = await alive.wait(Grant)
            await dead.wait(Grant)
            clock = loop.time
            monkeypatch.setattr(loop, "time", lambda: clock() + STALL_S)
            for _ in range(3):
                await asyncio.sleep(0)  # the timer fires, and the sockets are read
            alive.send(Beat((), (grant.lease.id,)))
            await kit.until(lambda: dead.closed is not None, hub.nodes)
            assert alive.closed is None
            assert [node.leases for node in hub.nodes()] == [1]

    asyncio.run(main())
