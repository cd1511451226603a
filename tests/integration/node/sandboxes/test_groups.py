"""Control groups of slots: made below the agent's own, and gone with it, however it ended."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from fallow.model.containment import Containment, Limits
from fallow.node import cgroups
from fallow.node.limits import OWN_PROCESSES, Excess

pytestmark = pytest.mark.slow

DEADLINE_S = 60.0


@pytest.fixture
def groups(tmp_path):
    found, how = cgroups.find("fallow-test", may_move=False)
    if found is None:
        pytest.skip(how)
    return found


def existing(groups, folder):
    from hashlib import sha256

    name = f"{cgroups.PREFIX}-{sha256(os.fsencode(folder.absolute())).hexdigest()[:12]}-"
    return [path for parent in set(groups.parents.values()) for path in parent.glob(f"{name}*")]


async def test_a_slot_with_limits_has_a_group_that_goes_with_it(hub, groups, hostile):
    limits = Limits(memory_bytes=300_000_000, processes=30, cpus=1.5)
    async with hub.node():
        job = hub.job(["call"], [os.getpid], calls=[((), {})], containment=Containment(limits=limits))
        await hub.run(job, 1)
        (pid,) = hub.values(job).values()
        made = existing(groups, hub.folder / "node")
        assert len(made) == len(set(groups.parents.values()))
        assert all(str(pid) in (path / "cgroup.procs").read_text().split() for path in made)
        if groups.version == 1:
            assert (
                abs(int((groups.parents["memory"] / made[0].name / "memory.limit_in_bytes").read_text()) - 300_000_000)
                < 4096
            )
            assert (groups.parents["pids"] / made[0].name / "pids.max").read_text() == f"{30 + OWN_PROCESSES}\n"
            assert (groups.parents["cpu"] / made[0].name / "cpu.cfs_quota_us").read_text() == "150000\n"
        else:
            (group,) = made
            assert abs(int((group / "memory.max").read_text()) - 300_000_000) < 4096
            assert (group / "pids.max").read_text() == f"{30 + OWN_PROCESSES}\n"
            assert (group / "cpu.max").read_text() == "150000 100000\n"
        free = hub.job(["call"], [os.getpid], calls=[((), {})])
        await hub.run(free, 1)
        await hub.until(lambda: not existing(groups, hub.folder / "node"))
    assert not existing(groups, hub.folder / "node")


def test_groups_of_agents_that_were_killed_go_and_those_of_others_stay(groups):
    dead = psutil.Popen(["true"])
    dead.wait()
    parent = next(iter(groups.parents.values()))
    orphan = parent / f"fallow-other-{dead.pid}-1"
    others = parent / f"fallow-other-{os.getpid()}-1"
    ours = parent / f"fallow-test-{dead.pid}-7"
    for path in (orphan, others, ours):
        path.mkdir()
    try:
        cgroups.Cgroups(groups.version, groups.parents, "fallow-test").open()
        assert [path.exists() for path in (orphan, others, ours)] == [False, True, False]
    finally:
        for path in (orphan, others, ours):
            if path.exists():
                path.rmdir()


def test_an_excess_says_limit_and_peak():
    assert str(Excess("memory", 200_000_000, 215_000_000)) == "went over its limit of 200 MB of memory: it had 215 MB"
    assert str(Excess("processes", 64, None)) == "went over its limit of 64 processes and threads"
    assert (
        str(Excess("disk", 10**9, 1_100_000_000))
        == "went over its limit of 1 GB of disk space in its folder: it had 1.1 GB"
    )


def test_a_group_ends_what_forks_faster_than_it_is_killed(groups):
    group = groups.make(7, Limits(processes=50), OWN_PROCESSES)
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    with subprocess.Popen([*group.prefix(), sys.executable, "-c", bomb]):
        deadline = time.monotonic() + DEADLINE_S
        while not group.refused_processes():
            assert time.monotonic() < deadline
        assert len(group.processes()) > 10
        while not group.remove():
            assert time.monotonic() < deadline, group.processes()
    assert group.processes() == []


ALONE = """
import os, subprocess, sys
from fallow.model.containment import Limits
from fallow.node import cgroups
print(open("/proc/self/cgroup").read().rpartition(":")[2].strip())
found, how = cgroups.find("fallow-test", may_move=True)
print(how)
if found is None:
    sys.exit()
print(open("/proc/self/cgroup").read().rpartition(":")[2].strip())
again, how = cgroups.find("fallow-test", may_move=True)
print(again.parents == found.parents)
group = found.make(1, Limits(memory_bytes=100_000_000, processes=20, cpus=0.5), 8)
print(subprocess.run([*group.prefix(), "tail", "/dev/zero"]).returncode)
print(group.killed_for_memory(), 50_000_000 < group.peak_memory_bytes() <= 101_000_000)
many = "for each in $(seq 100); do sleep 600 & done"
print(subprocess.run([*group.prefix(), "sh", "-c", many], stderr=subprocess.DEVNULL).returncode)
print(group.refused_processes(), len(group.processes()))
while not group.remove():
    pass
"""


@pytest.fixture(params=[0, 65534], ids=["root", "nobody"])
def delegated(request, groups):
    """A group of a user's own, and what starts a program as that user in it."""
    if groups.version != 2 or os.geteuid():
        pytest.skip("root can try this where all controllers are of version 2")
    user = request.param
    group = next(iter(groups.parents.values())) / f"delegated-{os.getpid()}-{user}"
    group.mkdir()
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", group / "cgroup.threads"):
        os.chown(path, user, user)
    as_user = ["setpriv", "--reuid", str(user), "--clear-groups", sys.executable, "-c", ALONE]
    yield group, as_user
    (group / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + DEADLINE_S
    while "populated 1" in (group / "cgroup.events").read_text():
        assert time.monotonic() < deadline
    for child in group.glob("*/"):
        child.rmdir()
    group.rmdir()


def test_version_2_an_agent_that_is_alone_in_its_group_moves_aside(delegated):
    """As under `systemd-run --user --scope -p Delegate=yes`."""
    group, as_user = delegated
    command = ["sh", "-c", 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"', "sh", str(group), *as_user]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, how, after, same, killed, memory, _, processes = done.stdout.splitlines()
    assert how == "control groups (version 2: memory, pids, cpu)"
    assert (before.rpartition("/")[2], after) == (group.name, f"{before}/{cgroups.AGENT_GROUP}")
    assert (same, killed, memory, processes) == ("True", "-9", "True True", "True 27")


def test_version_2_an_agent_that_is_not_alone_says_what_would_help(delegated):
    group, as_user = delegated
    command = ["sh", "-c", 'echo 0 > "$1/cgroup.procs" && shift && "$@"; exit', "sh", str(group), *as_user]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[1] == (
        "the agent may not make control groups here (Device or resource busy); it may where it is started by"
        " systemd-run --user --scope -p Delegate=yes"
    )
