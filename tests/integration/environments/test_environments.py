"""A node's environments: built once, whole or not at all, shared, and removed when others need the room."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from fallow.model.errors import EnvironmentFailed
from fallow.node.builder import BuildKilled, run_step
from fallow.node.environments import MARKER, Environments
from fallow.node.off_loop import OffLoop
from fallow.node.settings import NodeSettings


class Quick:
    """A builder that takes as long as its test wants, and counts."""

    name = "quick"

    def __init__(self):
        self.builds = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.error = None

    def obstacle(self):
        return None

    async def build(self, lock, wheels, folder):
        self.builds.append(lock.text)
        python = folder / "python"
        python.write_bytes(b"#" * 1000)
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return python


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Make what an agent has; each call is another start of it."""
    off_loops = []

    def make(builder, limit_bytes=1 << 30, name="node", **fields):
        settings = NodeSettings(
            folder=tmp_path / name, name="tester", memory_bytes=1, environments_bytes=limit_bytes, **fields
        )
        off_loops.append(OffLoop())
        environments = Environments(settings, off_loops[-1])
        environments.builders = {builder.name: builder}
        return environments

    yield make
    for each in off_loops:
        each.close()


def folders(tmp_path, name="node"):
    return sorted((tmp_path / name / "environments").glob("env-*"))


async def removed(folder):
    while folder.exists():
        await asyncio.sleep(0.001)


async def test_ten_that_need_it_at_once_wait_for_one_build(opened, locks):
    quick = Quick()
    quick.may_end.clear()
    environments = opened(quick)
    digest, lock = locks.write(builder="quick")
    waiting = [asyncio.ensure_future(environments.python_of(digest, lock, {})) for _ in range(10)]
    while not quick.builds:
        await asyncio.sleep(0)
    waiting[0].cancel()  # a job that ends meanwhile does not end the build for the others
    quick.may_end.set()
    found = await asyncio.gather(*waiting[1:])
    assert len(set(found)) == 1
    assert Path(found[0]).exists()
    assert await environments.python_of(digest, lock, {}) == found[0]
    assert len(quick.builds) == 1


async def test_they_outlive_the_agent(opened, locks):
    quick = Quick()
    digest, lock = locks.write(builder="quick")
    found = await opened(quick).python_of(digest, lock, {})
    assert await opened(quick).python_of(digest, lock, {}) == found
    assert len(quick.builds) == 1


async def test_what_a_crash_leaves_is_not_taken_for_whole(opened, locks, tmp_path):
    quick = Quick()
    digest, lock = locks.write(builder="quick")
    found = await opened(quick).python_of(digest, lock, {})
    (half,) = folders(tmp_path)
    (half / MARKER).unlink()  # as if it had been killed before the end
    torn = half.with_name("env-torn")
    torn.mkdir()
    (torn / MARKER).write_bytes(b'{"digest": "')
    again = await opened(quick).python_of(digest, lock, {})
    assert again != found
    assert folders(tmp_path) == [Path(again).parent]
    assert len(quick.builds) == 2


async def test_one_whose_interpreter_is_gone_is_built_again(opened, locks):
    quick = Quick()
    environments = opened(quick)
    digest, lock = locks.write(builder="quick")
    found = await environments.python_of(digest, lock, {})
    Path(found).unlink()
    assert Path(await environments.python_of(digest, lock, {})).exists()
    assert len(quick.builds) == 2


async def test_a_build_that_failed_is_not_tried_again_at_once(opened, locks, tmp_path):
    quick = Quick()
    quick.error = EnvironmentFailed("the log")
    environments = opened(quick)
    digest, lock = locks.write(builder="quick")
    for _ in range(3):
        with pytest.raises(EnvironmentFailed, match="the log"):
            await environments.python_of(digest, lock, {})
    assert len(quick.builds) == 1
    assert not folders(tmp_path)


async def test_other_environments_are_built_meanwhile(opened, locks):
    quick = Quick()
    environments = opened(quick)
    quick.may_end.clear()
    slow = asyncio.ensure_future(environments.python_of(*locks.write(builder="quick", text="slow"), {}))
    while not quick.builds:
        await asyncio.sleep(0)
    held, quick.may_end = quick.may_end, asyncio.Event()
    quick.may_end.set()
    await environments.python_of(*locks.write(builder="quick", text="fast"), {})
    assert not slow.done()
    held.set()
    await slow


async def test_the_least_recently_used_goes_and_never_one_in_use(opened, locks, tmp_path):
    quick = Quick()
    environments = opened(quick, limit_bytes=2500)
    named = {text: locks.write(builder="quick", text=text) for text in ("a", "b", "c")}
    pythons = {text: Path(await environments.python_of(*named[text], {})) for text in ("a", "b", "c")}
    await environments.python_of(*named["a"], {})
    environments.trim(lambda digest: digest == named["b"][0])  # in use, though it is the oldest
    await removed(pythons["c"].parent)
    assert folders(tmp_path) == sorted(pythons[text].parent for text in ("a", "b"))
    await environments.python_of(*named["c"], {})
    assert quick.builds == ["a", "b", "c", "c"]


async def test_use_is_remembered_across_restarts(opened, locks, tmp_path):
    quick = Quick()
    first = opened(quick)
    named = {text: locks.write(builder="quick", text=text) for text in "abcd"}
    pythons = {text: Path(await first.python_of(*named[text], {})) for text in "abcd"}
    await first.python_of(*named["b"], {})
    first.trim(lambda digest: digest == named["a"][0])  # its tasks run …
    first.trim(lambda digest: False)  # … until now
    size = sum(path.stat().st_size for path in pythons["a"].parent.glob("python"))
    second = opened(quick, limit_bytes=2 * size)  # started again with less room
    second.trim(lambda digest: digest == named["c"][0])
    for text in "bd":
        await removed(pythons[text].parent)
    assert folders(tmp_path) == sorted(pythons[text].parent for text in "ac")
    third = opened(quick, limit_bytes=size)
    third.trim(lambda digest: False)
    await removed(pythons["c"].parent)
    assert folders(tmp_path) == [pythons["a"].parent]
    assert await third.python_of(*named["a"], {}) == str(pythons["a"])
    assert quick.builds == ["a", "b", "c", "d"]


async def test_a_start_cleans_up_though_no_job_comes(opened, locks, tmp_path):
    half = tmp_path / "node" / "environments" / "env-half"
    half.mkdir(parents=True)
    (half / "python").write_bytes(b"#")
    environments = opened(Quick())
    environments.trim(lambda digest: False)
    assert not folders(tmp_path)
    await asyncio.gather(*environments._tasks)
    assert not list(half.parent.iterdir())


async def test_a_builder_that_is_killed_is_tried_again_and_given_up_the_second_time(opened, locks, tmp_path):
    killed = run_step(["sh", "-c", "echo so far; kill -9 $$"], {}, tmp_path)
    with pytest.raises(BuildKilled, match="so far\nsh was ended by signal 9") as caught:
        await killed
    quick = Quick()
    quick.error = caught.value
    with pytest.raises(EnvironmentFailed, match="signal 9"):
        await opened(quick).python_of(*locks.write(builder="quick"), {})
    assert len(quick.builds) == 2
    assert not folders(tmp_path)


async def test_a_lock_that_is_none_or_of_another_builder(opened, locks):
    environments = opened(Quick())
    with pytest.raises(EnvironmentFailed, match="no builder 'conda'"):
        await environments.python_of(*locks.write(builder="conda"), {})
    with pytest.raises(EnvironmentFailed, match="lock"):
        await environments.python_of(*locks.blob(b'{"python": "3.11; rm -rf"}'), {})


async def test_grids_of_one_user_share_what_stays(opened, locks, tmp_path):
    """One at a time: the other makes do with a folder of its own."""
    quick = Quick()
    digest, lock = locks.write(builder="quick")
    shared = tmp_path / "shared"
    first = opened(quick, name="one", shared_environments=shared)
    second = opened(quick, name="two", shared_environments=shared)
    assert shared in Path(await first.python_of(digest, lock, {})).parents
    assert tmp_path / "two" in Path(await second.python_of(digest, lock, {})).parents
    first.close()
    third = opened(quick, name="three", shared_environments=shared)
    assert shared in Path(await third.python_of(digest, lock, {})).parents
    third.close()
    assert len(quick.builds) == 2


async def test_what_can_build_is_told(opened, monkeypatch):
    quick = Quick()
    environments = opened(quick)
    assert environments.describe() == (True, "built by quick")
    quick.obstacle = lambda: "no time"
    assert environments.describe() == (False, "no time")


@pytest.mark.slow
@pytest.mark.parametrize("minor", ["3.12", "3.13"])
async def test_another_python(minor, tmp_path, locks, monkeypatch, index):
    """The agent's Python is not the task's, where there is another one."""
    from fallow.node.builders.uv import _interpreter

    found = _interpreter(minor)
    if found is None:
        pytest.skip(f"there is no Python {minor} here")
    settings = NodeSettings(folder=tmp_path / "node", name="tester", memory_bytes=1)
    off_loop = OffLoop()
    environments = Environments(settings, off_loop)
    try:
        digest, lock = locks.write(python=minor, packages=(index.add("apple", "1.5"),))
        python = await environments.python_of(digest, lock, {})
    finally:
        off_loop.close()
    code = "import apple, sys; print(apple.VERSION, '%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.5", minor]
