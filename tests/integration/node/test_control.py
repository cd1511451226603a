"""Order, recalls, cancels, reconnects, stopping and starting again."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from fallow.link.frames import (
    PROTOCOL_VERSION,
    Beat,
    BlobChunk,
    BlobMissing,
    BlobOffer,
    BlobWanted,
    Cancel,
    Done,
    Forget,
    NodeChanged,
    NodeHello,
    Presents,
    Recall,
    Refused,
    Returned,
    TaskBroke,
    Welcome,
)  # fmt: skip
from fallow.model.errors import BadRequest, Denied, StateInUse
from fallow.model.ranges import RangeSet
from fallow.model.requirements import Requirements
from fallow.node import agent as agent_module
from fallow.node import blobs as blobs_module
from fallow.node.agent import Agent
from fallow.scheduler.settings import SchedulerSettings

pytestmark = pytest.mark.slow
OVER_ALL_CHANNELS = True


def gate(folder, name="gate"):
    """A function that waits until the file is there, and says that it has begun."""
    path = str(folder / name)

    def wait(x):
        open(f"{path}-{x}", "w").close()
        while not os.path.exists(path):
            time.sleep(0.002)
        return x

    return wait, Path(path)


def begun(path, index):
    return Path(f"{path}-{index}").exists()


async def test_urgent_leases_go_first(hub, tmp_path):
    wait, door = gate(tmp_path)
    first = hub.job(["map"], [wait], range(1))
    order = str(tmp_path / "order")

    def note(x):
        with open(order, "a") as file:
            file.write(f"{x}\n")

    jobs = [hub.job(["map"], [note], [p], priority=p) for p in (0, 5, 2)]
    async with hub.node():
        hub.grant(first, 0, 1)
        await hub.until(lambda: begun(door, 0))
        for job in jobs:
            hub.grant(job, 0, 1)
        held = hub.agent._dispatcher._jobs
        await hub.until(lambda: all((known := held.get(job.id)) and known.is_ready for job in jobs))
        door.touch()
        for job in jobs:
            await hub.finish(job, 1)
    assert Path(order).read_text().split() == ["5", "2", "0"]


async def test_a_task_of_two_cores_leaves_the_other_slot_idle(hub, tmp_path):
    wait, door = gate(tmp_path)
    wide = hub.job(["map"], [wait], range(1), requirements=Requirements(cores=2))
    narrow = hub.job(["map"], [wait], range(1))
    async with hub.node(slots=2, cores=2):
        hub.grant(wide, 0, 1)
        await hub.until(lambda: begun(door, 0))
        Path(f"{door}-0").unlink()
        hub.grant(narrow, 0, 1)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not begun(door, 0)
        door.touch()
        await hub.finish(narrow, 1)


async def test_memory_is_reserved_as_cores_are(hub, tmp_path):
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [wait], range(2), requirements=Requirements(memory_bytes=6 << 30))
    async with hub.node(slots=2, cores=2, memory_bytes=8 << 30):
        hub.grant(spec, 0, 2)
        await hub.until(lambda: begun(door, 0))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not begun(door, 1)
        door.touch()
        await hub.finish(spec, 2)


async def test_recall_gives_back_unstarted_tasks_from_the_end(hub, tmp_path):
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [wait], range(10))
    async with hub.node():
        lease = hub.grant(spec, 0, 10)
        await hub.until(lambda: begun(door, 0))
        hub.send(Recall(lease, 4))
        (one,) = await hub.until(lambda: hub.all(Returned))
        assert one == Returned(lease, spec.id, (6, 10))
        hub.send(Recall(lease, 100))
        await hub.until(lambda: len(hub.all(Returned)) == 2)
        assert hub.all(Returned)[1].unstarted == (1, 6)
        hub.send(Recall(lease, 1))
        await hub.until(lambda: len(hub.all(Returned)) == 3)
        assert hub.all(Returned)[2].unstarted == ()
        door.touch()
        await hub.finish(spec, 1)
    assert hub.values(spec) == {0: 0}


async def test_cancel_kills_the_task_that_runs_and_requeues_its_neighbours(hub, tmp_path):
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [lambda x, wait=wait: wait(x) if x == 2 else x], range(6))
    async with hub.node():
        await hub.slots_ready()
        pid = hub.slots()[0].process.pid
        hub.grant(spec, 0, 6)
        await hub.until(lambda: begun(door, 2))
        hub.send(Cancel(spec.id, (2, 3)))
        await hub.until(lambda: len(hub.values(spec)) == 5, lambda: hub.values(spec))
        assert hub.slots()[0].process.pid != pid
        assert not hub.all(TaskBroke)
    assert set(hub.values(spec)) == {0, 1, 3, 4, 5}


async def test_cancelling_a_whole_job_ends_it_and_others_go_on(hub, tmp_path):
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [wait], range(1000))
    other = hub.job(["map"], [abs], range(10))
    async with hub.node():
        hub.grant(spec, 0, 1000)
        await hub.until(lambda: begun(door, 0))
        hub.grant(other, 0, 10)
        hub.send(Cancel(spec.id))
        await hub.finish(other, 10)
        hub.send(Forget(spec.id))
    assert not hub.values(spec)


async def test_heartbeats_name_running_tasks_and_leases(hub, tmp_path):
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [wait], range(3))
    hub.welcome = Welcome(PROTOCOL_VERSION, 1, "test", heartbeat_s=0.02, idle_heartbeat_s=1000)
    async with hub.node():
        lease = hub.grant(spec, 0, 3)
        await hub.until(lambda: begun(door, 0))
        beat = await hub.until(
            lambda: next((b for b in hub.all(Beat) if b.running and b.running[0].running_s > 0.02), None)
        )
        assert beat.leases == (lease,)
        assert (beat.running[0].lease, beat.running[0].index) == (lease, 0)
        door.touch()
        await hub.finish(spec, 3)


async def test_an_idle_node_beats_at_an_interval_of_its_own(hub):
    hub.welcome = Welcome(PROTOCOL_VERSION, 1, "test", heartbeat_s=1000, idle_heartbeat_s=0.02)
    async with hub.node():
        beats = await hub.until(lambda: len(hub.all(Beat)) >= 5 and hub.all(Beat))
        assert all(beat == Beat((), ()) for beat in beats)


def test_nodes_beat_as_often_as_the_scheduler_expects():
    told, expected = Welcome(PROTOCOL_VERSION, 1, "test"), SchedulerSettings()
    assert (told.heartbeat_s, told.idle_heartbeat_s) == (expected.heartbeat_s, expected.idle_heartbeat_s) == (5.0, 30.0)
    assert expected.missed_beats == 3


async def test_after_a_reconnect_results_come_first_then_the_leases(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(agent_module, "FIRST_BACKOFF_S", 0.01)
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [lambda x, wait=wait: x if x < 1 else wait(x)], range(5))
    hub.acknowledges = False
    async with hub.node():
        lease = hub.grant(spec, 0, 5)
        await hub.until(lambda: begun(door, 1) and len(hub.settled(spec)) == 1)
        hub.got.clear()
        hub.cut()
        await hub.until(lambda: hub.all(Presents))
        kinds = [type(frame) for frame in hub.got]
        assert kinds.index(NodeHello) < kinds.index(Done) < kinds.index(Presents)
        assert len(hub.settled(spec)) == 1
        (held,) = hub.all(Presents)[0].leases
        assert (held.id, held.unfinished) == (lease, (1, 5))
        hub.acknowledges = True
        door.touch()
        await hub.finish(spec, 5)
    assert hub.connections == 2


async def test_work_goes_on_while_the_hub_is_away(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(agent_module, "FIRST_BACKOFF_S", 0.01)
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [lambda x, wait=wait: wait(x) if x == 0 else (os._exit(1) if x == 7 else x)], range(20))
    async with hub.node() as agent:
        hub.grant(spec, 0, 20)
        await hub.until(lambda: begun(door, 0))
        hub.is_up = False
        hub.cut()
        await hub.until(lambda: agent._link is None)
        door.touch()
        await hub.until(lambda: not agent._dispatcher.has_leases)
        hub.is_up = True
        await hub.finish(spec, 20)
    assert hub.values(spec) == {i: i for i in range(20) if i != 7}
    assert hub.failures(spec)[7].kind == "crashed"


async def test_a_damaged_link_resumes_a_blob_where_it_broke_off(hub, monkeypatch):
    monkeypatch.setattr(agent_module, "FIRST_BACKOFF_S", 0.01)
    table = np.arange(200_000)
    spec = hub.job(["map"], [lambda i: int(table[i])], range(3))
    data = hub.blobs[spec.function]
    hub.serves_blobs = False
    async with hub.node():
        hub.grant(spec, 0, 3)
        await hub.until(lambda: hub.all(BlobWanted))
        hub.send(BlobChunk(spec.function, 0, len(data), data[:500_000]))
        part = hub.folder / "node" / "cache" / "partial" / spec.function
        await hub.until(lambda: part.stat().st_size == 500_000)
        hub.serves_blobs = True
        hub.cut()
        await hub.finish(spec, 3)
    assert [wanted.offset for wanted in hub.all(BlobWanted)] == [0, 500_000]


async def test_a_damaged_blob_is_fetched_again(hub):
    spec = hub.job(["map"], [abs], range(3))
    data = hub.blobs[spec.function]
    hub.serves_blobs = False
    async with hub.node():
        hub.grant(spec, 0, 3)
        await hub.until(lambda: hub.all(BlobWanted))
        hub.send(BlobChunk(spec.function, 0, len(data), bytes(len(data))))
        hub.serves_blobs = True
        await hub.finish(spec, 3)


async def test_a_result_whose_blob_was_not_kept_before_the_cut_comes_after_it(hub, monkeypatch):
    monkeypatch.setattr(agent_module, "FIRST_BACKOFF_S", 0.01)
    spec = hub.job(["map"], [lambda i: bytes(2_000_000)], range(1))
    keep = hub.on_frame
    offers = []

    def deaf(frame):
        if type(frame).__name__ == "BlobOffer" and not offers:
            offers.append(frame)
            return
        keep(frame)

    hub.on_frame = deaf
    async with hub.node():
        lease = hub.grant(spec, 0, 1)
        await hub.until(lambda: offers)
        hub.cut()
        await hub.finish(spec, 1)
        presents = hub.all(Presents)[-1]
        assert presents.leases[0].id == lease
    assert hub.values(spec)[0] == bytes(2_000_000)


async def test_a_large_result_waits_for_room_at_the_hub(hub, monkeypatch):
    monkeypatch.setattr(agent_module, "HOUSEKEEPING_S", 0.01)
    spec = hub.job(["map"], [lambda i: bytes(2_000_000)], range(1))
    take = hub.on_frame
    refused = []

    def full(frame):
        if type(frame).__name__ == "BlobOffer" and len(refused) < 3:
            refused.append(frame)
            hub.send(Refused("hub_full", "no room for a blob"))
        else:
            take(frame)

    hub.on_frame = full
    async with hub.node():
        await hub.run(spec, 1)
    assert len(refused) == 3


async def test_a_hub_whose_store_is_out_of_reach_is_asked_and_offered_again(hub, monkeypatch):
    monkeypatch.setattr(blobs_module, "STORE_RETRY_S", 0.01)
    monkeypatch.setattr(blobs_module, "FULL_RETRY_S", 0.01)
    spec = hub.job(["map"], [lambda i: bytes(2_000_000)], range(1))
    take = hub.on_frame
    refused = []

    def out_of_reach(frame):
        kind = type(frame)
        if kind in {BlobWanted, BlobOffer} and refused.count(kind) < 3:
            refused.append(kind)
            hub.send(BlobMissing(frame.digest, "the object store can't be reached", "unavailable"))
        else:
            take(frame)

    hub.on_frame = out_of_reach
    async with hub.node():
        await hub.run(spec, 1)
    assert refused.count(BlobWanted) == refused.count(BlobOffer) == 3
    assert hub.values(spec) == {0: bytes(2_000_000)}


async def test_attempts_to_connect_come_at_doubled_and_jittered_intervals(hub, monkeypatch):
    waits, spans = [], []
    wait_for = asyncio.wait_for

    async def brief(work, timeout):
        waits.append(timeout)
        return await wait_for(work, timeout * 1e-4)

    def middle(low, high):
        spans.append((low, high))
        return 1.0

    monkeypatch.setattr(agent_module.asyncio, "wait_for", brief)
    monkeypatch.setattr(agent_module.random, "uniform", middle)
    hub.is_up = False
    agent = Agent(hub.settings(probes=False), hub.connect)  # which would wait, too
    running = asyncio.create_task(agent.run())
    try:
        await hub.until(lambda: len(waits) >= 10, lambda: waits)
        assert waits[:10] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0])
        assert set(spans) == {(0.5, 1.5)}
        hub.is_up = True
        await hub.until(lambda: agent._is_welcome)
        hub.is_up = False
        waits.clear()
        hub.cut()
        await hub.until(lambda: len(waits) >= 4, lambda: waits)
        assert waits[1:4] == pytest.approx([0.2, 0.4, 0.8])  # the first is for the link to close
    finally:
        await agent.stop()
        await running


async def test_a_refused_token_is_not_tried_again(hub):
    async def refuse():
        raise Denied

    agent = Agent(hub.settings(), refuse)
    with pytest.raises(Denied):
        await agent.run()


async def test_a_refused_hello_says_why(hub):
    hub.welcomes = False
    agent = Agent(hub.settings(), hub.connect)
    running = asyncio.create_task(agent.run())
    await hub.until(lambda: hub.all(NodeHello))
    hub.send(Refused("bad_request", "this node speaks protocol 1, the hub 2"))
    with pytest.raises(BadRequest, match="protocol"):
        await running


async def test_ctrl_c_in_the_agents_terminal_disturbs_no_task(hub, tmp_path):
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [wait], range(2))
    async with hub.node():
        hub.grant(spec, 0, 2)
        await hub.until(lambda: begun(door, 0))
        pid = hub.slots()[0].process.pid
        os.kill(pid, signal.SIGINT)
        door.touch()
        await hub.finish(spec, 2)
        assert hub.slots()[0].process.pid == pid
    assert hub.values(spec) == {0: 0, 1: 1}
    assert not hub.all(TaskBroke)


async def test_two_agents_do_not_share_a_folder(hub):
    async with hub.node():
        second = Agent(hub.settings(), hub.connect)
        with pytest.raises(StateInUse, match="another node's agent"):
            await second.run()
        await hub.run(hub.job(["map"], [abs], range(3)), 3)


async def test_stop_kills_slots_and_what_tasks_started_and_gives_leases_back(hub, tmp_path):
    wait, door = gate(tmp_path)

    def start_child(x):
        for new_session in (False, True):
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=new_session
            )
            with open(f"{door}-children", "a") as file:
                file.write(f"{child.pid}\n")
        wait(x)

    spec = hub.job(["map"], [start_child], range(10))
    async with hub.node() as agent:
        lease = hub.grant(spec, 0, 10)
        await hub.until(lambda: begun(door, 0))
        pids = [int(pid) for pid in Path(f"{door}-children").read_text().split()]
        pids += [slot.process.pid for slot in hub.slots()]
        await agent.stop()
        for pid in pids:
            await hub.until_ended(pid)
    assert hub.all(Returned)[-1] == Returned(lease, spec.id, (0, 10))
    assert not (hub.folder / "node" / "slots").exists()


async def test_draining_finishes_what_runs_and_gives_the_rest_back(hub, tmp_path):
    wait, door = gate(tmp_path)
    spec = hub.job(["map"], [wait], range(10))
    async with hub.node() as agent:
        hub.grant(spec, 0, 10)
        await hub.until(lambda: begun(door, 0))
        stopping = asyncio.create_task(agent.stop(drain=True))
        await hub.until(lambda: hub.all(Returned))
        changed = hub.all(NodeChanged)[-1]
        assert not changed.accepting
        assert "stopped" in changed.reason
        door.touch()
        await stopping
    assert hub.values(spec) == {0: 0}
    assert hub.all(Returned)[0].unstarted == (1, 10)


async def test_a_full_disk_is_told_and_told_again_when_there_is_room(hub, monkeypatch):
    usage = shutil.disk_usage(hub.folder)
    monkeypatch.setattr(agent_module, "HOUSEKEEPING_S", 0.01)
    monkeypatch.setattr(agent_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    async with hub.node():
        changed = await hub.until(lambda: hub.all(NodeChanged))
        assert not changed[0].accepting
        assert "disk full" in changed[0].reason
        monkeypatch.setattr(agent_module.shutil, "disk_usage", lambda _: usage._replace(free=10 << 30))
        await hub.until(lambda: hub.all(NodeChanged)[-1].accepting)


async def test_slots_that_cannot_start_are_told_with_the_reason(hub, tmp_path):
    broken = tmp_path / "python"
    broken.write_text(
        f'#!/bin/sh\ncase "$1" in -c) exec {sys.executable} "$@";; esac\necho no luck today >&2; exit 3\n'
    )
    broken.chmod(0o755)
    async with hub.node(python=str(broken)):
        changed = await hub.until(lambda: [frame for frame in hub.all(NodeChanged) if not frame.accepting])
    assert "exit code 3: no luck today" in changed[0].reason


async def test_the_benchmark_is_published_once_joined(hub):
    async with hub.node(benchmark=True):
        changed = await hub.until(lambda: [frame for frame in hub.all(NodeChanged) if frame.info.score != 1.0])
    assert changed[0].accepting
    assert 0.01 < changed[0].info.score < 100


async def test_an_agent_that_stops_while_it_measures_leaves_no_process(hub, tmp_path):
    slow = tmp_path / "python"  # one that never ends its measurement
    slow.write_text(
        f'#!/bin/sh\ncase "$1" in -I) touch {tmp_path}/begun; exec sleep 1000;; esac\nexec {sys.executable} "$@"\n'
    )
    slow.chmod(0o755)
    async with hub.node(benchmark=True, python=str(slow)) as agent:
        await hub.until((tmp_path / "begun").exists)
        await agent.stop()
    assert agent._benchmark.done()


# --- an agent in a process of its own, to be killed --------------------------------------------

AGENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import Hub
from fallow.link.frames import Done

async def main():
    hub = Hub(Path(sys.argv[1]))
    hub.acknowledges = False
    folder = sys.argv[1]
    def f(x):
        if x == 50:
            import subprocess, time
            child = subprocess.Popen(["sleep", "1000"])
            with open(folder + "/writing", "w") as file:
                file.write(str(child.pid))
            import os
            os.rename(folder + "/writing", folder + "/child")
            time.sleep(1000)
        return x * x
    spec = hub.job(["map"], [f], range(100))
    async with hub.node():
        hub.grant(spec, 0, 100)
        await hub.until(lambda: len(hub.settled(spec)) >= 9 and (hub.folder / "child").exists())
        print(hub.slots()[0].process.pid, hub.all(Done)[0].job, len(hub.settled(spec)), flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_after_kill_9_nothing_is_left_running_and_results_come_from_the_spool(hub, tmp_path):
    here = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path), here], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            slot, job, count = process.stdout.readline().split()
            child = int((tmp_path / "child").read_text())
        finally:
            process.send_signal(signal.SIGKILL)
    for pid in (int(slot), child):
        await hub.until_ended(pid)
    async with hub.node():
        await hub.until(lambda: hub.all(Presents))
        settled = RangeSet()
        for done in hub.all(Done):
            assert done.job == job
            for page in done.pages:
                settled.add(page.start, page.stop)
        assert len(settled) >= int(count)  # it may have finished more before it died
        await hub.until(lambda: not list((tmp_path / "node" / "spool").iterdir()))


FORKING_AGENT = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import Hub

async def main():
    hub = Hub(Path(sys.argv[1]))
    async with hub.node():
        await hub.slots_ready()
        fork = os.fork()
        if fork == 0:
            signal.pause()
        print(hub.slots()[0].process.pid, fork, flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_slots_end_with_their_agent_even_if_a_fork_of_it_holds_their_pipes(tmp_path):
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING_AGENT, str(tmp_path), here], stdout=subprocess.PIPE, text=True
    )
    with process:
        slot, fork = (psutil.Process(int(pid)) for pid in process.stdout.readline().split())
        process.send_signal(signal.SIGKILL)
    try:
        assert slot.wait(60) is None  # not our child: its code is unknown
        assert fork.is_running()
    finally:
        fork.kill()


@pytest.mark.parametrize("spool", [True, False])
async def test_a_starting_agent_ends_what_its_predecessor_left(hub, tmp_path, spool):
    (tmp_path / "node").mkdir()
    orphan = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        started = psutil.Process(orphan.pid).create_time()
        pids = f"{orphan.pid} {started}\n{stranger.pid} {started - 1000}\ntorn li"
        (tmp_path / "node" / "pids").write_text(pids)
        left = tmp_path / "node" / "slots" / "1"
        left.mkdir(parents=True)
        (left / "left-over").write_text("x")
        async with hub.node(spool=spool):
            assert not psutil.pid_exists(orphan.pid)
            assert stranger.poll() is None
            assert not (left / "left-over").exists()
            listed = (tmp_path / "node" / "pids").read_text().split()
            assert listed[0] == str(hub.slots()[0].process.pid)
        assert not (tmp_path / "node" / "pids").exists()
    finally:
        for process in (orphan, stranger):
            process.kill()
            process.wait()


def test_it_runs_on_a_loop_in_another_thread_and_on_uvloop(hub):
    import threading

    uvloop = pytest.importorskip("uvloop")
    errors = []

    async def scenario(hub):
        spec = hub.job(["map"], [abs], range(1000))
        async with hub.node(slots=2, cores=2):
            await hub.run(spec, 1000)
            crash = hub.job(["map"], [lambda x: os._exit(1)], range(1))
            await hub.run(crash, 1)
        assert len(hub.values(spec)) == 1000

    def run(runner):
        try:
            runner(scenario(type(hub)(hub.folder, hub.channel)))
        except BaseException as error:
            errors.append(error)

    for runner in (asyncio.run, uvloop.run):
        thread = threading.Thread(target=run, args=(runner,))
        thread.start()
        thread.join()
    assert not errors, errors
