"""Slots in containers of an image: functions and programs, crashes, images that can't be had, an agent that is killed."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fallow.link.frames import NodeHello
from fallow.model.containment import Containment, parse_limits
from fallow.model.requirements import Requirements

pytestmark = [pytest.mark.slow, pytest.mark.service("dockerd"), pytest.mark.usefixtures("docker")]

IMAGE = "fallow-test:python"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def contained(hub, function, *calls, image=IMAGE, archive=None, python=PYTHON, limits=None, **fields):
    """Make a job that calls a function in an image."""
    return hub.job(
        ["call"],
        [function],
        calls=[(call, {}) for call in calls or [()]],
        requirements=Requirements(sandbox="container"),
        containment=Containment(image=image, image_archive=archive, python=python, limits=parse_limits(limits)),
        **fields,
    )


async def run(hub, job, tasks=1):
    """Return the values, or the one failure."""
    await hub.run(job, tasks)
    failures = hub.failures(job)
    return next(iter(failures.values())) if failures else list(hub.values(job).values())


def make_look():
    """Return a function that travels by value."""

    def look():
        import os

        return os.path.exists("/etc/fstab"), os.environ["HOSTNAME"]

    return look


look = make_look()


async def test_functions_run_in_an_image_and_its_slots_stay_warm(hub, docker):
    async with hub.node():
        job = contained(hub, look, (), ())
        (first, second) = await run(hub, job, 2)
        assert first == second
        assert first[0] is False
        digest = docker.inspect_image(IMAGE)["Id"]
        assert f"fallow: {IMAGE} is {digest} on tester" in hub.printed(job)[0]
        assert await run(hub, contained(hub, look)) == [first]  # another job, the same container


async def test_an_image_comes_along_with_a_job(hub, docker, image_tar):
    digest = hub.put(image_tar.read_bytes())
    async with hub.node():
        job = contained(hub, look, image=None, archive=digest)
        (found,) = await run(hub, job)
        assert found[0] is False
        assert "the image archive is sha256:" in hub.printed(job)[0]
    docker.remove_image(f"fallow-image:{digest}")


async def test_an_owner_lets_nothing_run_outside_of_a_container(hub, docker):
    """What asks for no image has the node's own system in it."""

    def where():
        import os
        import sys

        return os.environ["HOSTNAME"], os.path.exists("/etc/shadow"), sys.prefix

    async with hub.node(sandbox=None, min_sandbox="container"):
        (hello,) = hub.all(NodeHello)
        assert hello.info.sandboxes == ("container",)
        assert hello.info.notes["sandbox bubblewrap"] == "weaker than the owner allows: at least container"
        plain = hub.job(["call"], [where], calls=[((), {}), ((), {})])
        (name, sees_shadow, prefix), again = await run(hub, plain, 2)
        assert (sees_shadow, prefix) == (False, sys.prefix)
        assert again == (name, sees_shadow, prefix)
        assert any(each["Id"].startswith(name) for each in docker.containers())
        other = await run(hub, contained(hub, look))
        assert other[0][0] is False
        assert other[0][1] != name


async def test_tmp_is_as_large_as_the_limit_of_disk(hub):
    def fill(most):
        import os

        facts, written, told = os.statvfs("/tmp"), 0, None
        try:
            with open("/tmp/fill", "wb", buffering=0) as file:
                while written < most:
                    written += file.write(b"x" * 1_000_000)
        except OSError as error:
            told = error.strerror
        return facts.f_blocks * facts.f_frsize, written, told

    async with hub.node():
        got = await run(hub, contained(hub, fill, (30_000_000,), limits={"disk": "20MB"}))
        assert isinstance(got, list), got
        ((size, written, told),) = got
        assert 20_000_000 <= size < 20_010_000
        assert (written, told) == (size, "No space left on device")
        assert await run(hub, contained(hub, fill, (30_000_000,))) == [(1 << 30, 30_000_000, None)]


async def test_a_program_runs_in_an_image(hub):
    program = {
        "command": ["python3", "-c", "import sys; print('x is', sys.argv[1]); open('out','w').write('y')", "{x}"]
    }
    program |= {"outputs": ["out"]}
    async with hub.node():
        job = hub.job(
            ["run"],
            json.dumps(program),
            items=[{"x": 7}],
            codec="json",
            requirements=Requirements(sandbox="container"),
            containment=Containment(image=IMAGE),
        )
        await hub.run(job, 1)
        assert hub.failures(job) == {}
        (page,) = hub.result_pages(job)
        assert b"x is 7" in page.data


async def test_what_a_task_prints_comes_whichever_way_it_went(hub):
    def talk():
        import os
        import subprocess
        import sys

        print("printed")
        os.write(1, b"written\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)

    async with hub.node():
        job = contained(hub, talk)
        await run(hub, job)
        words = ("printed\n", "written\n", "by a child\n")
        await hub.until(lambda: all(word in hub.printed(job).get(0, "") for word in words), lambda: hub.printed(job))


async def test_a_slot_that_dies_is_told_as_any_other(hub):
    def die(how):
        import ctypes
        import os

        if how == "exit":
            os._exit(7)
        if how == "segfault":
            ctypes.string_at(0)
        os.kill(os.getpid(), how)

    async with hub.node():
        for how, code, name in (("exit", 7, None), ("segfault", None, "SIGSEGV"), (signal.SIGKILL, None, "SIGKILL")):
            failure = await run(hub, contained(hub, die, (how,)))
            assert (failure.kind, failure.exit_code, failure.signal) == ("crashed", code, name)
            assert failure.peak_memory_bytes > 1_000_000
        assert "Fatal Python error: Segmentation fault" in hub.failures(hub.specs[f"{2:032x}"])[0].output


@pytest.mark.parametrize(
    ("image", "python", "words"),
    [
        ("127.0.0.1:9/none:1", PYTHON, "the image 127.0.0.1:9/none:1 is neither here nor to be pulled: "),
        (IMAGE, "3.99", f"the image has to have Python 3.99 on its PATH to run tasks, but has Python {PYTHON}"),
        ("bare", None, "Python 3.11 or newer on its PATH to run tasks, but has none: "),
    ],
)
async def test_an_image_that_will_not_do_is_one_clear_error(hub, docker, image, python, words, tmp_path):
    if image == "bare":
        subprocess.run(["tar", "-cf", tmp_path / "bare.tar", "-C", "/", "etc/hostname"], check=True)
        docker.import_image(str(tmp_path / "bare.tar"), repository="bare", tag="latest")
    async with hub.node():
        failure = await run(hub, contained(hub, look, image=image, python=python))
        assert failure.kind == "environment"
        assert words in failure.message
        ((has_fstab, _),) = await run(hub, contained(hub, look))
        assert not has_fstab  # the node is fine


async def test_an_archive_that_unpacks_outside_is_one_clear_error(hub, tmp_path):
    (tmp_path / "x").touch()
    subprocess.run(["tar", "-cPf", tmp_path / "a.tar", "--transform=s,.*,../../x,", tmp_path / "x"], check=True)
    async with hub.node():
        job = contained(hub, look, image=None, archive=hub.put((tmp_path / "a.tar").read_bytes()))
        failure = await run(hub, job)
        assert failure.kind == "environment"
        assert "holds '../../x', which lies outside of it" in failure.message


AGENT = """
import asyncio, sys
from pathlib import Path
from fallow.link.memory import memory_pair
from fallow.model.containment import Containment
from fallow.node.dispatcher import Dispatcher
from fallow.node.off_loop import OffLoop
from fallow.node.sandbox import Launch
from fallow.node.sandboxes.container import ContainerSandbox
from fallow.node.settings import NodeSettings
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_process import SlotProcess

class Owner:
    def slot_ready(self, slot):
        print("ready", flush=True)
    def slot_died(self, slot, code, name):
        print("died", code, name, slot.tail(-1), flush=True)

async def main(folder):
    sandbox = ContainerSandbox(folder)
    print(await sandbox.obstacle(), flush=True)
    if len(sys.argv) > 2:
        slot = SlotProcess(Owner(), 1, SlotKind(sandbox="container"), folder / "slots" / "1")
        slot.start(sys.executable, sandbox, NodeSettings(folder=folder, name="killed", memory_bytes=1 << 30))
        await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_containers_end_with_an_agent_that_is_killed_and_are_removed_by_the_next(docker, tmp_path):
    command = [sys.executable, "-c", AGENT, tmp_path]
    agent = subprocess.Popen([*command, "start"], stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout.readline() == "None\n"
        assert agent.stdout.readline() == "ready\n"
        (running,) = docker.containers()
        pid = docker.inspect_container(running["Id"])["State"]["Pid"]
        (slot,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        os.kill(slot, signal.SIGSTOP)  # it can't notice
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()
    deadline = time.monotonic() + 60
    while docker.containers():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(docker.containers(all=True)) == 1
    assert subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout == "None\n"
    assert docker.containers(all=True) == []


@pytest.fixture
def memory(tmp_path):
    """A folder in memory: hundreds of packages are synced to the disk otherwise, one by one."""
    place = tmp_path / "memory"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "fallow-test", place], check=True)
    yield place
    subprocess.run(["umount", "--recursive", place], check=True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_an_image_made_by_debootstrap_serves_tasks(docker, memory):
    """As an administrator would make one; the whole way, with a grid."""
    root = memory / "root"
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    suite = release["VERSION_CODENAME"].strip('"')
    made = ["debootstrap", "--variant=minbase", "--include=python3", suite, root]
    done = subprocess.run(made, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        docker.import_image_from_data(tar.stdout.read(), repository="debian-made-here", tag="1")
    script = f"""
        import platform, sys
        from fallow import Grid
        with Grid(slots=1) as grid:
            command = ["python3", "-c", "import platform; print(platform.freedesktop_os_release()['ID'])"]
            (result,) = grid.run(command, container="debian-made-here:1")
            print(result.stdout.strip())
            if "{suite}" == "bookworm" and sys.version_info[:2] == (3, 11):
                print(*grid.map(lambda x: x * x, range(3), container="debian-made-here:1"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "debian", done.stdout + done.stderr
    if suite == "bookworm" and sys.version_info[:2] == (3, 11):
        assert done.stdout.splitlines()[1] == "0 1 4"
