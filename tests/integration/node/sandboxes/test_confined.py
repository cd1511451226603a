"""What Landlock keeps a task from: less than namespaces do, and this much."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fallow.slot.confine import landlock_version

pytestmark = pytest.mark.slow


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
