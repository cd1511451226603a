"""Blobs that were stored and never named by a row: they go, and nothing that is named or about to be goes with them."""

import asyncio
import threading

import pytest

from fallow.hub.core import blob_house, orphans
from fallow.link.frames import BlobKept, BlobOffer, CreateJob, JobCreated, Seal
from fallow.model.job import Counting

SOON_S = 0.01


def blobs_in(folder):
    return {path.name for path in folder.glob("**/blobs/*/*") if path.is_file()}


@pytest.mark.parametrize("kind", ["local", "object store"])
def test_blobs_that_no_row_names_go_after_a_restart_and_others_stay(hubs, kit, monkeypatch, tmp_path, kind):
    (tmp_path / "store").mkdir()
    settings = {"object_store": (tmp_path / "store").as_uri()} if kind == "object store" else {}

    async def main():
        async with hubs(**settings) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            held = await client.offer(b"of a session")
            spec = client.spec(await client.offer(b"function"), name="kept", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 5))
            await client.wait(JobCreated)
            lost = hub.blobs.keep_bytes(b"and here the hub was killed")
        monkeypatch.setattr(orphans, "ORPHAN_S", SOON_S)
        async with hubs(**settings) as hub:
            await kit.until(lambda: hub.blobs.size(lost) is None, lambda: blobs_in(tmp_path))
            assert hub.blobs.size(held) is not None
            assert hub.blobs.size(spec.function) is not None
        assert blobs_in(tmp_path) == {held, spec.function}

    asyncio.run(main())


def test_a_blob_without_a_name_stays_for_whoever_was_told_that_it_is_kept(hubs, kit, monkeypatch):
    async def main():
        monkeypatch.setattr(blob_house, "CONFIRMED_S", 600.0)
        async with hubs() as hub:
            lost = hub.blobs.keep_bytes(b"function")
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(BlobOffer(lost, 8))
            await client.wait(BlobKept)
            monkeypatch.setattr(orphans, "ORPHAN_S", SOON_S)
            other = hub.blobs.keep_bytes(b"nobody asks for this one")
            hub.spawn(orphans.sweep_orphans(hub.house, hub.state, hub._state_id))
            await kit.until(lambda: hub.blobs.size(other) is None)
            assert hub.blobs.size(lost) is not None

            client.send(CreateJob(client.spec(lost, name="n", inputs=Counting(0, 1))))
            await client.wait(JobCreated)

    asyncio.run(main())


def test_a_blob_is_not_swept_while_the_first_row_that_names_it_is_on_its_way(hubs, kit, monkeypatch):
    async def main():
        monkeypatch.setattr(blob_house, "CONFIRMED_S", 600.0)
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            lost = hub.blobs.keep_bytes(b"function")
            commit, begun, may_go_on = hub.state.commit, threading.Event(), threading.Event()

            def slow(changes):
                begun.set()
                assert may_go_on.wait(60)
                commit(changes)

            monkeypatch.setattr(hub.state, "commit", slow)
            await_other = asyncio.create_task(hub.create_token("user", "u"))
            hub.house.sweep([lost])
            await kit.until(begun.is_set)
            client.send(CreateJob(client.spec(lost, name="n", inputs=Counting(0, 1))))
            await kit.until(lambda: hub.scheduler.has_job("0" * 31 + "1"))
            may_go_on.set()
            await client.wait(JobCreated)
            await await_other
            assert hub.blobs.size(lost) is not None

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["local", "object store"])
def test_nothing_is_swept_where_the_blobs_are_of_another_state(hubs, kit, monkeypatch, tmp_path, kind):
    (tmp_path / "store").mkdir()
    settings = {"object_store": (tmp_path / "store").as_uri()} if kind == "object store" else {}

    async def main():
        async with hubs(**settings) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            held = await client.offer(b"named in the first database")
        monkeypatch.setattr(orphans, "ORPHAN_S", SOON_S)
        async with hubs(**settings, database=str(tmp_path / "another")) as hub:
            assert not await hub.house.off_loop(lambda: hub.blobs.claim(hub._state_id))
            ended = asyncio.create_task(orphans.sweep_orphans(hub.house, hub.state, hub._state_id))
            await asyncio.wait_for(ended, 60)
            assert hub.blobs.size(held) is not None
        async with hubs(**settings) as hub:
            assert await hub.house.off_loop(lambda: hub.blobs.claim(hub._state_id))

    asyncio.run(main())
