"""What a task in a sandbox can't do, each tried for real."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from fallow.model.failure import Failure

pytestmark = pytest.mark.slow

SECRET = "the-owners-secret"


@pytest.fixture
def owner(tmp_path, monkeypatch):
    """An owner with a home, secrets in variables, and an agent with a token in a file."""
    home = Path.home() / f".fallow-test-{os.getpid()}"
    home.mkdir()
    (home / "diary").write_text(SECRET)
    (tmp_path / "token").write_text(SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("FALLOW_TOKEN", SECRET)
    yield home
    for path in home.iterdir():
        path.unlink()
    home.rmdir()


async def test_it_reads_nothing_of_the_owner_and_of_the_agent(contained, hostile, owner, tmp_path):
    async with contained.node(spool=True):
        folder = tmp_path / "node"
        (folder / "spool" / "kept").write_text(SECRET)
        other = folder / "slots" / "999"
        other.mkdir()
        (other / "result").write_text(SECRET)
        paths = [
            owner,
            owner / "diary",
            tmp_path / "token",
            "/etc/shadow",
            "/etc/passwd",
            "/etc/hostname",
            "/var/log",
            "/boot",
        ]
        paths += [
            folder / name
            for name in ("node-id", "spool", "spool/kept", "lock", "pids", "slots/999", "slots/999/result")
        ]
        paths += [Path.home() / name for name in (".ssh", ".config", ".bashrc", ".profile")]
        got = await contained.run(hostile.read, [str(path) for path in paths])
        assert [each for each in got if each[1] != "[]" and each[0] not in contained.made_up] == []
        assert await contained.run(hostile.walk_to_agent, str(folder)) == []
        assert await contained.run(hostile.read_environment, [SECRET, "AWS_SECRET", "FALLOW_TOKEN"]) == []


async def test_it_neither_sees_nor_signals_processes_outside(contained, hostile):
    with ExitStack() as stack:
        bystander = stack.enter_context(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
        async with contained.node(slots=2, cores=2):
            await contained.hub.slots_ready()
            pids = [os.getpid(), os.getppid(), bystander.pid, *(slot.process.pid for slot in contained.hub.slots())]
            pids = [pid for pid in pids if pid > 50]  # in there the numbers begin again
            assert await contained.run(hostile.see_processes, pids) == []
            assert await contained.run(hostile.count_processes) <= 4
            before = {slot.process.pid for slot in contained.hub.slots()}
            assert await contained.run(hostile.signal_all) == "alive"
            assert {slot.process.pid for slot in contained.hub.slots()} == before
            assert bystander.poll() is None
        bystander.stdin.close()


async def test_it_writes_nothing_outside_of_its_folder(contained, hostile, tmp_path):
    async with contained.node():
        kept = await contained.run(hostile.where)
        folder = tmp_path / "node"
        blob = (
            next(path for path in (folder / "cache").iterdir())
            if any((folder / "cache").iterdir())
            else folder / "node-id"
        )
        paths = [
            "/",
            "/usr",
            "/usr/lib",
            "/etc",
            "/home",
            "/root",
            "/run",
            "/var",
            "/dev",
            "/sys",
            "/proc",
            "/proc/sys/kernel",
        ]
        paths += [
            tmp_path,
            folder,
            folder / "cache",
            folder / "sources",
            folder / "slots",
            Path.home(),
            sys.prefix,
            sys.base_prefix,
        ]
        paths += [Path(__file__).parents[4] / "src" / "fallow"]
        got = await contained.run(hostile.write, [str(path) for path in paths])
        assert [path for path in got if not path.startswith("/tmp/")] == []  # the task's own /tmp has such folders too
        assert list(tmp_path.glob("*/written-by-a-task")) + list(tmp_path.glob("written-by-a-task")) == []
        program = Path(__file__).parents[4] / "src" / "fallow" / "slot" / "main.py"
        targets = ["/bin/sh", "/etc/hosts", "/etc/ld.so.cache", sys.executable, str(program), str(blob)]
        assert await contained.run(hostile.change_files, targets) == []
        assert await contained.run(hostile.tamper_with_kernel) == []
        assert await contained.run(hostile.where) == kept
        place = Path(kept[0])
        assert place.parent == folder / "slots"
        assert await contained.run(hostile.write, ["."]) == ["./written-by-a-task"]
        assert (place / "written-by-a-task").exists()


async def test_it_reaches_no_network_when_that_is_off(contained, hostile, tmp_path):
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((contained.address, 0)))
        hidden = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract = f"fallow-test-abstract-{os.getpid()}"
        hidden.bind(f"\0{abstract}")
        hidden.listen()
        plain = stack.enter_context(socket.socket(socket.AF_UNIX))
        plain.bind(str(tmp_path / "socket"))
        plain.listen()
        addresses = [server.getsockname(), f"@{abstract}", str(tmp_path / "socket"), ("192.0.2.1", 80)]
        accepting = [asyncio.create_task(answer(each)) for each in (server, hidden, plain)]
        async with contained.node():
            assert await contained.run(hostile.connect, addresses) == []
            assert await contained.run(hostile.connect, addresses, network=False) == []
            got = await contained.run(hostile.connect, addresses[:1], network=True)
            assert [tuple(where) for where, _ in got] == [server.getsockname()]
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)


async def answer(listener):
    """Greet whoever comes."""
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        with connection:
            await loop.sock_sendall(connection, b"hello")


def alive(marker):
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(
            marker in word for word in process.info["cmdline"] or ()
        ):
            found.append(process.pid)
    return found


async def test_nothing_that_it_starts_outlives_its_slot(contained, hostile):
    """However the slot ends: replaced, crashed, over its time, stopped with the agent."""
    mine = f"daemon-{os.getpid()}"  # the same test may run beside this one, of another kind of sandbox
    async with contained.node():
        await contained.run(hostile.outlive, f"{mine}-of-a-warm-slot", 0.05)
        assert alive(f"{mine}-of-a-warm-slot")
        died = await contained.run(hostile.outlive_and_die, f"{mine}-of-a-crash", 0.05)
        assert (died.kind, died.signal) == ("crashed", "SIGSEGV")
        assert "SIGSEGV" in died.message
        await contained.hub.until(lambda: not alive(f"{mine}-of-a-"))
        late = await contained.run(hostile.outlive_and_hang, f"{mine}-of-a-timeout", 0.05, timeout_s=2.0)
        assert late.kind == "timeout"
        await contained.hub.until(lambda: not alive(f"{mine}-of-a-"))
        await contained.run(hostile.outlive, f"{mine}-at-the-end", 0.05)
    await contained.hub.until(lambda: not alive(f"{mine}-at-the-end"))


async def test_it_leaves_no_files_behind(contained, hostile, tmp_path):
    before = set(os.listdir("/tmp")) | set(os.listdir("/dev/shm"))
    async with contained.node():
        assert await contained.run(hostile.litter) != []
        (slot,) = contained.hub.slots()
        place = slot.process.folder
        assert list(place.rglob("litter*"))
        slot.process.kill()
        await contained.hub.until(lambda: not place.exists())
        assert await contained.run(hostile.look_for_litter) == []
        await contained.run(hostile.litter)
    assert list(tmp_path.rglob("litter*")) == []
    assert not [
        each
        for each in set(os.listdir("/tmp")) | set(os.listdir("/dev/shm"))
        if "litter" in each and each not in before
    ]


async def test_over_its_memory_it_is_ended_and_reported_with_its_peak(contained, hostile):
    async with contained.node():
        fine = await contained.run(hostile.use_memory, 100_000_000, limits={"memory": "200MB"})
        assert fine == 20
        failure = await contained.run(hostile.use_memory, 2_000_000_000, limits={"memory": "200MB"})
        assert failure.kind == "limit"
        assert "limit of 200 MB of memory" in failure.message
        assert 150_000_000 < failure.peak_memory_bytes < 400_000_000
        failure = await contained.run(hostile.use_memory_in_children, 2_000_000_000, 4, limits={"memory": "200MB"})
        assert failure.kind == "limit"
        assert "memory" in failure.message
        assert await contained.run(hostile.where) is not None


async def test_over_its_processes_it_gets_no_more(contained, hostile, tmp_path):
    async with contained.node():
        failure = await contained.run(hostile.start_processes, 300, limits={"processes": 40})
        assert isinstance(failure, Failure)
        assert failure.kind == "limit"
        assert "limit of 40 processes" in failure.message
    await contained.hub.until(lambda: not alive(str(tmp_path)))


async def test_over_its_disk_space_it_is_ended(contained, hostile):
    async with contained.node():
        failure = await contained.run(hostile.fill_disk, 90_000_000, limits={"disk": "30MB"})
        assert failure.kind == "limit"
        assert "disk space" in failure.message
