"""What Landlock keeps a task from: less than namespaces do, and this much."""

import asyncio
import ctypes
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fallow.link.frames import NodeHello
from fallow.slot import seccomp
from fallow.slot.confine import landlock_version

pytestmark = pytest.mark.slow

PER_LINUX32 = 8


@pytest.fixture
def level():
    return "confined"


@pytest.fixture(autouse=True)
def kernel():
    if not landlock_version():
        pytest.skip("this kernel has no Landlock; test_probing sees that this is said")


async def test_files_outside_can_be_neither_read_nor_written_nor_changed(contained, hostile, tmp_path, monkeypatch):
    secret = tmp_path / "diary"
    secret.write_text("the owner's")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the owner's")
    async with contained.node():
        folder = tmp_path / "node"
        paths = [
            secret,
            tmp_path,
            Path.home(),
            folder,
            folder / "node-id",
            folder / "spool",
            "/etc/shadow",
            "/etc/passwd",
            "/tmp",
            "/var",
        ]
        assert await contained.run(hostile.read, [str(path) for path in paths]) == []
        paths = [
            tmp_path,
            folder,
            folder / "cache",
            folder / "sources",
            Path.home(),
            "/tmp",
            "/dev/shm",
            "/usr",
            "/etc",
            "/",
        ]
        assert await contained.run(hostile.write, [str(path) for path in paths]) == []
        changed = await contained.run(hostile.change_files, [str(secret)])
        assert {what for what, _ in changed} <= {"chmod", "touch"}  # Landlock does not look after these
        assert secret.read_text() == "the owner's"
        assert await contained.run(hostile.read_environment, ["the owner's"]) == []
        assert await contained.run(lambda: __import__("subprocess").run(["cat", str(secret)]).returncode) != 0
        place = contained.hub.slots()[0].process.folder
        assert await contained.run(hostile.where) != []
        assert await contained.run(hostile.write, [str(place)]) == [str(place / "written-by-a-task")]


async def test_signals_and_abstract_sockets_stay_inside(contained, hostile, tmp_path):
    if landlock_version() < 6:
        pytest.skip("this kernel's Landlock knows no scopes")
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander,
        socket.socket(socket.AF_UNIX) as hidden,
    ):
        hidden.bind(f"\0fallow-test-{os.getpid()}")
        hidden.listen()
        async with contained.node():
            assert [
                each for each in await contained.run(hostile.see_processes, [bystander.pid]) if each[0] == "kill"
            ] == []
            assert await contained.run(hostile.connect, [f"@fallow-test-{os.getpid()}"]) == []
        assert bystander.poll() is None
        bystander.stdin.close()


async def answer_datagrams(listener):
    """Answer whoever writes."""
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        data, address = await loop.sock_recvfrom(listener, 100)
        await loop.sock_sendto(listener, b"heard " + data, address)


async def test_no_socket_leaves_the_computer_unless_the_network_is_asked_for(contained, hostile):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard, socket.create_server(("127.0.0.1", 0)) as server:
        heard.bind(("127.0.0.1", 0))
        answering = asyncio.create_task(answer_datagrams(heard))
        async with contained.node():
            assert await contained.run(hostile.send_datagram, heard.getsockname()) == "PermissionError"
            assert await contained.run(hostile.send_datagram, heard.getsockname(), network=False) == "PermissionError"
            assert {family for family, _ in await contained.run(hostile.open_sockets)} == {"AF_UNIX"}
            refused = await contained.run(hostile.connect, [server.getsockname()])
            assert (refused.kind, refused.type_name) == ("raised", "PermissionError")
            assert await contained.run(hostile.send_datagram, heard.getsockname(), network=True) == b"heard out"
            families = {family for family, _ in await contained.run(hostile.open_sockets, network=True)}
            assert {"AF_UNIX", "AF_INET"} <= families <= {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def test_system_calls_that_tasks_have_no_use_for_are_refused(contained, hostile):
    async with contained.node():
        assert await contained.run(hostile.call_kernel) == []
        assert await contained.run(hostile.tamper_with_kernel) == []
        assert await contained.run(hostile.call_kernel, network=True) == []


async def test_it_has_no_rights_of_roots_no_dumps_and_bounded_files(contained, hostile):
    async with contained.node():
        limits, capabilities, no_new_privileges, filtered = await contained.run(hostile.limits_and_rights)
        assert limits["CORE"] == (0, 0)
        assert 0 < limits["NOFILE"][0] <= limits["NOFILE"][1] <= 65536
        assert limits["FSIZE"] == resource.getrlimit(resource.RLIMIT_FSIZE)
        assert (capabilities, no_new_privileges, filtered) == (0, "1", "2")
        assert int(await contained.run(hostile.become_root_again), 16) == 0
        limits, *_ = await contained.run(hostile.limits_and_rights, limits={"disk": "20MB"})
        assert limits["FSIZE"] == (20_000_000 + (1 << 30),) * 2


async def test_threads_children_and_pools_go_on_working(contained):
    def work():
        import asyncio
        import concurrent.futures
        import subprocess
        import threading

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            squares = list(pool.map(lambda x: x * x, range(3)))
        thread = threading.Thread(target=squares.append, args=(9,))
        thread.start()
        thread.join()

        async def shell():
            process = await asyncio.create_subprocess_exec("echo", "a child", stdout=subprocess.PIPE)
            return (await process.communicate())[0]

        return squares, asyncio.run(shell())

    async with contained.node():
        assert await contained.run(work) == ([0, 1, 4, 9], b"a child\n")


@pytest.fixture
def other_architecture():
    """A computer that says of itself that it is another: its system calls are not known."""
    personality = ctypes.CDLL(None).personality
    before = personality(0xFFFFFFFF)
    personality(before | PER_LINUX32)
    yield os.uname().machine
    personality(before)


async def test_where_system_calls_can_not_be_refused_the_node_says_so_and_runs_tasks(
    contained, hub, hostile, other_architecture
):
    if other_architecture in seccomp.ARCHITECTURES:
        pytest.skip("this kernel knows one architecture only")
    async with contained.node():
        (hello,) = hub.all(NodeHello)
        assert "confined" in hello.info.sandboxes
        assert hello.info.notes["sandbox confined"] == (
            "works, but tasks reach the network and can make any system call:"
            f" the system calls of {other_architecture} are not known"
        )
        _, capabilities, _, filtered = await contained.run(hostile.limits_and_rights)
        assert (capabilities, filtered) == (0, "0")
