"""Which sandboxes a node publishes, what it says of the others, and what its owner may demand."""

import os
import shutil

import pytest

from fallow.link.frames import NodeChanged, NodeHello
from fallow.model.errors import BadRequest
from fallow.node import agent, cgroups
from fallow.slot.confine import landlock_version

pytestmark = pytest.mark.slow


@pytest.fixture
def path_with(tmp_path, monkeypatch):
    """A search path whose one program is a bwrap that does this; None: no program at all."""

    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        if script is not None:
            (folder / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
            (folder / "bwrap").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return make


async def info_when_all_are_tried(hub, monkeypatch, **fields):
    monkeypatch.setattr(agent, "PROBE_AFTER_S", 0.0)
    async with hub.node(**fields):

        def latest():
            return (hub.all(NodeChanged) or hub.all(NodeHello))[-1].info

        await hub.until(lambda: "not tried yet" not in latest().notes.values())
        await hub.slots_ready()
        return hub.all(NodeHello)[0].info, latest(), hub.slots()[0].process.kind.sandbox


@pytest.mark.service("bubblewrap")
async def test_the_strongest_that_works_is_the_default_and_all_are_published(hub, monkeypatch):
    first, info, level = await info_when_all_are_tried(hub, monkeypatch, sandbox=None)
    assert first.sandboxes == ("bubblewrap",)
    assert level == "bubblewrap"
    expected = {"process", "bubblewrap"} | ({"confined"} if landlock_version() else set())
    assert set(info.sandboxes) - {"container"} == expected
    assert "disk: looked at every" in info.notes["limits"]


async def test_a_node_of_its_user_starts_with_plain_processes(hub, monkeypatch):
    first, info, level = await info_when_all_are_tried(hub, monkeypatch)
    assert (first.sandboxes, level) == (("process",), "process")
    assert ("bubblewrap" in info.sandboxes) == (shutil.which("bwrap") is not None)


@pytest.mark.parametrize(
    ("script", "note"),
    [
        (None, "the program bwrap is not installed (Debian: apt-get install bubblewrap)"),
        (
            "echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
            "bwrap: No permissions to create new namespace",
        ),
        (
            'while [ $1 != -- ]; do shift; done; shift; exec "$@"',
            "a task in it could read the agent's files: b'[[true,true]]'",
        ),
    ],
    ids=["missing", "forbidden", "lying"],
)
async def test_what_does_not_work_is_said_and_the_next_is_taken(hub, monkeypatch, path_with, script, note):
    path_with(script)
    _, info, level = await info_when_all_are_tried(hub, monkeypatch, sandbox=None)
    assert level == ("confined" if landlock_version() else "process")
    assert "bubblewrap" not in info.sandboxes
    assert info.notes["sandbox bubblewrap"] == note


async def test_what_the_owner_demands_is_kept_or_the_node_does_not_join(hub, monkeypatch, path_with):
    path_with("echo 'bwrap: No permissions' >&2; exit 1")
    with pytest.raises(
        BadRequest, match="no sandbox that tasks may run in here works: .*bubblewrap: bwrap: No permissions"
    ):
        async with hub.node(sandbox=None, min_sandbox="bubblewrap"):
            pass
    assert hub.all(NodeHello) == []


async def test_an_owner_who_wants_containers_hears_that_there_is_no_engine(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    words = f"no sandbox that tasks may run in here works: sandbox container: no container engine: .*{tmp_path}/none"
    with pytest.raises(BadRequest, match=words):
        async with hub.node(sandbox=None, min_sandbox="container"):
            pass
    assert hub.all(NodeHello) == []


async def test_weaker_levels_than_the_owner_allows_are_not_published(hub, monkeypatch):
    if not landlock_version():
        pytest.skip("this kernel has no Landlock")
    _, info, _ = await info_when_all_are_tried(hub, monkeypatch, sandbox="confined", min_sandbox="confined")
    assert "process" not in info.sandboxes
    assert "confined" in info.sandboxes
    assert info.notes["sandbox process"] == "weaker than the owner allows: at least confined"


async def test_without_control_groups_limits_are_watched(hub, monkeypatch, hostile):
    monkeypatch.setattr(cgroups, "find", lambda *_, **__: (None, "the agent may not make control groups here"))
    from fallow.model.containment import Containment, parse_limits

    def job(function, *arguments, **limits):
        return hub.job(
            ["call"], [function], calls=[(arguments, {})], containment=Containment(limits=parse_limits(limits))
        )

    async with hub.node():
        (info,) = [frame.info for frame in hub.all(NodeHello)]
        assert info.notes["limits"].startswith(
            "the agent may not make control groups here; memory, processes, disk: looked at"
        )
        greedy = job(hostile.use_memory_slowly, 600_000_000, memory="150MB")
        await hub.run(greedy, 1)
        failure = hub.failures(greedy)[0]
        assert (failure.kind, "limit of 150 MB of memory" in failure.message) == ("limit", True)
        assert failure.peak_memory_bytes > 150_000_000
        many = job(hostile.start_processes, 60, processes=20)
        await hub.run(many, 1)
        assert hub.failures(many)[0].message == "went over its limit of 20 processes and threads"
        cores = job(lambda: len(os.sched_getaffinity(0)), cpus=0.5)
        await hub.run(cores, 1)
        assert hub.values(cores) == {0: 1}
