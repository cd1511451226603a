"""Who comes back after a restart, or to a full disk: sessions, ended jobs, blobs, requests that wait for the journal."""

import asyncio
import errno
import gc
import time

import blake3
import pytest

from fallow.hub.core import hub as hub_module
from fallow.hub.core.settings import HubSettings
from fallow.link.frames import (
    Accepted,
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
    Refused,
    ReleaseJob,
    Seal,
)  # fmt: skip
from fallow.model.errors import HubFull, JobNotFound, Unavailable
from fallow.model.job import Counting

pytestmark = pytest.mark.slow


def run(main):
    return asyncio.run(main())


async def ended_job(hub, kit, **options):
    """Make a job of three inputs and finish it; return its spec."""
    client = await kit.client(hub, kit.USER, "client").hello()
    node = await kit.node(hub, kit.NODE, "node").hello()
    spec = client.spec(await client.offer(b"function"), **options)
    client.send(CreateJob(spec), AddInput(kit.page(1, 0, 3)), Seal(spec.id, 3))
    grant = await node.wait(Grant)
    node.done(grant)
    await client.wait(Progress, where=lambda frame: frame.progress.ended)
    await hub.journal.barrier()
    return spec


def test_what_a_client_repeats_about_a_job_that_ended_before_a_restart_is_accepted(hubs, kit):
    async def main():
        async with hubs() as hub:
            spec = await ended_job(hub, kit, name="n")
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(CreateJob(spec), AddInput(kit.page(1, 0, 3)), Seal(spec.id, 3))
            assert (await client.wait(JobCreated)).info.progress.ended
            await client.wait(Accepted, where=lambda frame: frame.stop == 3)
            assert not client.all(Refused)
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(Seal(spec.id, 3), CreateJob(spec, "replace"))  # not to be replaced by itself
            assert (await client.wait(JobCreated)).info.progress.settled == 3
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(ReleaseJob(spec.id, delete=True))
            await kit.until(lambda: hub.book.named("n", kit.USER.id) is None)
            with pytest.raises(JobNotFound):
                await hub.front.job("n", kit.USER)
            assert not client.all(Refused)

    run(main)


def test_a_named_job_is_kept_for_thirty_days_after_its_end(hubs, kit, monkeypatch):
    rounds = []

    async def main():
        async with hubs() as hub:
            spec = await ended_job(hub, kit, name="n")
            sweep = hub.blobs.sweep_partials
            monkeypatch.setattr(hub.blobs, "sweep_partials", lambda age: (rounds.append(age), sweep(age)))
            await kit.until(lambda: len(rounds) >= 3)  # each looks at retention first
            assert (await hub.front.job("n", kit.USER)).progress.settled == 3
        async with hubs(retention_s=0.05) as hub:
            await kit.until(lambda: hub.book.named("n", kit.USER.id) is None)
            with pytest.raises(JobNotFound):
                await hub.front.job("n", kit.USER)
            await hub.journal.barrier()
            assert hub.state.find_job(spec.id) is None

    assert HubSettings(folder=hubs.folder).retention_s == 30 * 24 * 3600
    assert hub_module.HOUSEKEEPING_S == 60
    monkeypatch.setattr(hub_module, "HOUSEKEEPING_S", 0.02)
    run(main)


def test_the_jobs_of_a_client_that_is_gone_are_kept_for_a_minute(tmp_path):
    assert HubSettings(folder=tmp_path).session_grace_s == 60


def test_others_still_find_nothing_of_it(hubs, kit):
    async def main():
        async with hubs() as hub:
            spec = await ended_job(hub, kit, name="n")
        async with hubs() as hub:
            other = await kit.client(hub, kit.USER.__class__(**{
                **{name: getattr(kit.USER, name) for name in kit.USER.__struct_fields__}, "id": "user0002",
            }), "client").hello("6" * 32)  # fmt: skip
            other.send(ReleaseJob(spec.id, delete=True))
            assert (await other.wait(Refused)).code == "job_not_found"
            assert (await hub.front.job("n", kit.USER)).progress.settled == 3

    run(main)


def test_unnamed_jobs_of_a_client_that_stays_away_end_after_a_restart_too(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"), inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 5))
            await client.wait(JobCreated)
        async with hubs() as hub:
            assert hub.scheduler.has_job(spec.id)
        async with hubs(session_grace_s=0.01) as hub:
            await kit.until(lambda: not hub.scheduler.has_job(spec.id))
            assert len(hub.sessions) == 0

    run(main)


def test_a_client_that_comes_back_after_a_restart_says_goodbye_for_its_old_jobs(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"), inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 5))
            await client.wait(JobCreated)
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(Goodbye())
            await kit.until(lambda: not hub.scheduler.has_job(spec.id))

    run(main)


def test_below_the_reserve_blobs_of_clients_are_refused_by_name_and_those_of_nodes_kept(hubs, kit):
    data = b"result"
    digest = blake3.blake3(data).hexdigest()

    async def main():
        async with hubs(reserve_bytes=1 << 60) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(BlobOffer(digest, len(data)))
            missing = await client.wait(BlobMissing)
            assert (missing.digest, missing.code) == (digest, "hub_full")
            node = await kit.node(hub, kit.NODE, "node").hello()
            node.send(BlobOffer(digest, len(data)))
            assert (await node.wait(BlobWanted)).digest == digest

    run(main)


@pytest.mark.parametrize(("error", "told"), [
    (OSError(errno.ENOSPC, "full"), HubFull), (RuntimeError("broken"), Unavailable),
])  # fmt: skip
def test_who_waits_for_a_commit_that_fails_is_told(hubs, kit, monkeypatch, error, told):
    def refuse(changes):
        raise error

    async def main():
        async with hubs() as hub:
            with monkeypatch.context() as patched:
                patched.setattr(hub.state, "commit", refuse)
                with pytest.raises(told):
                    await hub.create_token("user", "ada")
            await kit.until(lambda: not hub._is_recovering)
            await hub.create_token("user", "ada")

    run(main)


def test_a_wall_clock_that_jumps_takes_no_job(hubs, kit, monkeypatch):
    async def end_a_job(hub, client, number):
        spec = client.spec(await client.offer(b"function"), number, name=f"job {number}", inputs=Counting(0, 1))
        client.send(CreateJob(spec), Seal(spec.id, 0))
        await client.wait(JobCreated, where=lambda frame: frame.info.spec.id == spec.id)
        await hub.journal.barrier()
        return spec

    async def names(hub):
        return {info.spec.name for info in await hub.front.jobs(kit.USER)}

    async def main():
        monkeypatch.setattr("fallow.hub.core.hub.HOUSEKEEPING_S", 0.001)
        async with hubs(retention_s=3600.0) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            await end_a_job(hub, client, 1)
            rounds, ended_jobs = [], hub.state.ended_jobs

            def noted(*, limit, before=None):
                rounds.append(before)
                return ended_jobs(limit=limit, before=before)

            hub.state.ended_jobs = noted
            clock = time.time
            for jump_s in (1e9, -1e9):
                seen = len(rounds)
                with monkeypatch.context() as jump:
                    jump.setattr(time, "time", lambda jump_s=jump_s: clock() + jump_s)
                    await kit.until(lambda seen=seen: len(rounds) > seen + 5)
                assert await names(hub) == {"job 1"}

    run(main)


def test_the_last_chunk_of_a_blob_twice_is_taken_once(hubs, kit):
    async def main():
        async with hubs() as hub:
            unhandled = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
            client = await kit.client(hub, kit.USER, "client").hello()
            data = b"content"
            digest = blake3.blake3(data).hexdigest()
            chunk = BlobChunk(digest, 0, len(data), data)
            client.send(BlobOffer(digest, len(data), None, True), chunk, chunk)
            await client.wait(BlobKept)
            client.send(BlobWanted(digest))
            assert (await client.wait(BlobChunk)).data == data
            assert not client.all(Refused)
            assert not client.all(BlobMissing)
            gc.collect()
            assert not unhandled

    run(main)
