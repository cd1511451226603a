"""The hub's promises, frame by frame: durable before acknowledged, first result wins, nothing lost over a restart."""

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest
import uvloop
from blake3 import blake3

from fallow.link.frames import (
    PROTOCOL_VERSION,
    Accepted,
    Acknowledged,
    AddInput,
    Answer,
    Ask,
    BlobAt,
    BlobChunk,
    BlobKept,
    BlobMissing,
    BlobOffer,
    BlobWanted,
    CancelTasks,
    ClientHello,
    CreateJob,
    FilesShared,
    Goodbye,
    Grant,
    JobCreated,
    NodeChanged,
    NodeHello,
    Printed,
    Progress,
    Refused,
    ReleaseJob,
    Results,
    Seal,
    SharesFiles,
    WaitingBecause,
    Watch,
    Welcome,
)  # fmt: skip
from fallow.model.changes import LogEntry
from fallow.model.ids import JobId
from fallow.model.job import Counting, ResultsOf
from fallow.model.lease import HeldLease
from fallow.model.page import InputPage, ResultPage
from fallow.model.requirements import Requirements

CREDIT = 1 << 30
pytestmark = pytest.mark.slow


def run(main):
    return asyncio.run(main())


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "sqlite"])
def test_a_map_travels_and_is_read_again(hubs, kit, memory):
    async def main():
        async with hubs(memory=memory) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            function = await client.offer(b"function")
            spec = client.spec(function)
            client.send(CreateJob(spec), AddInput(kit.page(1, 0, 3)), Seal(spec.id, 3), Watch(spec.id, 7, 0, 3, CREDIT))
            created = await client.wait(JobCreated)
            assert created.info.spec.owner == kit.USER.id
            await client.wait(Accepted, where=lambda frame: frame.stop == 3)
            seen = 0
            while seen < 3:
                grant = await node.wait(Grant, len(node.all(Grant)) or 1)
                node.done(grant)
                seen = grant.lease.stop
                if seen < 3:
                    await node.wait(Grant, len(node.all(Grant)) + 1)
            ended = await client.wait(Progress, where=lambda frame: frame.progress.ended)
            assert ended.progress.settled == 3
            await node.wait(Acknowledged)
            first = [page for frame in client.all(Results) for page in frame.pages]
            client.send(Watch(spec.id, 8, 0, 3, CREDIT))
            await kit.until(lambda: sum(len(f.pages) for f in client.all(Results) if f.reader == 8) == len(first))
            again = [page for frame in client.all(Results) if frame.reader == 8 for page in frame.pages]
            assert sorted(again, key=lambda p: p.page.start) == sorted(first, key=lambda p: p.page.start)

    run(main)


def test_a_result_is_acknowledged_only_once_it_is_in_the_database(hubs, kit, tmp_path):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            function = await client.offer(b"function")
            spec = client.spec(function, inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1), Watch(spec.id, 1, 0, 1, CREDIT))
            grant = await node.wait(Grant)

            order = []
            commit = hub.state.commit

            def slow_commit(changes):
                order.append(("value", bool(client.all(Results))))
                commit(changes)
                order.append(("acknowledged before commit ended", bool(node.all(Acknowledged))))

            await hub.journal.barrier()
            hub.state.commit = slow_commit
            node.done(grant)
            await client.wait(Results)  # the value is handed out early
            await node.wait(Acknowledged)
            assert ("acknowledged before commit ended", True) not in order
            files = list((tmp_path / "hub").glob("*.sqlite*")) or list((tmp_path / "hub").glob("*.db*"))
            assert files

    run(main)


def test_after_a_restart_nothing_acknowledged_is_lost_or_run_again(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            function = await client.offer(b"function")
            spec = client.spec(function, name="sweep", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 10))
            grant = await node.wait(Grant)
            node.done(grant)
            await node.wait(Acknowledged)
            done_before = grant.lease.stop - grant.lease.start
            second = await node.wait(Grant, 2)
            await hub.journal.barrier()
            secrets = hub.authenticate("flw_admin")
            assert secrets is not None

        async with hubs() as hub:
            assert hub.authenticate("flw_admin") is not None
            assert hub.authenticate("flw_join") is not None
            info = await hub.front.job("sweep", kit.USER)
            assert info.progress.settled == done_before
            # the node comes back with the lease that it was working on, and goes on
            other = await kit.node(hub, kit.NODE, "node").hello("b" * 32)
            held = HeldLease(second.lease.id, spec.id, (second.lease.start, second.lease.stop))
            node = await kit.node(hub, kit.NODE, "node").hello(held=(held,))
            granted = [range(g.lease.start, g.lease.stop) for g in other.all(Grant)]
            assert not any(second.lease.start in span for span in granted)
            node.done(second)
            done = {grant.lease.id, second.lease.id}

            async def serve():
                while True:
                    for peer in (node, other):
                        for each in peer.all(Grant):
                            if each.lease.id not in done:
                                done.add(each.lease.id)
                                peer.done(each)
                    await asyncio.sleep(0.001)

            server = asyncio.create_task(serve())
            client = await kit.client(hub, kit.USER, "client").hello("6" * 32)
            client.send(Watch(spec.id, 1, 0, 10, CREDIT))
            await client.wait(Progress, where=lambda frame: frame.progress.ended)
            await kit.until(
                lambda: sum(b - a for f in client.all(Results) for p in f.pages for a, b in [p.counts]) == 10
            )
            server.cancel()
            granted = [(g.lease.start, g.lease.stop) for peer in (node, other) for g in peer.all(Grant)]
            assert all(start >= done_before for start, _ in granted)

    run(main)


def test_the_first_result_wins_and_repeats_do_no_harm(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"), inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1), Watch(spec.id, 1, 0, 1, CREDIT))
            grant = await node.wait(Grant)
            node.done(grant, ResultPage(0, 1, b"first"))
            number = node.done(grant, ResultPage(0, 1, b"second"))
            await node.wait(Acknowledged, where=lambda frame: frame.number == number)
            assert [p.page.data for f in client.all(Results) for p in f.pages] == [b"first"]

    run(main)


def test_pages_repeated_or_out_of_order(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"))
            client.send(CreateJob(spec), AddInput(kit.page(1, 0, 5)), AddInput(kit.page(1, 0, 5)))
            await client.wait(Accepted, where=lambda frame: frame.stop == 5)
            client.send(AddInput(kit.page(1, 7, 9)))
            refused = await client.wait(Refused)
            assert "do not follow the 5" in refused.message
            assert refused.start == 7
            assert hub.scheduler.accepted(spec.id) == 5

    run(main)


def test_a_page_that_refers_to_too_much_is_refused(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"))
            client.send(CreateJob(spec), AddInput(InputPage(spec.id, 0, 1, b"items", None, ("a" * 64,) * 10_001)))
            refused = await client.wait(Refused)
            assert (refused.code, refused.job) == ("too_large", spec.id)
            assert "10001 references is over the limit of 10000" in refused.message

    run(main)


def test_a_blob_over_the_limit_is_refused_and_says_what_to_do(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(BlobOffer("a" * 64, 1 << 40, None, True))
            missing = await client.wait(BlobMissing)
            assert missing.code == "too_large"
            assert "a blob of 1099511627776 bytes is over the limit of 68719476736 bytes" in missing.reason
            assert "several parts" in missing.reason

    run(main)


def test_others_jobs_are_out_of_reach(hubs, kit):
    async def main():
        from fallow.model.token import Token

        other = Token(id="user0002", role="user", name="other", hash="", created_at=0.0)
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            thief = await kit.client(hub, other, "client").hello("7" * 32)
            spec = client.spec(await client.offer(b"function"), name="mine", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1))
            await client.wait(JobCreated)
            for frame in (CancelTasks(spec.id), ReleaseJob(spec.id, True), Ask(1, "job", "mine"), Ask(2, "job", spec.id),
                          AddInput(kit.page(1, 0, 1)), Watch(spec.id, 1, 0, 1, 1), Seal(spec.id, 5)):  # fmt: skip
                before = len(thief.all(Refused))
                thief.send(frame)
                assert (await thief.wait(Refused, before + 1)).code == "job_not_found", frame
            assert hub.scheduler.has_job(spec.id)
            admin = await kit.client(hub, kit.ADMIN, "client").hello("8" * 32)
            admin.send(Ask(1, "job", "mine"))
            await admin.wait(Answer)

    run(main)


def test_wrong_first_frames_and_versions_are_refused_and_the_link_closed(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            for kind, token, frame in (
                ("client", kit.USER, Goodbye()),
                ("client", kit.USER, ClientHello(99, "5" * 32, "3.11")),
                (
                    "node",
                    kit.NODE,
                    NodeHello(99, "a" * 32, (await kit.node(hub, kit.NODE, "node").hello()).got and _info()),
                ),
            ):
                peer = kit.client(hub, token, kind)
                peer.send(frame)
                refused = await peer.wait(Refused)
                assert "first frame" in refused.message or "protocol" in refused.message
                await kit.until(lambda peer=peer: peer.closed is not None)

    run(main)


def _info():
    from fallow.model.node import NodeInfo

    return NodeInfo(name="n", cores=1, slots=1, memory_bytes=1, os="linux", arch="x", pythons=())


def test_a_full_disk_refuses_submissions_and_takes_results(hubs, kit):
    async def main():
        async with hubs(reserve_bytes=0) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            function = await client.offer(b"function")
            spec = client.spec(function)
            client.send(CreateJob(spec), AddInput(kit.page(1, 0, 1)), Watch(spec.id, 1, 0, 9, CREDIT))
            grant = await node.wait(Grant)
            free = hub.blobs.free_bytes
            hub.blobs.free_bytes = lambda: -1
            hub.house._free_read_at = float("-inf")
            client.send(AddInput(kit.page(1, 1, 2)))
            assert (await client.wait(Refused)).code == "hub_full"
            client.send(CreateJob(client.spec(function, 2)))
            assert (await client.wait(Refused, 2)).code == "hub_full"
            node.done(grant)
            await client.wait(Results)
            await node.wait(Acknowledged)
            hub.blobs.free_bytes = free
            hub.house._free_read_at = float("-inf")
            client.send(AddInput(kit.page(1, 1, 2)))
            await client.wait(Accepted, where=lambda frame: frame.stop == 2)

    run(main)


def test_a_file_that_lies_on_the_hubs_disk_already_takes_no_more_room(hubs, kit):
    async def main():
        async with hubs(reserve_bytes=1_000_000) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            client.send(SharesFiles(Path(client.all(Welcome)[0].probe).read_text()))
            incoming = Path((await client.wait(FilesShared)).incoming)

            def offer(data, free_bytes):
                digest = blake3(data).hexdigest()
                (incoming / digest).write_bytes(data)
                hub.blobs.free_bytes = lambda: free_bytes
                hub.house._free_read_at = float("-inf")
                client.send(BlobOffer(digest, len(data), str(incoming / digest), True))

            offer(bytes(2_000_000), 1_000_000)
            await client.wait(BlobKept)
            offer(b"x" * 2_000_000, 999_999)
            assert (await client.wait(BlobMissing)).code == "hub_full"

    run(main)


def test_room_that_a_deleted_job_leaves_in_the_database_counts_as_room(hubs, kit):
    async def main():
        async with hubs(reserve_bytes=8_000_000) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            function = await client.offer(b"function")
            free = hub.blobs.free_bytes()
            client.send(CreateJob(client.spec(function, 1, name="big")))
            for index in range(8):
                client.send(AddInput(kit.page(1, index, index + 1, bytes(900_000))))
            await client.wait(Accepted, where=lambda frame: frame.stop == 8)
            assert free - 1_000_000 > hub.house._reserve_bytes, "this test needs a disk with room"

            def submit(number, free_bytes):
                hub.blobs.free_bytes = lambda: free_bytes
                hub.house._free_read_at = float("-inf")
                client.send(CreateJob(client.spec(function, number)))

            submit(2, 5_000_000)
            assert (await client.wait(Refused)).code == "hub_full"
            await hub.front.delete_job("big", kit.USER)
            submit(3, 5_000_000)
            await client.wait(JobCreated, 2)
            submit(4, 1_000_000)  # what can't go into the database's file still needs some of the disk
            assert (await client.wait(Refused, 2)).code == "hub_full"

    run(main)


def test_an_unnamed_job_ends_with_its_session_and_a_named_one_is_sealed(hubs, kit):
    async def main():
        async with hubs(session_grace_s=0.05) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            function = await client.offer(b"function")
            unnamed, named = client.spec(function, 1), client.spec(function, 2, name="kept")
            client.send(CreateJob(unnamed), CreateJob(named), AddInput(kit.page(2, 0, 4)))
            await client.wait(Accepted)
            await client.close()
            await kit.until(lambda: not hub.scheduler.has_job(unnamed.id))
            progress = (await hub.front.job("kept", kit.USER)).progress
            assert (progress.size, progress.input_ended) == (4, True)
            node = await kit.node(hub, kit.NODE, "node").hello()
            seen = set()
            while len(seen) < 4:
                for grant in node.all(Grant):
                    if grant.lease.start not in seen:
                        seen.update(range(grant.lease.start, grant.lease.stop))
                        node.done(grant)
                await asyncio.sleep(0.001)
            await kit.until(lambda: not hub.scheduler.has_job(named.id))
            assert (await hub.front.job("kept", kit.USER)).progress.input_ended

    run(main)


def test_who_attaches_to_a_job_and_leaves_does_not_end_its_inputs(hubs, kit):
    async def main():
        async with hubs() as hub:
            feeder = await kit.client(hub, kit.USER, "client").hello()
            spec = feeder.spec(await feeder.offer(b"function"), name="shared")
            feeder.send(CreateJob(spec), AddInput(kit.page(1, 0, 4)))
            await feeder.wait(Accepted)
            visitor = await kit.client(hub, kit.USER, "client").hello("7" * 32)
            visitor.send(CreateJob(visitor.spec(spec.function, 2, name="shared"), "attach"))
            assert (await visitor.wait(JobCreated)).info.spec.id == spec.id
            visitor.send(Goodbye())
            await kit.until(lambda: visitor.closed is not None)
            assert hub.scheduler.progress(spec.id).size is None
            feeder.send(AddInput(kit.page(1, 4, 6)), Seal(spec.id, 6))
            await feeder.wait(Accepted, where=lambda frame: frame.stop == 6)
            await kit.until(lambda: hub.scheduler.progress(spec.id).size is not None)
            progress = hub.scheduler.progress(spec.id)
            assert (progress.size, progress.input_ended) == (6, False)
            assert not feeder.all(Refused)

    run(main)


def test_an_unnamed_job_that_a_named_one_goes_on_from_is_sealed_too(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            function = await client.offer(b"function")
            parent = client.spec(function, 1)
            child = client.spec(function, 2, name="kept", inputs=ResultsOf(parent.id))
            client.send(CreateJob(parent), AddInput(kit.page(1, 0, 4)), CreateJob(child), Goodbye())
            await kit.until(lambda: client.closed is not None)
            progress = hub.scheduler.progress(parent.id)
            assert (progress.size, progress.input_ended) == (4, True)
            assert hub.scheduler.progress(child.id).size == 4

    run(main)


def test_a_client_that_comes_back_in_time_keeps_its_jobs(hubs, kit):
    async def main():
        async with hubs(session_grace_s=30.0) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"))
            client.send(CreateJob(spec), AddInput(kit.page(1, 0, 4)))
            await client.wait(Accepted)
            await client.close()
            again = await kit.client(hub, kit.USER, "client").hello()
            again.send(CreateJob(spec), AddInput(kit.page(1, 0, 4)), AddInput(kit.page(1, 4, 6)), Seal(spec.id, 6))
            await again.wait(Accepted, where=lambda frame: frame.stop == 6)
            await again.wait(JobCreated)
            assert hub.scheduler.accepted(spec.id) == 6

    run(main)


def test_a_waiting_client_is_told_why(hubs, kit):
    async def main():
        async with hubs(memory=True, waiting_notice_s=0.01) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(
                await client.offer(b"function"), requirements=Requirements(python="3.99"), inputs=Counting(0, 1)
            )
            client.send(CreateJob(spec), Seal(spec.id, 1))
            told = await client.wait(WaitingBecause)
            assert any("3.99" in reason and "3.11" in reason for reason in told.reasons), told.reasons

    run(main)


def test_names(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            function = await client.offer(b"function")
            first = client.spec(function, 1, name="n", inputs=Counting(0, 1))
            client.send(CreateJob(first), Seal(first.id, 5))
            await client.wait(JobCreated)
            client.send(CreateJob(client.spec(function, 2, name="n", inputs=Counting(0, 1))))
            refused = await client.wait(Refused)
            assert refused.code == "job_exists"
            assert 'if_exists="attach"' in refused.message
            client.send(CreateJob(client.spec(function, 3, name="n", inputs=Counting(0, 1)), "attach"))
            assert (await client.wait(JobCreated, 2)).info.spec.id == first.id
            client.send(CreateJob(client.spec(function, 4, name="n", inputs=Counting(0, 1)), "replace"))
            assert (await client.wait(JobCreated, 3)).info.spec.id == JobId(f"{4:032x}")
            assert not hub.scheduler.has_job(first.id)

    run(main)


def test_blobs_of_deleted_jobs_are_swept(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            function = await client.offer(b"function")
            spec = client.spec(function, name="n", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 5))
            await client.wait(JobCreated)
            client.send(Goodbye())
            await kit.until(lambda: client.closed is not None)
            await hub.journal.barrier()
            assert hub.blobs.size(function) is not None  # the named job refers to it
            await hub.front.delete_job("n", kit.USER)
            await kit.until(lambda: hub.blobs.size(function) is None)

    run(main)


def test_the_database_holds_no_secret(hubs, kit, tmp_path):
    async def main():
        async with hubs(admin_secret=None, join_secret=None) as hub:
            secrets = dict(hub.new_secrets)
            assert set(secrets) == {"admin", "node"}
            token, secret = await hub.create_token("user", "ada")
            assert hub.authenticate(secret) == token
            everything = [*secrets.values(), secret]
        content = b"".join(path.read_bytes() for path in (tmp_path / "hub").rglob("*") if path.is_file())
        assert not any(each.encode() in content for each in everything)
        async with hubs() as hub:
            assert hub.new_secrets == {}
            assert all(hub.authenticate(each) for each in everything)
            await hub.revoke_token(token.id)
            assert hub.authenticate(secret) is None

    run(main)
    assert sqlite3  # the state is a real database


def test_a_failed_commit_is_a_crash_that_the_hub_recovers_from(hubs, kit):
    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"))
            client.send(CreateJob(spec), AddInput(kit.page(1, 0, 4)))
            await client.wait(Accepted)
            commit = hub.state.commit

            def full(changes):
                raise OSError(28, "No space left on device")

            hub.state.commit = full
            client.send(AddInput(kit.page(1, 4, 8)))
            await kit.until(lambda: client.closed is not None)
            hub.state.commit = commit
            assert [frame.stop for frame in client.all(Accepted)] == [4]  # the refused page was never acknowledged
            await kit.until(lambda: not hub._is_recovering)
            again = await kit.client(hub, kit.USER, "client").hello()
            again.send(CreateJob(spec), AddInput(kit.page(1, 4, 8)))
            await again.wait(Accepted, where=lambda frame: frame.stop == 8)

    run(main)


def test_a_node_that_was_silent_for_too_long_has_to_connect_again_and_then_gets_work(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"), inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 1))
            grant = await node.wait(Grant)
            hub.carry_out(hub.scheduler.on_time(hub.now() + 1000))
            await kit.until(lambda: node.closed is not None)
            again = await kit.node(hub, kit.NODE, "node").hello()
            fresh = await again.wait(Grant)
            assert (fresh.lease.start, fresh.lease.stop) == (grant.lease.start, grant.lease.stop)
            assert fresh.lease.id != grant.lease.id

    run(main)


def test_only_who_can_read_the_hubs_files_is_given_paths(hubs, kit, tmp_path):
    async def main():
        async with hubs() as hub:
            near = await kit.client(hub, kit.USER, "client").hello()
            far = await kit.client(hub, kit.USER, "client").hello("6" * 32)
            digest = await near.offer(b"content")
            probe = near.all(Welcome)[0].probe
            near.send(SharesFiles(Path(probe).read_text()))
            far.send(SharesFiles("a guess"), BlobWanted(digest))
            await near.wait(FilesShared)
            near.send(BlobWanted(digest))
            assert Path((await near.wait(BlobAt)).path).read_bytes() == b"content"
            assert (await far.wait(BlobChunk)).data == b"content"
            assert not far.all(FilesShared)
            assert not far.all(BlobAt)
            # what is offered as a file must lie in the folder for it
            secret = tmp_path / "secret"
            secret.write_bytes(b"not yours")
            near.send(BlobOffer(blake3(b"not yours").hexdigest(), 9, str(secret)))
            await near.wait(BlobMissing)
            assert secret.read_bytes() == b"not yours"

    run(main)


def test_logs_of_a_job_are_bounded(hubs, kit, monkeypatch):
    async def main():
        monkeypatch.setattr("fallow.hub.core.job_desk.LOG_BYTES_PER_JOB", 1000)
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            node = await kit.node(hub, kit.NODE, "node").hello()
            spec = client.spec(await client.offer(b"function"), name="chatty", inputs=Counting(0, 1))
            client.send(CreateJob(spec), Seal(spec.id, 5))
            await client.wait(JobCreated)
            node.send(*(Printed(spec.id, (LogEntry(i % 5, "x" * 100, "n"),)) for i in range(100)))
            node.send(Printed(JobId("f" * 32), (LogEntry(0, "of no job", "n"),)))
            await kit.until(lambda: hub.desk._log_bytes.get(spec.id, 0) > 1000)
            entries, _ = await hub.front.logs("chatty", kit.USER)
            assert len(entries) == 6

    run(main)


def test_logs_of_a_job_are_bounded_over_restarts(hubs, kit, monkeypatch):
    async def main():
        monkeypatch.setattr("fallow.hub.core.job_desk.LOG_BYTES_PER_JOB", 1000)
        for number in range(3):
            async with hubs() as hub:
                if number == 0:
                    client = await kit.client(hub, kit.USER, "client").hello()
                    spec = client.spec(await client.offer(b"function"), name="chatty", inputs=Counting(0, 1))
                    client.send(CreateJob(spec), Seal(spec.id, 5))
                    await client.wait(JobCreated)
                node = await kit.node(hub, kit.NODE, "node").hello()
                node.send(*(Printed(spec.id, (LogEntry(number, "ä" * 50, "n"),)) for _ in range(4)))
                await kit.until(lambda hub=hub, number=number: hub.desk._log_bytes.get(spec.id, 0) >= 600)
                entries, _ = await hub.front.logs("chatty", kit.USER)
                assert [entry.index for entry in entries] == [0, 0, 0, 0, 1, 1][: 4 + 2 * number]

    run(main)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"name": "x" * 10**5}, "name 'xxx"),
        ({"name": "\x1b[2J"}, "printable"),
        ({"tags": ("x" * 10**5,)}, "tag 'xxx"),
        ({"tags": tuple(map(str, range(10**4)))}, "up to 100 tags"),
        ({"pythons": ("3.11",) * 10**4}, "as many interpreters"),
        ({"os": "x" * 10**5}, "system 'xxx"),
        ({"version": "x" * 10**5}, "version 'xxx"),
        ({"slots": 0}, "0 slots"),
        ({"cores": 1 << 40}, "cores"),
        ({"memory_bytes": -1}, "-1 bytes"),
        ({"score": float("nan")}, "score nan"),
        ({"score": 0.0}, "score 0.0"),
    ],
)
def test_what_a_node_says_of_itself_is_bounded(hubs, kit, field, said):
    async def main():
        async with hubs(memory=True) as hub:
            info = msgspec.structs.replace(_info(), **field)
            peer = kit.node(hub, kit.NODE, "node")
            peer.send(NodeHello(PROTOCOL_VERSION, "b" * 32, info))
            refused = await peer.wait(Refused)
            assert (refused.code, said in refused.message, len(refused.message) < 300) == ("bad_request", True, True)
            await kit.until(lambda: peer.closed is not None)
            assert not hub.nodes()
            node = await kit.node(hub, kit.NODE, "node").hello()
            node.send(NodeChanged(info, True, ""))
            assert said in (await node.wait(Refused)).message
            assert hub.nodes()[0].info.name == "n"
            assert node.closed is None  # what it says of itself now is not kept; its work goes on

    run(main)


def test_why_a_node_takes_no_work_is_bounded(hubs, kit):
    async def main():
        async with hubs(memory=True) as hub:
            node = await kit.node(hub, kit.NODE, "node").hello()
            node.send(NodeChanged(_info(), False, "x" * 10**5))
            assert "100000 characters" in (await node.wait(Refused)).message
            assert hub.nodes()[0].accepting
            node.send(NodeChanged(_info(), False, "x" * 8192))
            await kit.until(lambda: not hub.nodes()[0].accepting)

    run(main)


def test_deadlines_that_are_past_harm_no_loop(hubs, monkeypatch):
    """uvloop answers `call_at` of a time that is past with a plain handle, which has no time."""

    async def look() -> None:
        async with hubs() as hub:
            monkeypatch.setattr(type(hub.scheduler), "next_deadline", lambda scheduler: hub.now() - 1)
            hub.carry_out([])
            hub.carry_out([])
            monkeypatch.undo()

    for loop_factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(look())


def test_a_job_that_counts_is_accepted_whole(hubs, kit):
    """Its client may die at once: there is no moment in which the job is there but not its inputs."""

    async def main():
        async with hubs() as hub:
            client = await kit.client(hub, kit.USER, "client").hello()
            spec = client.spec(await client.offer(b"function"), name="kept", inputs=Counting(0, 1))
            client.send(CreateJob(spec, size=5))
            await client.wait(JobCreated)
            client.send(Goodbye())
        async with hubs() as hub:
            progress = hub.scheduler.progress(spec.id)
            assert (progress.size, progress.input_ended) == (5, False)

    asyncio.run(main())
