"""Control groups of slots: made below the agent's own, and gone with it, however it ended."""

import os

import psutil
import pytest

from fallow.model.containment import Containment, Limits
from fallow.node import cgroups
from fallow.node.limits import OWN_PROCESSES, Excess

pytestmark = pytest.mark.slow


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
