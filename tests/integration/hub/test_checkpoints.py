"""Which checkpoints of a task a hub keeps, who is granted them, and when they go; what running tasks say."""

import asyncio

import blake3
import msgspec
import pytest

from fallow.link.frames import (
    AddInput,
    Answer,
    Ask,
    Beat,
    BlobChunk,
    BlobKept,
    BlobMissing,
    BlobOffer,
    BlobWanted,
    CancelTasks,
    Checkpoint,
    CheckpointKept,
    CreateJob,
    Grant,
    Progress,
    Refused,
    ReleaseJob,
    Returned,
    Seal,
)
from fallow.model.changes import AddResults
from fallow.model.lease import MAX_CHECKPOINT_BYTES, HeldLease, RunningTask, TaskCheckpoint
from fallow.model.page import ResultPage, StoredPage

pytestmark = pytest.mark.slow


def run(main):
    return asyncio.run(main())


async def upload(node, data, **fields):
    digest = blake3.blake3(data).hexdigest()
    node.send(BlobOffer(digest, len(data), **fields))
    await node.wait(BlobWanted, where=lambda frame: frame.digest == digest)
    node.send(BlobChunk(digest, 0, len(data), data))
    await node.wait(BlobKept, where=lambda frame: frame.digest == digest)
    return digest


async def save(node, lease, index, data):
    """Save a checkpoint as an agent does; return its digest once the hub has answered."""
    digest = await upload(node, data, is_spare=True)
    node.send(Checkpoint(lease.id, lease.job, index, digest))
    await node.wait(CheckpointKept, where=lambda frame: frame == CheckpointKept(lease.job, index, digest))
    return digest


async def begin(hub, kit, tasks=1, **options):
    """Start a job of a few tasks, one node that has a lease of it; return client, node, spec, lease."""
    client = await kit.client(hub, kit.USER, "client").hello()
    node = await kit.node(hub, kit.NODE, "node").hello()
    spec = client.spec(await client.offer(b"function"), **options)
    client.send(CreateJob(spec), AddInput(kit.page(1, 0, tasks)), Seal(spec.id, tasks))
    return client, node, spec, (await node.wait(Grant)).lease


def kept(hub):
    return hub.checkpoints._latest


def test_the_next_attempt_is_granted_with_the_latest_checkpoint(hubs, kit):
    async def main():
        async with hubs() as hub:
            client, node, spec, lease = await begin(hub, kit)
            first = await save(node, lease, 0, b"10%")
            second = await save(node, lease, 0, b"70%")
            assert first != second
            other = await kit.node(hub, kit.NODE, "node").hello("b" * 32)
            node.send(Returned(lease.id, spec.id, (0, 1)))
            await node.close()
            grant = await other.wait(Grant)
            assert grant.checkpoints == (TaskCheckpoint(0, second),)
            other.done(grant)
            await client.wait(Progress, where=lambda frame: frame.progress.ended)
            assert not kept(hub).get(spec.id)
            await hub.journal.barrier()
            assert hub.state.unreferenced_blobs([first, second]) == [first, second]

    run(main)


def test_a_checkpoint_outlives_a_restart_and_the_lease_may_still_replace_it(hubs, kit):
    async def main():
        async with hubs() as hub:
            _, node, spec, lease = await begin(hub, kit, name="long")
            first = await save(node, lease, 0, b"first")
        async with hubs() as hub:
            held = (HeldLease(lease.id, spec.id, (0, 1)),)
            node = await kit.node(hub, kit.NODE, "node").hello(held=held)
            second = await save(node, lease, 0, b"second")
            assert hub.state.unreferenced_blobs([first, second]) == [first]
        async with hubs() as hub:
            assert kept(hub) == {spec.id: {0: second}}
            node = await kit.node(hub, kit.NODE, "node").hello(held=held)
            node.done(Grant(lease))
            await kit.until(lambda: not kept(hub).get(spec.id))
        async with hubs() as hub:
            assert not kept(hub)

    run(main)


def test_a_checkpoint_of_a_task_that_was_settled_as_the_hub_died_goes_at_the_next_start(hubs, kit):
    async def main():
        async with hubs() as hub:
            _, node, spec, lease = await begin(hub, kit, tasks=2, name="long")
            digest = await save(node, lease, lease.start, b"state")
            await hub.journal.barrier()
            stored = StoredPage(ResultPage(lease.start, lease.start + 1, b"value"), (lease.start, lease.start + 1))
            hub.state.commit([AddResults(spec.id, (stored,))])  # and the change that drops the checkpoint is lost
        async with hubs() as hub:
            assert not kept(hub)[spec.id]
            await hub.journal.barrier()
            assert hub.state.unreferenced_blobs([digest]) == [digest]

    run(main)


def test_only_the_lease_that_holds_the_task_may_replace_its_checkpoint(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            _, node, spec, lease = await begin(hub, kit, tasks=2)
            good = await save(node, lease, 0, b"good")
            other = await kit.node(hub, kit.NODE, "node").hello("b" * 32, slots=1)
            await save(other, lease, 0, b"a lease of somebody else's")
            late = type(lease)(lease.id + 1000, lease.job, 0, 2)
            await save(node, late, 0, b"a lease that is no more")
            await save(node, lease, 7, b"a task that there is not")
            await save(node, type(lease)(lease.id, "f" * 32, 0, 1), 0, b"another job")
            assert kept(hub) == {spec.id: {0: good}}
            node.send(Returned(lease.id, spec.id, (0, 1)))
            grant = await kit.until(
                lambda: next((g for n in (node, other) for g in n.all(Grant)[n is node :] if g.lease.start == 0), None)
            )
            assert grant.checkpoints == (TaskCheckpoint(0, good),)
            await save(node, lease, 0, b"too late")
            assert kept(hub)[spec.id][0] == good

    run(main)


def test_a_checkpoint_that_the_hub_lacks_or_that_is_too_large_is_refused(hubs, kit, monkeypatch):
    async def main():
        async with hubs(memory=True) as hub:
            _, node, spec, lease = await begin(hub, kit)
            node.send(Checkpoint(lease.id, spec.id, 0, "a" * 64))
            assert "lacks blob aaaaaaaaaaaa… of a checkpoint" in (await node.wait(Refused)).message
            await node.wait(CheckpointKept)  # the node need not try again
            node.send(BlobOffer("b" * 64, MAX_CHECKPOINT_BYTES + 1, is_spare=True))
            assert (await node.wait(BlobMissing)).code == "too_large"
            monkeypatch.setattr("fallow.hub.core.checkpoints.MAX_CHECKPOINT_BYTES", 3)
            digest = await upload(node, b"offered as a result", is_spare=False)
            node.send(Checkpoint(lease.id, spec.id, 0, digest))
            await node.wait(Refused, where=lambda frame: "a checkpoint of 19 bytes is over the limit" in frame.message)
            assert not kept(hub)

    run(main)


def test_a_checkpoint_does_not_take_the_room_of_results(hubs, kit):
    async def main():
        async with hubs(reserve_bytes=0) as hub:
            _, node, _, _ = await begin(hub, kit)
            hub.house._reserve_bytes = 1 << 60
            node.send(BlobOffer("b" * 64, 10, is_spare=True))
            assert (await node.wait(BlobMissing)).code == "hub_full"
            await upload(node, b"a result")

    run(main)


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_checkpoints_go_with_their_job(hubs, kit, end):
    async def main():
        async with hubs() as hub:
            client, node, spec, lease = await begin(hub, kit, name="long")
            digest = await save(node, lease, 0, b"state")
            client.send(CancelTasks(spec.id) if end == "cancel" else ReleaseJob(spec.id, delete=True))
            await kit.until(lambda: not hub.scheduler.has_job(spec.id))
            assert not kept(hub).get(spec.id)
            await hub.journal.barrier()
            assert hub.state.unreferenced_blobs([digest]) == [digest]
            await save(node, lease, 0, b"what comes after the end")
            assert not kept(hub).get(spec.id)

    run(main)


def test_what_running_tasks_say_is_told_in_bounds(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            client, node, spec, lease = await begin(hub, kit, tasks=4)
            running = (
                RunningTask(lease.id, lease.start, 5.0, 0.25, "step 3\n" + "x" * 10_000),
                RunningTask(lease.id, lease.start + 1, 1.0, float("inf")),
                RunningTask(lease.id + 77, 3, 1.0, 0.5, "of no lease"),
            )
            node.send(Beat(running[: lease.stop - lease.start] + running[2:], (lease.id,)))
            await kit.until(lambda: hub.running(spec.id))
            client.send(Ask(1, "running", spec.id))
            told = msgspec.msgpack.decode((await client.wait(Answer)).value)
            assert [each["index"] for each in told] == [*range(lease.start, min(lease.stop, lease.start + 2))]
            first = told[0]
            assert (first["node"], first["fraction"], len(first["message"])) == ("n", 0.25, 200)
            assert first["running_s"] >= 5.0
            assert all(each["fraction"] == 1.0 for each in told[1:])
            node.send(Beat((), (lease.id,)))
            await kit.until(lambda: not hub.running(spec.id))
            assert hub.running("f" * 32) == []

    run(main)


def test_a_fraction_that_is_no_number_is_none(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            _, node, spec, lease = await begin(hub, kit)
            node.send(Beat((RunningTask(lease.id, 0, 1.0, float("nan"), "words"),), (lease.id,)))
            (task,) = await kit.until(lambda: hub.running(spec.id))
            assert (task.fraction, task.message) == (None, "words")

    run(main)
