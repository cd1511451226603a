import asyncio

import pytest

from fallow.hub.core.events import EventBoard
from fallow.hub.web.events import _chunks
from fallow.hub.web.settings import WebSettings
from fallow.hub.web.streams import Streams, sse
from fallow.model.events import JobCreated, JobDeleted, NodeJoined


def test_framing():
    assert sse("a\nb", event="x", number="1-2") == b"id: 1-2\nevent: x\ndata: a\ndata: b\n\n"
    assert sse("a") == b"data: a\n\n"


def test_resuming_numbers():
    streams = Streams()
    assert streams.number_after(None) is None
    assert streams.number_after(f"{streams.boot}-17") == 17
    for other in ("17", "other-17", f"{streams.boot}-", f"{streams.boot}-x", f"{streams.boot}-{'9' * 30}", ""):
        assert streams.number_after(other) == 0


def test_paced_yields_events_ticks_and_ends_when_closing():
    async def run():
        board, streams = EventBoard(), Streams()
        paced = streams.paced(board.subscribe(0), 0.01)
        board.post(JobDeleted("a"), 1.0)
        first = await anext(paced)
        second = await anext(paced)
        streams.close()
        rest = [each async for each in paced]
        return first.event, second, rest

    assert asyncio.run(run()) == (JobDeleted("a"), None, [])


def read(web, token, after, count):
    """Return that many chunks of the event stream behind its first line."""

    async def run():
        streams = Streams()
        chunks = _chunks(web.hub, web.hub.authenticate(token), WebSettings(keepalive_s=0.01), streams, after)
        try:
            return [(await anext(chunks)).decode().replace(streams.boot, "B") for _ in range(count + 1)][1:]
        finally:
            await chunks.aclose()

    return web.run(run())


def test_events_tell_of_jobs(web):
    job = web.job([1, 2])
    [created] = read(web, web.admin, 0, 1)
    assert created.startswith("id: B-1\nevent: job_created\ndata: {")
    assert job["id"] in created


def test_a_reader_that_missed_events_is_told(web):
    for number in range(5000):
        web.hub.events.post(NodeJoined("n", str(number)), 0.0)
    gap, joined = read(web, web.admin, 0, 2)
    assert gap == 'id: B-904\nevent: gap\ndata: {"missed":904}\n\n'
    assert joined.startswith("id: B-905\nevent: node_joined\n")


def test_users_hear_of_their_own_jobs_only(web):
    anna, ben = web.token("user", "anna"), web.token("user", "ben")
    web.post("/api/v1/jobs", token=anna, json={"function": "a:b", "items": [1]})
    web.hub.events.post(NodeJoined("n", "lab"), 0.0)
    web.hub.events.post(JobCreated("0" * 32, None, "nobody's"), 0.0)
    heard = read(web, anna, 0, 2)
    assert ["event: job_created" in heard[0], "event: node_joined" in heard[1]] == [True, True]
    heard = read(web, ben, 0, 2)
    assert ["event: node_joined" in heard[0], heard[1]] == [True, ": still here\n\n"]


@pytest.mark.parametrize("role", ["user", "admin"])
def test_a_revoked_token_hears_no_more(web, role):
    secret = web.token(role, "gone")
    token = web.hub.authenticate(secret)

    async def run():
        chunks = _chunks(web.hub, token, WebSettings(keepalive_s=0.01), Streams(), None)
        await anext(chunks)
        await web.hub.revoke_token(token.id)
        return [chunk async for chunk in chunks]

    assert web.run(run()) == []
