"""A real agent with a task that leaves checkpoints and goes on from them; the test is its hub."""

import io
import os
import tarfile
import time

import pytest

from fallow.link.frames import Beat, BlobOffer, BlobWanted, Cancel, Checkpoint, CheckpointKept, Grant
from fallow.model.lease import Lease, TaskCheckpoint
from fallow.model.requirements import Requirements
from fallow.slot.checkpoint import look, pack

pytestmark = pytest.mark.slow


@pytest.fixture
def put(hub, tmp_path):
    """Put a checkpoint of one file into the hub; return its digest."""

    def put(text):
        folder = tmp_path / "left"
        folder.mkdir()
        (folder / "state").write_text(text)
        pack(str(folder), look(str(folder)), str(tmp_path / "packed"))
        return hub.put((tmp_path / "packed").read_bytes())

    return put


def grant(hub, spec, start, stop, **checkpoints):
    """Lease tasks with checkpoints: i0=digest."""
    given = tuple(TaskCheckpoint(int(name[1:]), digest) for name, digest in checkpoints.items())
    lease = Lease(next(hub._leases), spec.id, start, stop)
    hub.send(Grant(lease, spec, tuple(hub.pages[spec.id]), given))
    return lease.id


def states(hub, frames):
    """Return what the checkpoints of these frames hold."""
    found = []
    for frame in frames:
        with tarfile.open(fileobj=io.BytesIO(hub.blobs[frame.digest])) as archive:
            found.append(archive.extractfile("state").read().decode())
    return found


def keep(hub, frame):
    hub.send(CheckpointKept(frame.job, frame.index, frame.digest))


def stepping(gate):
    """Return a function that reads its state, and saves one for each file `gate-N` that appears, until `gate-end` does."""

    def run(_):
        import fallow

        saved = fallow.checkpoint() / "state"
        begun, step = saved.read_text() if saved.exists() else None, 0
        while not os.path.exists(f"{gate}-end"):
            if os.path.exists(f"{gate}-{step}"):
                saved.write_text(f"step {step}")
                fallow.save_checkpoint()
                step += 1
            time.sleep(0.001)
        return begun

    return run


async def test_what_a_task_saves_is_at_the_hub_before_it_is_told_of(hub, tmp_path):
    spec = hub.job(["map"], [stepping(tmp_path / "gate")], [0], checkpoint_s=0.001)
    async with hub.node():
        lease = hub.grant(spec, 0, 1)
        (tmp_path / "gate-0").touch()
        await hub.until(lambda: hub.all(Checkpoint))
        assert hub.all(BlobOffer)[-1].is_spare
        (first,) = hub.all(Checkpoint)
        assert (first.lease, first.job, first.index) == (lease, spec.id, 0)
        keep(hub, first)
        (tmp_path / "gate-1").touch()
        await hub.until(lambda: len(hub.all(Checkpoint)) == 2)
        assert states(hub, hub.all(Checkpoint)) == ["step 0", "step 1"]
        (tmp_path / "gate-end").touch()
        await hub.finish(spec, 1)
        cache = hub.folder / "node" / "cache"
        assert not {each.digest for each in hub.all(Checkpoint)} & {path.name for path in cache.iterdir()}
    assert hub.values(spec) == {0: None}


@pytest.mark.parametrize("level", ["process", pytest.param("bubblewrap", marks=pytest.mark.service("bubblewrap"))])
async def test_a_task_begins_with_the_checkpoint_that_it_was_granted_with(hub, put, level):
    def read(i):
        import fallow

        saved = fallow.checkpoint() / "state"
        return i, saved.read_text() if saved.exists() else None

    spec = hub.job(["map"], [read], range(10), requirements=Requirements(sandbox=level))
    async with hub.node(sandbox=level):
        grant(hub, spec, 0, 10, i0=put("of task 0"), i7=hub.put(b"garbage" * 1000))
        await hub.finish(spec, 10)
        await hub.until(lambda: "begins anew" in hub.printed(spec).get(7, ""))
    assert "task 0" not in hub.printed(spec).get(0, "")
    assert hub.values(spec) == {i: (i, "of task 0" if i == 0 else None) for i in range(10)}


@pytest.mark.service("bubblewrap")
async def test_checkpoints_leave_and_enter_a_sandbox(hub):
    def run(_):
        import fallow

        saved = fallow.checkpoint() / "state"
        begun = saved.read_text() if saved.exists() else None
        saved.write_text("in the sandbox")
        fallow.save_checkpoint()
        while begun is None:
            time.sleep(0.01)
        return begun

    spec = hub.job(["map"], [run], [0], requirements=Requirements(sandbox="bubblewrap"))
    async with hub.node(sandbox="bubblewrap"):
        hub.grant(spec, 0, 1)
        digest = (await hub.until(lambda: hub.all(Checkpoint)))[0].digest
        hub.send(Cancel(spec.id))
        again = hub.job(["map"], [run], [0], requirements=Requirements(sandbox="bubblewrap"))
        grant(hub, again, 0, 1, i0=digest)
        await hub.finish(again, 1)
    assert hub.values(again) == {0: "in the sandbox"}


async def test_a_checkpoint_that_can_not_be_had_lets_the_task_begin_anew_and_says_so(hub, tmp_path):
    spec = hub.job(["map"], [stepping(tmp_path / "gate")], [0])
    (tmp_path / "gate-end").touch()
    async with hub.node():
        grant(hub, spec, 0, 1, i0="e" * 64)
        await hub.finish(spec, 1)
        await hub.until(lambda: "can't be had, so it begins anew: never heard of it" in hub.printed(spec).get(0, ""))
    assert hub.values(spec) == {0: None}


async def test_while_one_is_on_its_way_only_the_latest_of_the_others_follows(hub, tmp_path):
    spec = hub.job(["map"], [stepping(tmp_path / "gate")], [0], checkpoint_s=0.001)
    async with hub.node():
        hub.grant(spec, 0, 1)
        (tmp_path / "gate-0").touch()
        await hub.until(lambda: hub.all(Checkpoint))
        for step in range(1, 6):
            (tmp_path / f"gate-{step}").touch()
            await hub.until(lambda step=step: hub.agent._checkpoints._came == step + 1)
        await hub.until(lambda: not hub.agent._checkpoints._taking)
        assert len(hub.all(Checkpoint)) == 1
        keep(hub, hub.all(Checkpoint)[0])
        await hub.until(lambda: len(hub.all(Checkpoint)) == 2)
        assert states(hub, hub.all(Checkpoint)) == ["step 0", "step 5"]
        (tmp_path / "gate-end").touch()
        await hub.finish(spec, 1)


async def test_one_that_can_not_be_kept_does_not_take_a_later_one_along(hub, tmp_path):
    spec = hub.job(["map"], [stepping(tmp_path / "gate")], [0])
    async with hub.node():
        lease = hub.grant(spec, 0, 1)
        await hub.until(lambda: hub.agent._dispatcher.running())
        partial = hub.folder / "node" / "cache" / "partial"
        for text in ("lost", "later"):
            folder = tmp_path / text
            folder.mkdir()
            (folder / "state").write_text(text)
            pack(str(folder), look(str(folder)), str(tmp_path / f"{text}.tar"))
            hub.agent._checkpoints.saved(lease, spec.id, 0, tmp_path / f"{text}.tar")
            if text == "lost":  # before it is hashed
                (claimed,) = partial.glob("claim-*")
                claimed.unlink()
        await hub.until(lambda: hub.all(Checkpoint))
        assert states(hub, hub.all(Checkpoint)) == ["later"]
        (tmp_path / "gate-end").touch()
        await hub.finish(spec, 1)


async def test_after_a_broken_link_it_is_offered_and_told_again(hub, tmp_path):
    spec = hub.job(["map"], [stepping(tmp_path / "gate")], [0])
    async with hub.node():
        lease = hub.grant(spec, 0, 1)
        (tmp_path / "gate-0").touch()
        await hub.until(lambda: hub.all(Checkpoint))
        hub.cut()
        await hub.until(lambda: len(hub.all(Checkpoint)) == 2)
        first, again = hub.all(Checkpoint)
        assert first == again == Checkpoint(lease, spec.id, 0, first.digest)
        (tmp_path / "gate-end").touch()
        await hub.finish(spec, 1)


async def test_a_task_can_not_pass_off_a_file_of_the_owner_as_its_checkpoint(hub, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not read")

    def cheat(how):
        from fallow.slot import task
        from fallow.slot.protocol import SAVED

        desk = task._desk
        link = os.path.join(os.path.dirname(desk._folder), "link")
        os.symlink(secret, link)
        desk._send(SAVED, 0, (link if how == "link" else str(secret)).encode())
        while how == "path" or os.path.lexists(link):
            time.sleep(0.001)

    async with hub.node():
        spec = hub.job(["map"], [cheat], ["link"])
        await hub.run(spec, 1)
        spec = hub.job(["map"], [cheat], ["path"])
        await hub.run(spec, 1)
        assert hub.failures(spec)[0].kind == "crashed"
        assert not hub.all(BlobOffer)
    assert secret.read_text() == "do not read"


async def test_running_tasks_tell_how_far_they_are_before_the_next_heartbeat_is_due(hub, tmp_path):
    def run(_):
        import fallow

        fallow.progress(0.7, "warm")
        while not (tmp_path / "end").exists():
            time.sleep(0.001)

    hub.welcome = type(hub.welcome)(hub.welcome.version, 1, "test", heartbeat_s=1000, idle_heartbeat_s=1000)
    spec = hub.job(["map"], [run], [0])
    async with hub.node():
        hub.grant(spec, 0, 1)
        said = lambda: [(task.index, task.fraction, task.message) for beat in hub.all(Beat) for task in beat.running]
        await hub.until(lambda: (0, 0.7, "warm") in said(), said)
        (tmp_path / "end").touch()
        await hub.finish(spec, 1)


async def test_a_checkpoint_is_fetched_once_for_tasks_that_are_tried_again_here(hub, put, tmp_path):
    def run(_):
        import fallow

        (tmp_path / str(len(os.listdir(tmp_path)))).touch()
        if (tmp_path / "end").exists():
            return (fallow.checkpoint() / "state").read_text()
        raise ValueError

    digest = put("state")
    spec = hub.job(["map"], [run], [0])
    async with hub.node():
        grant(hub, spec, 0, 1, i0=digest)
        await hub.finish(spec, 1)
        (tmp_path / "end").touch()
        spec = hub.job(["map"], [run], [0])
        grant(hub, spec, 0, 1, i0=digest)
        await hub.finish(spec, 1)
    assert hub.values(spec) == {0: "state"}
    assert len([frame for frame in hub.all(BlobWanted) if frame.digest == digest]) <= 2


async def test_the_checkpoint_of_a_task_that_has_ended_since_is_not_offered(hub):
    spec = hub.job(["map"], [abs], [0])
    async with hub.node() as agent:
        checkpoints = agent._checkpoints
        checkpoints._newest[spec.id, 0] = 1
        checkpoints._offer(Checkpoint(1, spec.id, 0, "e" * 64))
        checkpoints.ended(spec.id, 0, 1)  # its result came in the same turn of the loop
        await hub.run(spec, 1)
    assert hub.all(BlobOffer) == []  # of a file that is gone
