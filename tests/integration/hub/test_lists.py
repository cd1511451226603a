"""Lists of jobs while jobs end: each job once, none left out."""

import asyncio

from fallow.link.frames import CreateJob, Grant, JobCreated, Seal
from fallow.model.job import Counting
from fallow.model.token import Token

OTHER = Token(id="user0002", role="user", name="other", hash="", created_at=0.0)


async def created(client, number, size, **fields):
    spec = client.spec(await client.offer(b"function"), number, inputs=Counting(0, 1), name=f"job {number}", **fields)
    client.send(CreateJob(spec), Seal(spec.id, size))
    await client.wait(JobCreated, where=lambda frame: frame.info.spec.id == spec.id)
    return spec.id


def test_a_job_that_ends_while_it_is_listed_is_there_once(hubs, kit, monkeypatch):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            job = await created(client, 1, 1)
            grant = await node.wait(Grant)
            barrier = hub.journal.barrier

            async def after_its_end():
                node.done(grant)
                await kit.until(lambda: hub.book.ended(job) is not None)
                await barrier()

            monkeypatch.setattr(hub.journal, "barrier", after_its_end)
            listed = await hub.front.jobs(kit.USER)
            monkeypatch.undo()
            assert [info.spec.id for info in listed] == [job]
            assert [info.progress.state for info in await hub.front.jobs(kit.USER)] == ["done"]

    asyncio.run(main())


def test_jobs_that_ended_at_the_same_moment_as_many_of_others_are_listed(hubs, kit, monkeypatch):
    async def main():
        async with hubs() as hub:
            monkeypatch.setattr(hub, "now", lambda moment=hub.now(): moment)
            mine = await kit.client(hub, kit.USER, "client").hello()
            others = await kit.client(hub, OTHER, "client").hello("6" * 32)
            ids = {await created(mine, number, 0) for number in (1, 2)}
            for number in range(3, 12):
                await created(others, number, 0)
            assert {info.spec.id for info in await hub.front.jobs(kit.USER, limit=3)} == ids
            assert len(await hub.front.jobs(kit.ADMIN, limit=3)) == 3
            assert len({info.spec.id for info in await hub.front.jobs(kit.ADMIN)}) == 11

    asyncio.run(main())
