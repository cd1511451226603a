"""Where blobs are kept: in a store far away too, and until the commit after which nothing refers to them."""

import asyncio
import shutil
import threading

import blake3
import pytest

from fallow.hub.core import blob_house
from fallow.link.frames import (
    AddInput,
    BlobChunk,
    BlobKept,
    BlobMissing,
    BlobOffer,
    BlobWanted,
    CreateJob,
    Goodbye,
    Grant,
    JobCreated,
    Progress,
    Results,
    Seal,
    Watch,
)  # fmt: skip
from fallow.model.errors import StateError, Unavailable
from fallow.model.ids import Digest
from fallow.model.job import Counting
from fallow.model.page import InputPage, ResultPage

pytestmark = pytest.mark.slow
DATA = bytes(range(256)) * 8000
"""2 MB: more than a page that travels in a frame."""


def run(main):
    return asyncio.run(main())


async def send(peer, kit, data, *, hold=False):
    """Offer a blob as real clients and nodes do: its bytes go when they are asked for."""
    digest = Digest(blake3.blake3(data).hexdigest())
    peer.send(BlobOffer(digest, len(data), None, hold))
    answer = await kit.until(lambda: next((f for f in peer.got if getattr(f, "digest", None) == digest), None))
    if isinstance(answer, BlobWanted):
        for at in range(0, len(data), 1 << 18):
            peer.send(BlobChunk(digest, at, len(data), data[at : at + (1 << 18)]))
    await peer.wait(BlobKept, where=lambda frame: frame.digest == digest)
    return digest


async def fetch(peer, kit, digest, size):
    peer.send(BlobWanted(digest, 0))
    chunks = lambda: [f.data for f in peer.all(BlobChunk) if f.digest == digest]
    await kit.until(lambda: sum(map(len, chunks())) == size, lambda: peer.got)
    return b"".join(chunks())


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "sqlite"])
def test_a_map_with_large_inputs_and_results_travels_through_an_object_store(hubs, kit, monkeypatch, memory):
    monkeypatch.setattr(blob_house, "CONFIRMED_S", 0.0)

    async def main():
        async with hubs(memory=memory, object_store="memory:///") as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await send(client, kit, b"function", hold=True))
            given = await send(client, kit, DATA)
            client.send(CreateJob(spec), AddInput(InputPage(spec.id, 0, 1, None, given)), Seal(spec.id, 1))
            client.send(Watch(spec.id, 1, 0, 1, 1 << 30))
            grant = await node.wait(Grant)
            assert await fetch(node, kit, given, len(DATA)) == DATA
            result = await send(node, kit, DATA[::-1])
            node.done(grant, ResultPage(0, 1, None, result))
            await client.wait(Progress, where=lambda frame: frame.progress.ended)
            assert (await client.wait(Results)).pages[0].page.blob == result
            assert await fetch(client, kit, result, len(DATA)) == DATA[::-1]
            client.send(Goodbye())
            for digest in (spec.function, given, result):
                await kit.until(lambda digest=digest: hub.blobs.size(digest) is None)
            await kit.until(lambda: not list((hub.settings.folder / "blobs").glob("blobs/*/*")))

    run(main)


def test_what_lies_in_an_object_store_is_there_after_a_restart_without_the_cache(hubs, kit, tmp_path):
    store = tmp_path / "store"
    store.mkdir()

    async def main():
        async with hubs(object_store=store.as_uri()) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            digest = await send(client, kit, DATA, hold=True)
        assert [path.read_bytes() for path in store.rglob("blobs/*/*") if path.is_file()] == [DATA]
        shutil.rmtree(tmp_path / "hub" / "blobs")
        async with hubs(object_store=store.as_uri()) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            assert await fetch(client, kit, digest, len(DATA)) == DATA
            client.send(BlobOffer(digest, len(DATA)))
            await client.wait(BlobKept)  # and is not asked for again
            assert not client.all(BlobWanted)

    run(main)


def test_a_store_that_can_not_be_reached_is_told_and_the_hub_goes_on(hubs, kit, monkeypatch):
    monkeypatch.setattr(blob_house, "CONFIRMED_S", 0.0)
    monkeypatch.setattr(blob_house, "DELETE_RETRY_S", 0.01)

    async def main():
        async with hubs(object_store="memory:///") as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            digest = await send(client, kit, DATA)
            away = threading.Event()

            def refusing(method):
                def call(*arguments):
                    if away.is_set():
                        tries.append(method.__name__)
                        raise Unavailable("the object store can't be reached")
                    return method(*arguments)

                return call

            tries = []
            for name in ("size", "path", "delete"):
                monkeypatch.setattr(hub.blobs, name, refusing(getattr(hub.blobs, name)))
            away.set()
            client.send(BlobWanted(digest, 0), BlobOffer(digest, len(DATA)))
            assert {(await client.wait(BlobMissing, n)).code for n in (1, 2)} == {"unavailable"}
            hub.house.sweep([digest])
            await kit.until(lambda: tries.count("delete") >= 3)
            away.clear()
            await kit.until(lambda: hub.blobs.size(digest) is None)

    run(main)


def test_what_is_being_deleted_far_away_is_not_taken_for_kept(hubs, kit, monkeypatch):
    monkeypatch.setattr(blob_house, "CONFIRMED_S", 0.0)

    async def main():
        async with hubs(object_store="memory:///") as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            digest = await send(client, kit, DATA)
            begun, may_end = threading.Event(), threading.Event()
            delete = hub.blobs.delete

            def slow(digest):
                begun.set()
                assert may_end.wait(60)
                delete(digest)

            monkeypatch.setattr(hub.blobs, "delete", slow)
            hub.house.sweep([digest])
            await kit.until(begun.is_set)
            assert hub.blobs.size(digest) is not None
            client.send(BlobOffer(digest, len(DATA)))
            await kit.client(hub, kit.USER, "client").hello("6" * 32)  # meanwhile the hub answers others
            may_end.set()
            await client.wait(BlobWanted, 2)
            for at in range(0, len(DATA), 1 << 18):
                client.send(BlobChunk(digest, at, len(DATA), DATA[at : at + (1 << 18)]))
            await client.wait(BlobKept, 2)
            assert hub.blobs.size(digest) is not None

    run(main)


def test_a_store_that_is_none_is_named(hubs):
    async def main():
        async with hubs(object_store="nonsense://x"):
            pass

    with pytest.raises(StateError, match="nonsense://x"):
        run(main)


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "sqlite"])
def test_a_blob_is_there_until_the_commit_that_removes_the_last_row_with_it(hubs, kit, monkeypatch, memory):
    monkeypatch.setattr(blob_house, "CONFIRMED_S", 0.0)

    async def main():
        async with hubs(memory=memory) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"), name="n", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 5))
            await client.wait(JobCreated)
            client.send(Goodbye())
            await kit.until(lambda: client.closed is not None)
            await hub.journal.barrier()
            commit, seen = hub.state.commit, []

            def look(changes):
                seen.append(hub.blobs.size(spec.function) is not None)
                commit(changes)
                seen.append(hub.blobs.size(spec.function) is not None)

            monkeypatch.setattr(hub.state, "commit", look)
            await hub.front.delete_job("n", kit.USER)
            await kit.until(lambda: hub.blobs.size(spec.function) is None)
            assert seen
            assert all(seen), "the blob was swept before a crash could no longer bring its row back"

    run(main)
