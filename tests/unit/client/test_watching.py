"""Local modules that are watched: each kind of change is seen at the next look, also where nothing tells of it."""

import contextlib
import gc
import importlib
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fallow.client import sources, watching
from fallow.client.sources import LocalSources
from fallow.client.watching import Watch

DEADLINE_S = 60.0
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a loaded package, `wren`, and a loose module beside it."""
    folder = tmp_path / "home" / "project"
    package = folder / "wren"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("X = 1\n")
    (folder / "wren_loose.py").write_text("X = 1\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    for name in set(sys.modules):
        if name.startswith("wren"):
            del sys.modules[name]


def load(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    for name in ("wren.part", "wren_loose"):
        importlib.import_module(name)


def write_in_place(folder):
    (folder / "wren" / "part.py").write_text("X = 22\n")


def write_as_much(folder):
    (folder / "wren" / "part.py").write_text("X = 2\n")


def append(folder):
    with (folder / "wren_loose.py").open("a") as file:
        file.write("Y = 1\n")


def replace_as_editors_do(folder):
    (folder / "new").write_text("X = 3\n")
    (folder / "new").rename(folder / "wren_loose.py")


def replace_by_one_of_the_same_times(folder):
    old, new = folder / "wren_loose.py", folder / "new"
    new.write_text("X = 2\n")
    times = old.stat()
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
    new.rename(old)


def delete(folder):
    (folder / "wren_loose.py").unlink()


def move_away(folder):
    (folder / "wren_loose.py").rename(folder / "other.py")


def add_a_module(folder):
    (folder / "wren" / "new.py").write_text("")


def move_a_module_in(folder):
    (folder / "new.py").write_text("")
    (folder / "new.py").rename(folder / "wren" / "new.py")


def remove_the_package(folder):
    shutil.rmtree(folder / "wren")


def rename_the_package(folder):
    (folder / "wren").rename(folder / "other")


def rename_the_folder(folder):
    folder.rename(folder.parent / "other")


def rename_a_folder_above(folder):
    folder.parent.rename(folder.parent.parent / "other")


def write_by_another_name(folder):
    (folder.parent / "same").hardlink_to(folder / "wren_loose.py")
    (folder.parent / "same").write_text("X = 4\n")


def write_by_mapping(folder):
    with (folder / "wren_loose.py").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[4:5] = b"5"


CHANGES = [
    write_in_place, write_as_much, append, replace_as_editors_do, replace_by_one_of_the_same_times, delete, move_away, add_a_module, move_a_module_in,
    remove_the_package, rename_the_package, rename_the_folder, rename_a_folder_above, write_by_another_name,
]  # fmt: skip


@pytest.fixture
def unhurried(monkeypatch):
    """What is watched is not looked at by the clock: a change is seen because it was told."""
    monkeypatch.setattr(sources, "BACKSTOP_S", 3600.0)


@pytest.mark.parametrize("how", ["watched", "linked", "limited", "without"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_at_the_next_look(project, monkeypatch, tmp_path, unhurried, change, how):
    if how == "linked":
        (tmp_path / "link").symlink_to("home")
    if how == "limited":
        monkeypatch.setattr(watching, "MAX_WATCHED", 1)
    if how == "without":
        monkeypatch.setitem(sys.modules, "ctypes", None)  # as in a Python that was built without it
    load(tmp_path / "link" / "project" if how == "linked" else project, monkeypatch)
    local = LocalSources()
    before = local.version()
    assert local.version() == before
    if how != "watched":
        assert local._watch.others
    change(project)
    after = local.version()
    assert after > before
    assert local.version() == after
    if (project / "wren_loose.py").exists():  # what is watched now is what has come in its place
        append(project)
        assert local.version() > after


@pytest.fixture
def watched(project):
    """A watch on a project's files, as they are left to be looked at only where the filesystem is not known."""
    watch = Watch()
    paths = [project / "wren" / "part.py", project / "wren_loose.py", project / "wren"]
    watch.watch(list(map(str, paths)))
    if watch.others:
        pytest.skip("nothing is told of this filesystem")
    yield watch
    watch.close()


@ON_LINUX
@pytest.mark.parametrize("change", [*CHANGES, write_by_mapping])
def test_a_change_is_told(project, watched, change):
    assert watched.is_quiet()
    change(project)
    assert not watched.is_quiet()


@ON_LINUX
@pytest.mark.parametrize("change", [replace_as_editors_do, delete, remove_the_package])
def test_what_others_still_read_is_told(project, watched, change):
    with (project / "wren_loose.py").open(), (project / "wren" / "part.py").open():
        change(project)
        assert not watched.is_quiet()


@ON_LINUX
def test_what_is_told_and_was_no_change_is_looked_at_once(project, watched, monkeypatch, unhurried):
    load(project, monkeypatch)
    local = LocalSources()
    before = local.version()
    for _ in range(2):
        with (project / "wren_loose.py").open("a"):
            pass
        assert not local._watch.is_quiet()
        assert local.version() == before
        assert local._watch.is_quiet()


@ON_LINUX
def test_what_is_none_of_these_is_not_told(project, watched):
    (project / "wren_beside.py").write_text("")
    (project / "wren" / "part.py").read_text()
    (project.parent / "other").mkdir()
    log = project / "wren" / "large.log"
    log.write_text("too large to travel, let us say\n")
    assert not watched.is_quiet()
    watched.watch([str(project / "wren"), str(project / "wren" / "part.py")])
    log.write_text("more\n")
    assert watched.is_quiet()
    add_a_module(project)
    assert not watched.is_quiet()


@ON_LINUX
def test_what_can_not_be_trusted_is_left_to_be_looked_at(project, watched, monkeypatch, tmp_path):
    (tmp_path / "link").symlink_to("home")
    (project / "link.py").symlink_to("wren_loose.py")
    monkeypatch.chdir(project)
    others = [
        str(tmp_path / "link" / "project" / "wren_loose.py"),
        str(project / "link.py"),
        str(project / "gone.py"),
        "wren_loose.py",
        "/proc/version",
    ]
    fine = [str(project / "wren_loose.py"), str(project / "wren" / ".." / "wren_loose.py")]
    watched.watch([*fine, *others])
    assert watched.others == others


def test_a_link_that_is_switched_is_seen_at_the_next_look(project, monkeypatch, tmp_path, unhurried):
    shutil.copytree(project, project.parent / "other")  # with the same times
    link = tmp_path / "current"
    link.symlink_to(project)
    load(link, monkeypatch)
    local = LocalSources()
    before = local.version()
    (project.parent / "other" / "wren_loose.py").write_text("X = 2\n")
    (tmp_path / "new").symlink_to(project.parent / "other")
    (tmp_path / "new").rename(link)
    assert local.version() > before


@ON_LINUX
def test_what_is_not_told_is_seen_soon(project, watched, monkeypatch):
    load(project, monkeypatch)
    local = LocalSources()
    before = local.version()
    path = project / "wren_loose.py"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        old = path.stat().st_mtime_ns
        mapped[4:5] = b"5"
        if path.stat().st_mtime_ns == old:
            pytest.skip("this filesystem has no times of writes through mappings")
        assert local._watch.is_quiet()
        deadline = time.monotonic() + DEADLINE_S
        while local.version() == before:
            assert time.monotonic() < deadline


def test_looks_of_many_threads_miss_nothing(project, monkeypatch, unhurried):
    load(project, monkeypatch)
    local = LocalSources()
    is_over = threading.Event()

    def look():
        while not is_over.is_set():
            local.version()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        before = local.version()
        for number in range(20):
            (project / "wren_loose.py").write_text("X = 1\n" + "Y = 1\n" * number)
            after = local.version()
            assert after > before or number == 0  # the text that was there
            before = after
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


# --- the descriptor -----------------------------------------------------------------------------


def descriptors():
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(each.readlink()))
    return sum("inotify" in each for each in found)


@ON_LINUX
def test_the_descriptor_goes_with_its_owner(project, monkeypatch):
    load(project, monkeypatch)
    gc.collect()  # those of other tests
    before = descriptors()
    local = LocalSources()
    assert descriptors() == before
    local.version()
    assert descriptors() == before + 1
    local.close()
    assert descriptors() == before
    local.version()
    del local
    gc.collect()
    assert descriptors() == before


@ON_LINUX
def test_programs_that_are_started_do_not_have_it(watched):
    code = "import os; print([os.readlink(f'/proc/self/fd/{each}') for each in range(3, 100) if os.path.exists(f'/proc/self/fd/{each}')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, close_fds=False, check=True)
    assert "inotify" not in done.stdout


# --- in processes of their own ------------------------------------------------------------------

PREPARE = """
import importlib, os, sys
from pathlib import Path
from fallow.client import sources
from fallow.client.sources import LocalSources

project = Path(sys.argv[1])
sys.path.insert(0, str(project))
for name in ("wren.part", "wren_loose"):
    importlib.import_module(name)
sources.BACKSTOP_S = 3600.0
local = LocalSources()
before = local.version()

def has_changed():
    return local.version() > before
"""

FORK = """
child, (reading, writing) = None, os.pipe()
before = local.version()  # of a program with these names

(project / "wren_loose.py").write_text("X = 22\\n")
child = os.fork()
if child == 0:
    os._exit(not has_changed())
assert os.waitpid(child, 0)[1] == 0, "the child has not seen it"
assert has_changed(), "the child has taken it from its parent"

before = local.version()
child = os.fork()
if child == 0:
    os.read(reading, 1)
    assert has_changed(), "the parent has taken it from its child"
    before = local.version()
    (project / "wren_loose.py").write_text("X = 4444\\n")
    os._exit(not has_changed() or local._watch.others != [])
(project / "wren_loose.py").write_text("X = 333\\n")
assert has_changed()
before = local.version()
os.write(writing, b"now")
assert os.waitpid(child, 0)[1] == 0
assert has_changed()
"""

FEW = """
watched = len(local._watched) - len(local._watch.others)
assert watched == int(sys.argv[2]), local._watch.others
for name in ("wren_loose.py", "wren/part.py", "wren/new.py"):
    (project / name).write_text("X = 22\\n")
    assert has_changed(), name
    before = local.version()
"""

OVERLAY = """
assert "wren_loose.py" in str(local._watch.others)
(project.parent / "lower" / "wren_loose.py").write_text("X = 22\\n")
assert has_changed()
"""


def run(code, *arguments, within=()):
    command = [*within, sys.executable, "-B", "-c", PREPARE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr


def in_namespace(command):
    """Return what starts a program as root of a namespace of its own, after a command there; skips where that can't be done."""
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{command} && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are not allowed here")
    return enter


@ON_LINUX
@pytest.mark.slow
def test_a_forked_child_and_its_parent_both_see_a_change(project, watched):
    run(FORK, project)


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize(("limit", "count"), [("max_inotify_watches", 2), ("max_inotify_instances", 0)])
def test_without_room_for_watches_changes_are_seen(project, watched, limit, count):
    """Real limits, of a namespace. count: what is watched nevertheless, of a folder and three files."""
    above = [project, *project.parents]
    number = len(above) + count if count else 0
    run(FEW, project, count, within=in_namespace(f"echo {number} > /proc/sys/user/{limit}"))


@ON_LINUX
@pytest.mark.slow
def test_a_change_below_an_overlay_is_seen(project):
    places = {name: project.parent / name for name in ("lower", "upper", "work")}
    project.rename(places["lower"])
    for place in (places["upper"], places["work"], project):
        place.mkdir()
    options = ",".join(f"{name}dir={place}" for name, place in places.items())
    run(OVERLAY, project, within=in_namespace(f"mount -t overlay -o {options} overlay {project}"))


LOOK = """
_ = None
local.version()  # sees that there are more names in this program
os.getppid()
for _ in range(1000):
    local.version()
os.getppid()
"""


@ON_LINUX
@pytest.mark.slow
@pytest.mark.service("strace")
def test_a_look_asks_for_no_file(project, watched, tmp_path):
    """By what the kernel was asked for between two marks."""
    run(LOOK, project, within=["strace", "-qq", "-o", tmp_path / "trace"])
    calls = [line.partition("(")[0] for line in (tmp_path / "trace").read_text().splitlines()]
    first, last = (at for at, call in enumerate(calls) if call == "getppid")
    assert calls[first + 1 : last].count("poll") == 1000
    assert set(calls[first + 1 : last]) <= {"poll", "getpid", "brk", "mmap", "munmap"}
