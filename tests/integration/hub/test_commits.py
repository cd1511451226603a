"""What waits for a commit and what does not: work and values go at once, acknowledgements and ends come after."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from blake3 import blake3

from fallow.hub.core import journal as journal_module
from fallow.link.frames import (
    Accepted,
    Acknowledged,
    AddInput,
    Answer,
    Ask,
    BlobChunk,
    BlobKept,
    BlobOffer,
    BlobWanted,
    Cancel,
    CreateJob,
    Grant,
    JobCreated,
    Progress,
    Results,
    Seal,
    Watch,
)  # fmt: skip
from fallow.model.events import JobEnded, TasksSettled
from fallow.model.job import Counting
from fallow.model.lease import HeldLease
from fallow.model.page import ResultPage

CREDIT = 1 << 30
CHUNK_BYTES = 256 * 1024
pytestmark = pytest.mark.slow


def run(main):
    return asyncio.run(main())


@contextmanager
def commits_held(hub):
    """Hold every commit, as a slow disk does, until the event is set."""
    commit, go_on = hub.state.commit, threading.Event()

    def held(changes):
        assert go_on.wait(60)
        commit(changes)

    hub.state.commit = held
    try:
        yield go_on
    finally:
        go_on.set()
        hub.state.commit = commit


def fail(changes):
    raise OSError(28, "No space left on device")


async def answered(peer, request=1):
    """Wait until the hub has answered a question that waits for no commit: all that it sent before is here."""
    peer.send(Ask(request, "nodes", ""))
    await peer.wait(Answer, where=lambda frame: frame.request == request)


def events(hub, kind):
    return [each.event for each in hub.events.after(0) if isinstance(each.event, kind)]


def ended(peer):
    return [frame for frame in peer.all(Progress) if frame.progress.ended]


def held_lease(lease):
    return HeldLease(lease.id, lease.job, (lease.start, lease.stop))


def test_work_and_values_do_not_wait_for_a_commit_and_acknowledgements_do(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"))
            await hub.journal.barrier()
            before = len(client.all(BlobKept))
            with commits_held(hub) as go_on:
                client.send(BlobOffer(blake3(b"held").hexdigest(), 4, None, True))
                client.send(BlobChunk(blake3(b"held").hexdigest(), 0, 4, b"held"))
                client.send(
                    CreateJob(spec), AddInput(kit.page(1, 0, 1)), Seal(spec.id, 1), Watch(spec.id, 1, 0, 1, CREDIT)
                )
                node.done(await node.wait(Grant))
                results = await client.wait(Results)
                assert [page.page.data for page in results.pages] == [b"values"]
                await answered(client)
                assert client.all(JobCreated) == client.all(Accepted) == node.all(Acknowledged) == []
                assert len(client.all(BlobKept)) == before
                go_on.set()
                await client.wait(JobCreated)
                await client.wait(Accepted)
                await node.wait(Acknowledged)
                await client.wait(BlobKept, before + 1)

    run(main)


def test_nobody_waits_for_the_commit_of_a_call_or_its_result(hubs, kit, monkeypatch):
    monkeypatch.setattr(journal_module, "LINGER_S", 3600.0)

    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"))
            client.send(CreateJob(spec), Watch(spec.id, 1, 0, 1 << 40, CREDIT))
            await client.wait(JobCreated)
            await hub.journal.barrier()
            before = hub.journal.commits
            for index in range(5):
                client.send(AddInput(kit.page(1, index, index + 1)))
                node.done(await node.wait(Grant, index + 1))
                await client.wait(Results, index + 1)
            assert hub.journal.commits == before
            assert not hub.journal._is_committing
            assert client.all(Accepted) == node.all(Acknowledged) == []
            await hub.journal.barrier()
            await client.wait(Accepted, where=lambda frame: frame.stop == 5)
            await node.wait(Acknowledged, where=lambda frame: frame.number == 5)

    run(main)


def test_the_end_of_a_job_is_told_only_once_it_is_durable(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            other = await kit.client(hub, kit.USER, "client").hello("6" * 32)
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"), name="n", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1), Watch(spec.id, 1, 0, 1, CREDIT))
            grant = await node.wait(Grant)
            await hub.journal.barrier()
            with commits_held(hub) as go_on:
                node.done(grant)
                await client.wait(Results)  # the value is handed out early
                other.send(Watch(spec.id, 1, 0, 1, CREDIT), Ask(2, "job", "n"))
                await answered(other)
                await answered(client)
                assert ended(client) == ended(other) == []
                assert not [frame for frame in other.all(Answer) if frame.request == 2]
                assert events(hub, JobEnded) == events(hub, TasksSettled) == []
                go_on.set()
                await kit.until(lambda: ended(client) and ended(other))
                await other.wait(Answer, where=lambda frame: frame.request == 2)
            assert [event.state for event in events(hub, JobEnded)] == ["done"]

    run(main)


def test_a_job_whose_end_was_not_written_runs_on(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"), name="n", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1), Watch(spec.id, 1, 0, 1, CREDIT))
            grant = await node.wait(Grant)
            await hub.journal.barrier()
            commit, hub.state.commit = hub.state.commit, fail
            node.done(grant)
            await kit.until(lambda: client.closed is not None)
            assert client.all(Results)
            assert ended(client) == events(hub, JobEnded) == []
            hub.state.commit = commit
            await kit.until(lambda: not hub._is_recovering)
            assert not (await hub.front.job("n", kit.USER)).progress.ended

    run(main)


def test_a_job_deleted_before_its_end_is_durable_still_tells_who_waits(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"), name="n", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1), Watch(spec.id, 1, 0, 1, CREDIT))
            await client.wait(JobCreated)
            with commits_held(hub) as go_on:
                deleting = asyncio.create_task(hub.front.delete_job("n", kit.USER))
                await answered(client)
                go_on.set()
                await deleting
            await kit.until(lambda: ended(client))
            assert ended(client)[0].progress.state == "cancelled"

    run(main)


def test_a_partial_is_handed_out_only_once_it_is_durable(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"), stages=("reduce",), inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1), Watch(spec.id, 1, 0, 1, CREDIT))
            grant = await node.wait(Grant)
            await hub.journal.barrier()
            with commits_held(hub) as go_on:
                node.done(grant, ResultPage(0, 1, b"sum", partial=True))
                await kit.until(lambda: not hub.scheduler.has_job(spec.id))
                await answered(client)
                assert client.all(Results) == []
                go_on.set()
                await kit.until(lambda: ended(client))
            kinds = [type(frame) for frame in client.got if isinstance(frame, Results) or frame in ended(client)]
            assert kinds == [Results, Progress]

    run(main)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_node_keeps_its_lease_over_a_failed_commit(hubs, kit, recorded):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"), name="n", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1))
            await client.wait(JobCreated)
            commit = hub.state.commit
            if not recorded:
                hub.state.commit = fail
            node = await kit.node(hub, kit.NODE, "node").hello()
            grant = await node.wait(Grant)
            if recorded:
                await hub.journal.barrier()
                hub.state.commit = fail
                client.send(CreateJob(client.spec(spec.function, 2)))
            await kit.until(lambda: node.closed is not None)
            hub.state.commit = commit
            await kit.until(lambda: not hub._is_recovering)
            assert list(hub.scheduler._books.leases) == ([grant.lease.id] if recorded else [])
            again = kit.node(hub, kit.NODE, "node")
            if recorded:  # held for its node, whoever comes first
                other = await kit.node(hub, kit.NODE, "node").hello("b" * 32)
            await again.hello(held=(held_lease(grant.lease),))
            if not recorded:
                other = await kit.node(hub, kit.NODE, "node").hello("b" * 32)
            again.done(grant, ResultPage(0, 1, b"its own"))
            await again.wait(Acknowledged)
            await kit.until(lambda: not hub.scheduler.has_job(spec.id))
            assert other.all(Grant) == again.all(Grant) == again.all(Cancel) == []
            (page,), _ = await hub.front.results("n", kit.USER)
            assert page.page.data == b"its own"

    run(main)


def test_pages_in_files_outlive_a_failed_commit(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            hub.state._limit_bytes = -1  # all pages that are not small go to files
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"), name="n")
            client.send(CreateJob(spec), AddInput(kit.page(1, 0, 1, b"i" * 20_000)), Seal(spec.id, 1))
            await client.wait(Accepted)
            commit, hub.state.commit = hub.state.commit, fail
            client.send(CreateJob(client.spec(spec.function, 2)))
            await kit.until(lambda: client.closed is not None)
            hub.state.commit = commit
            await kit.until(lambda: not hub._is_recovering)
            assert [page.data for page in hub.state.input_pages(spec.id, 0, 1)] == [b"i" * 20_000]
            node = await kit.node(hub, kit.NODE, "node").hello()
            node.done(await node.wait(Grant), ResultPage(0, 1, b"r" * 20_000))
            await node.wait(Acknowledged)
            (page,), _ = await hub.front.results("n", kit.USER)
            assert page.page.data == b"r" * 20_000

    run(main)


def test_a_blob_comes_in_chunks_from_the_offset_that_was_asked_for(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            data = bytes(range(256)) * 2344  # 600 kB
            digest = await client.offer(data)
            for offset in (300_000, 0):
                client.got.clear()
                client.send(BlobWanted(digest, offset))
                await kit.until(lambda: sum(len(chunk.data) for chunk in client.all(BlobChunk)) >= len(data) - offset)
                chunks = client.all(BlobChunk)
                assert chunks[0].offset == offset
                assert max(len(chunk.data) for chunk in chunks) <= CHUNK_BYTES
                assert {chunk.size for chunk in chunks} == {len(data)}
                assert b"".join(chunk.data for chunk in chunks) == data[offset:]
                assert [chunk.offset for chunk in chunks] == [
                    offset + sum(len(each.data) for each in chunks[:at]) for at in range(len(chunks))
                ]

    run(main)
