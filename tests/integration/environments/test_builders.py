"""What every builder does. A builder of your own passes these too: add it to `BUILDERS`."""

import asyncio
import contextlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fallow import Environment
from fallow.client.locking import Locker
from fallow.model.environment import EnvironmentLock, LockedPackage, decode_lock
from fallow.model.errors import EnvironmentFailed
from fallow.node.builder import find_builders
from fallow.node.builders.uv import UvBuilder
from fallow.packages.uv import find_uv, uv_environment

ROOT = Path(__file__).parents[3]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def documented(tmp_path):
    """Return the builder that docs/environments.md shows."""
    page = (ROOT / "docs" / "environments.md").read_text()
    (code,) = [each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class PipBuilder" in each]
    names = {}
    exec(compile(code, "docs/environments.md", "exec"), names)
    return names["PipBuilder"]()


BUILDERS = {"uv": lambda tmp_path: UvBuilder(), "documented": documented}


@pytest.fixture(params=BUILDERS)
def builder(request, tmp_path, index):
    return BUILDERS[request.param](tmp_path)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "environments" / "built"
    place.mkdir(parents=True)
    return place


def run(python, code):
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_says_that_it_works_here(builder):
    assert builder.obstacle() is None


@pytest.mark.slow
async def test_the_interpreter_has_the_packages_and_nothing_else(builder, folder, index, locks):
    packages = (index.add("apple", "1.5"), index.add("pear", "2.0"))
    lock = EnvironmentLock(python=PYTHON, packages=packages, builder=builder.name)
    python = await builder.build(lock, {}, folder)
    assert folder in python.parents
    assert run(
        python, "import apple, pear, sys; print(apple.VERSION, pear.VERSION, '%d.%d' % sys.version_info[:2])"
    ) == (f"1.5 2.0 {PYTHON}")
    assert run(python, "import importlib.util as u; print(u.find_spec('cloudpickle'), u.find_spec('fallow'))") == (
        "None None"
    )


@pytest.mark.slow
async def test_a_package_with_other_bytes_is_refused(builder, folder, index):
    good = index.add("apple", "1.5")
    index.add("apple", "1.5", {"apple.py": "print('not what was locked')\n"})
    lock = EnvironmentLock(python=PYTHON, packages=(good,), builder=builder.name)
    with pytest.raises(EnvironmentFailed, match="(?i)hash"):
        await builder.build(lock, {}, folder)


@pytest.mark.slow
async def test_a_package_that_is_nowhere_is_named(builder, folder, index):
    missing = LockedPackage("no-such-fruit", "1.0", ("0" * 64,))
    lock = EnvironmentLock(python=PYTHON, packages=(missing,), builder=builder.name)
    with pytest.raises(EnvironmentFailed, match="no-such-fruit"):
        await builder.build(lock, {}, folder)


@pytest.mark.slow
async def test_no_code_of_packages_runs_while_it_builds(builder, folder, index, tmp_path):
    sign = tmp_path / "it-ran"
    package = index.add("apple", "1.5", {"apple.pth": f"import pathlib; pathlib.Path({str(sign)!r}).touch()\n"})
    lock = EnvironmentLock(python=PYTHON, packages=(package,), builder=builder.name)
    python = await builder.build(lock, {}, folder)
    assert not sign.exists()
    run(python, "")
    assert sign.exists()  # it would have


@pytest.mark.slow
async def test_a_cancelled_build_leaves_no_process(builder, folder, index, no_orphans):
    package = index.add("apple", "1.5")
    lock = EnvironmentLock(python=PYTHON, packages=(package,), builder=builder.name)
    held, asked = asyncio.Event(), asyncio.Event()
    loop, answer = asyncio.get_running_loop(), index.answer

    def never(path):
        loop.call_soon_threadsafe(asked.set)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        return answer(path)

    index.answer = never
    build = asyncio.ensure_future(builder.build(lock, {}, folder))
    await asyncio.wait_for(asked.wait(), 60)
    build.cancel()
    await asyncio.gather(build, return_exceptions=True)
    held.set()
    assert build.cancelled()


def test_builders_of_installed_packages_are_found(tmp_path, monkeypatch):
    (tmp_path / "nix_fallow.py").write_text(
        "class Nix:\n    name = 'nix'\n    def obstacle(self):\n        return 'no nix'\n"
    )
    info = tmp_path / "nix_fallow-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nix-fallow\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fallow.environment_builders]\nnix = nix_fallow:Nix\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    uv = UvBuilder()
    found = find_builders([uv])
    assert found["uv"] is uv
    assert found["nix"].obstacle() == "no nix"


async def test_uv_says_that_it_is_missing(tmp_path, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    builder = UvBuilder()
    assert 'pip install "fallow[envs]"' in builder.obstacle()
    with pytest.raises(EnvironmentFailed, match="fallow"):
        await builder.build(EnvironmentLock(python=PYTHON), {}, folder)


@pytest.mark.slow
async def test_a_python_that_is_not_there_is_named(tmp_path, index, folder):
    with pytest.raises(EnvironmentFailed, match="3.99"):
        await UvBuilder().build(EnvironmentLock(python="3.99"), {}, folder)


@pytest.mark.slow
async def test_wheels_that_travel_are_installed(tmp_path, index, folder, locks, make_wheel):
    wheel, blobs = locks.wheel(make_wheel(tmp_path / "own", "plum", "0.1", {"plum.py": "COLOUR = 'blue'\n"}))
    lock = EnvironmentLock(python=PYTHON, wheels=(wheel,))
    python = await UvBuilder().build(lock, blobs, folder)
    assert run(python, "import plum; print(plum.COLOUR)") == "blue"
    assert not index.requests


@pytest.mark.slow
@pytest.mark.parametrize(
    "member",
    [
        "../evil.py",
        "../../../../../evil.py",
        "/{outside}/evil.py",
        "plum-0.1.data/scripts/../../../evil.py",
        "plum-0.1.data/data/../../evil.py",
        "plum-0.1.data/purelib/../../../../../evil.py",
        "link -> {outside}",
    ],
)
async def test_wheels_that_unpack_outside_do_not(tmp_path, index, folder, locks, make_wheel, member):
    """Nodes install wheels of strangers, and not inside of a sandbox."""
    outside = tmp_path / "outside"
    outside.mkdir()
    member, _, target = member.format(outside=outside).partition(" -> ")
    path = make_wheel(tmp_path / "own", "plum", "0.1", {"plum.py": "COLOUR = 'blue'\n"})
    with zipfile.ZipFile(path) as archive:
        members = {each.filename: archive.read(each) for each in archive.infolist()}
    names = [member, f"{member}/evil.py"] if target else [member]
    members["plum-0.1.dist-info/RECORD"] = b"".join(f"{each},,\n".encode() for each in [*members, *names])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16 if name == member and target else 0o644 << 16
            archive.writestr(info, target if name == member and target else "evil = True\n")
    wheel, blobs = locks.wheel(path)
    with contextlib.suppress(EnvironmentFailed):  # some of them uv makes harmless
        await UvBuilder().build(EnvironmentLock(python=PYTHON, wheels=(wheel,)), blobs, folder)
    home = folder / "python"
    assert not [each for each in tmp_path.rglob("evil.py") if home not in each.parents and "packages" not in each.parts]
    assert not list(outside.iterdir())
    assert not [each for each in Path(tmp_path.anchor).glob("evil.py")]


@pytest.mark.slow
async def test_one_lock_does_for_all_platforms(tmp_path, index, folder):
    """What is needed elsewhere is in the lock, and left out here; uv says what it would install there."""
    for name in ("pear", "plum", "quince"):
        index.add(name, "2.0")
    systems = {"pear": "win32", "plum": "darwin", "quince": "linux"}
    index.add("apple", "1.5", requires=[f"{name}; sys_platform == '{system}'" for name, system in systems.items()])
    locked = await Locker().lock(Environment(["apple"]))
    lock = decode_lock(locked.data)
    assert [each.name for each in lock.packages] == ["apple", "pear", "plum", "quince"]
    python = await UvBuilder().build(lock, {}, folder)
    found = run(python, "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('pear', 'plum', 'quince')])")
    assert found == str([systems[name] == sys.platform for name in systems])
    for name, platform in (("pear", "windows"), ("plum", "macos"), ("quince", "linux")):
        command = [find_uv(), "pip", "install", "--dry-run", "--target", "elsewhere", "--python-platform", platform]
        command += ["--require-hashes", "--no-deps", "--requirements", folder / "requirements.txt"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=uv_environment())
        assert re.findall(r"\+ (\w+)==", done.stderr) == ["apple", name]


@pytest.mark.slow
async def test_needs_of_other_pythons_are_in_nobodys_way(index):
    """A version for this Python alone would not do for newer ones."""
    minor = sys.version_info.minor
    for version in ("1.0", "2.0"):
        index.add("pear", version)
    needs = [f"pear<2; python_version <= '3.{minor}'", f"pear>=2; python_version > '3.{minor}'"]
    index.add("apple", "1.5", requires=needs)
    lock = decode_lock((await Locker().lock(Environment(["apple", "pear==1.0"]))).data)
    assert [(each.name, each.version) for each in lock.packages] == [("apple", "1.5"), ("pear", "1.0")]
