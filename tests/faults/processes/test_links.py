"""Links that break, stand still, lose one way, double, reorder or garble: work goes on, and no result is wrong or taken twice."""

import asyncio
import contextlib
import os
import random
import time
from functools import partial

import pytest

pytestmark = pytest.mark.slow

TASKS = 400
TO_HUB, FROM_HUB = 0, 1
GARBAGE_BYTES = 3000


def noted_square(path, pause_s, x):
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{x} {time.time()}\n".encode())
    os.close(handle)
    time.sleep(pause_s)
    return x * x


def expected():
    return [x * x for x in range(TASKS)]


def taken(hub, name):
    """Return (settled, failed) of a job as people are told."""
    job = hub.get(f"/jobs/{name}")
    return job["settled"], job["failed"]


@pytest.mark.parametrize(
    ("how", "way"),
    [
        ("stall", None), ("refuse", None), ("close", None),
        ("deaf", TO_HUB), ("deaf", FROM_HUB), ("drop", TO_HUB), ("drop", FROM_HUB),
    ],
)  # fmt: skip
def test_a_link_that_breaks_for_seconds_harms_nothing(
    programs, start_node, grid_of, executions, cable_to, wait_until, how, way
):
    hub = programs.hub()
    cable = cable_to(hub.url)
    start_node(cable.url)
    programs.node(hub, "--slots", "1", name="other")
    job = grid_of(hub.url).map(partial(noted_square, executions.path, 0.02), range(TASKS), name="through")
    wait_until(lambda: len(executions.counts()) > 60)
    before = len(executions.counts())
    broken = cable.fail(how, 6.5, way)  # longer than the hub waits for a node that has gone
    wait_until(lambda: len(executions.counts()) >= min(before + 20, TASKS))  # work goes on meanwhile
    assert job.result(60) == expected()
    broken.result(60)
    wait_until(lambda: all(node["connected"] for node in hub.get("/nodes")["nodes"]))
    assert grid_of(hub.url).job("through").result(60) == expected()


def test_the_leases_of_a_machine_that_falls_silent_are_finished_by_others_and_what_comes_late_does_no_harm(
    programs, start_node, grid_of, executions, acknowledged, cable_to, wait_until
):
    """As when a machine is switched off, or its network is gone for minutes: no end of a connection is ever seen."""
    hub = programs.hub()
    cable = cable_to(hub.url)
    start_node(cable.url)
    programs.node(hub, "--slots", "1", name="other")
    job = grid_of(hub.url).map(partial(noted_square, executions.path, 0.02), range(TASKS), name="through")
    wait_until(lambda: len(executions.counts()) > 60)
    silent = cable.fail("stall", 600)
    assert job.result(90) == expected()
    assert not silent.done(), "finished without it"
    assert not any(node["running"] for node in nodes_of(hub, "one"))
    cable.mend()
    wait_until(lambda: any(node["connected"] for node in nodes_of(hub, "one")))
    again = grid_of(hub.url).map(partial(noted_square, executions.path, 0.0), range(TASKS), name="again")
    assert again.result(60) == expected()  # it has told everything, and both work
    assert taken(hub, "through") == (TASKS, 0)
    assert acknowledged(hub, "through") == set(range(TASKS))


def nodes_of(hub, name):
    return [node for node in hub.get("/nodes")["nodes"] if node["name"] == name]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("who", ["nodes", "client"])
def test_messages_that_are_doubled_late_or_garbage_do_no_harm(
    programs, start_node, grid_of, executions, acknowledged, cable_to, who, seed
):
    hub = programs.hub()
    cable = cable_to(hub.url, seed, doubled=0.2, late=0.2, garbage=0.02)
    for name in ("one", "two"):
        start_node(cable.url if who == "nodes" else hub.url, name)
    grid = grid_of(cable.url if who == "client" else hub.url)
    items = ((x, random.Random(x).randbytes(2000)) for x in range(TASKS))
    job = grid.starmap(partial(noted_pair, executions.path), items, name="through")
    assert job.result(120) == expected()
    assert taken(hub, "through") == (TASKS, 0)
    assert acknowledged(hub, "through") == set(range(TASKS))
    print(cable.counts)
    assert all(cable.counts.values()), cable.counts


def noted_pair(path, x, payload):
    assert len(payload) == 2000
    return noted_square(path, 0.01, x)


@pytest.mark.parametrize("what", ["before the handshake", "after it"])
def test_garbage_from_a_stranger_does_the_hub_no_harm(programs, grid_of, wait_until, what):
    hub = programs.hub()
    programs.node(hub, name="one")
    chance = random.Random(7)

    async def main():
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(hub.url.rsplit(":", 1)[1]))
            if what == "after it":
                writer.write(
                    b"GET /link/node HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                    b"Authorization: Bearer flw_join-for-tests-0123456789\r\n\r\n"
                )
                await reader.readuntil(b"\r\n\r\n")
            writer.write(chance.randbytes(GARBAGE_BYTES))
            writer.write_eof()
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionError):  # it may hang up before it has read all
                    while await reader.read(1 << 16):
                        pass
            writer.close()

    asyncio.run(main())
    assert grid_of(hub.url).map(abs, range(-5, 5)).result(60) == [abs(x) for x in range(-5, 5)]
