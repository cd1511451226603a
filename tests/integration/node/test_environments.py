"""Jobs with environments on a real agent: their slots run in other interpreters than the agent."""

import sys
from pathlib import Path

import pytest

from fallow.link.frames import NodeHello, TaskBroke
from fallow.model.environment import EnvironmentLock, encode_lock
from fallow.model.errors import EnvironmentFailed
from fallow.model.requirements import Requirements
from fallow.node.builders.uv import _interpreter

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILDS = Requirements(builds=True)
PREFIX = "__import__('sys').prefix"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Environments without packages need no index."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")


def evaluating(hub, items, *, requirements=BUILDS, **lock):
    """Return a job that evaluates Python expressions in an environment; it is JSON, so that any Python will do."""
    environment = hub.put(encode_lock(EnvironmentLock(**({"python": PYTHON} | lock))))
    return hub.job(
        ["map"], "builtins:eval", items, codec="json", environment=environment, requirements=requirements
    )  # fmt: skip


class Broken:
    """A builder whose environments can't run anything, or which fails."""

    name = "broken"

    def __init__(self, error=None):
        self.error = error
        self.builds = 0

    def obstacle(self):
        return None

    async def build(self, lock, wheels, folder):
        self.builds += 1
        if self.error is not None:
            raise EnvironmentFailed(self.error)
        python = folder / "python"
        python.write_text("#!/bin/sh\necho it lacks a library >&2\nexit 3\n")
        python.chmod(0o755)
        return python


async def test_environments_side_by_side(hub):
    """The agent's own, and two others, in slots of one node; each is found again while it is warm."""
    own = hub.job(["map"], "builtins:eval", [PREFIX] * 4, codec="json")
    one, two = evaluating(hub, [PREFIX] * 4), evaluating(hub, [PREFIX] * 4, text="another")
    async with hub.node(slots=3, cores=3):
        for spec in (own, one, two):
            hub.grant(spec, 0, 4)
        for spec in (own, one, two):
            await hub.finish(spec, 4)
        found = [set(hub.values(spec).values()) for spec in (own, one, two)]
        assert found[0] == {sys.prefix}
        assert [len(each) for each in found] == [1, 1, 1]
        assert len(set.union(*found)) == 3
        home = hub.folder / "node" / "environments"
        assert all(home in Path(prefix).parents for prefix in (*found[1], *found[2]))
    (info,) = {frame.info.builds for frame in hub.all(NodeHello)}
    assert info


@pytest.mark.parametrize("minor", ["3.12", "3.13"])
async def test_another_python_than_the_agents(hub, minor):
    if _interpreter(minor) is None:
        pytest.skip(f"there is no Python {minor} here")
    spec = evaluating(hub, ["__import__('platform').python_version()"] * 2, python=minor)
    async with hub.node():
        await hub.run(spec, 2)
    assert not hub.failures(spec)
    assert all(version.startswith(minor + ".") for version in hub.values(spec).values())


async def test_neither_fallow_nor_cloudpickle_is_needed_in_it(hub):
    code = "[__import__('importlib.util').util.find_spec(name) is None for name in ('msgspec', 'blake3', 'psutil')]"
    spec = evaluating(hub, [code])
    pickled = hub.job(
        ["map"], [lambda x: x + 1], [1], environment=spec.environment, requirements=BUILDS
    )  # fmt: skip
    async with hub.node():
        await hub.run(spec, 1)
        await hub.run(pickled, 1)
    assert hub.values(spec) == {0: [True, True, True]}
    assert hub.values(pickled) == {0: 2}


async def test_a_build_that_fails_breaks_the_tasks_and_nothing_else(hub):
    broken = Broken("the log of the build")
    spec = evaluating(hub, ["1"] * 6, builder="broken")
    plain = hub.job(["map"], "builtins:eval", ["1"], codec="json")
    async with hub.node() as agent:
        agent._dispatcher.environments.builders["broken"] = broken
        await hub.run(spec, 6)
        failures = hub.failures(spec)
        assert {failure.kind for failure in failures.values()} == {"environment"}
        assert "the log of the build" in failures[0].message
        assert len(hub.all(TaskBroke)) == 6  # so that the hub tries them elsewhere
        hub.got.clear()
        await hub.run(spec, 2)  # it comes back to the same node, and is answered without another build
        assert broken.builds == 1
        await hub.run(plain, 1)
        assert hub.values(plain) == {0: 1}


async def test_an_interpreter_that_does_not_start_is_given_up(hub):
    """Its slots would be started for ever, and nothing else run."""
    broken = Broken()
    spec = evaluating(hub, ["1"] * 2, builder="broken")
    plain = hub.job(["map"], "builtins:eval", ["1"], codec="json")
    async with hub.node() as agent:
        agent._dispatcher.environments.builders["broken"] = broken
        await hub.run(spec, 2)
        failures = hub.failures(spec)
        assert {failure.kind for failure in failures.values()} == {"environment"}
        assert "it lacks a library" in failures[0].message
        await hub.run(plain, 1)
        assert hub.values(plain) == {0: 1}


@pytest.mark.service("bubblewrap")
async def test_in_a_sandbox(hub):
    needs = Requirements(builds=True, sandbox="bubblewrap")
    private = str(hub.folder / "node" / "lock")
    spec = evaluating(hub, [PREFIX, f"__import__('os').path.exists({private!r})"], requirements=needs)
    async with hub.node(sandbox="bubblewrap"):
        await hub.run(spec, 2)
    assert not hub.failures(spec)
    prefix, sees = hub.values(spec).values()
    assert hub.folder / "node" / "environments" in Path(prefix).parents
    assert not sees


async def test_environments_of_ended_jobs_make_room(hub):
    specs = [evaluating(hub, [PREFIX], text=text) for text in "abc"]
    async with hub.node(environments_bytes=1) as agent:
        for spec in specs:
            await hub.run(spec, 1)
        for spec in specs[1:]:
            agent._dispatcher.forget(spec.id)
        prefixes = [Path(hub.values(spec)[0]).parent for spec in specs]
        agent._dispatcher.trim_environments()
        await hub.until(lambda: not prefixes[1].exists())
        assert prefixes[0].exists()  # its job goes on
        assert prefixes[2].exists()  # a warm slot runs in it
