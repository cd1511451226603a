"""The user's own modules travel by themselves, and a task never runs an old copy of one that has changed."""

import contextlib
import gc
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fallow import Environment, Grid

pytestmark = pytest.mark.slow


@pytest.fixture
def grid(no_orphans):
    """Of one slot, so that each call meets what the one before has left."""
    with Grid(slots=1, progress=False) as opened:
        yield opened


@pytest.fixture
def write(tmp_path, monkeypatch):
    folder = tmp_path / "program"
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def make(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("robin"):
            del sys.modules[name]


def test_each_call_runs_what_the_files_hold_now(grid, write):
    """Nothing is reloaded here: the very function objects of before are submitted and mapped."""
    write("robin_inner.py", "VALUE = 0\n")
    write("robin.py", "def value(_):\n    import robin_inner\n    return robin_inner.VALUE\n")
    robin = importlib.import_module("robin")
    for value in (1, 22, 333):
        write("robin_inner.py", f"VALUE = {value}\n")
        assert grid.submit(robin.value, 0).result(60) == value
        assert grid.map(robin.value, [0]).result(60) == [value]
        assert grid.submit(lambda: robin.value(0)).result(60) == value  # travels by value, in a stream of any functions
    write("robin.py", "def value(_):\n    return 'the function itself'\n")
    assert grid.submit(robin.value, 0).result(60) == "the function itself"
    assert grid.map(robin.value, [0]).result(60) == ["the function itself"]


def test_what_is_imported_later_reaches_a_stream_that_is_open(grid, write):
    write("robin_first.py", "def value():\n    return 1\n")
    write("robin_second.py", "def value():\n    return 2\n")
    first = importlib.import_module("robin_first")
    assert grid.submit(lambda: first.value()).result(60) == 1
    second = importlib.import_module("robin_second")
    assert grid.submit(lambda: second.value()).result(60) == 2


def test_calls_share_a_job_while_nothing_changes(grid, write):
    write("robin.py", "def value(x):\n    return x\n")
    robin = importlib.import_module("robin")
    futures = [grid.submit(robin.value, x) for x in range(2000)]
    jobs = {each._stream.job for each in futures if each._stream is not None}
    assert [each.result(60) for each in futures] == list(range(2000))
    assert len(jobs) == 1


def test_a_grid_that_is_closed_watches_no_files(no_orphans, write):
    def watches():
        count = 0
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # others come and go
                count += "inotify" in os.readlink(each)
        return count

    write("robin.py", "def value():\n    return 1\n")
    robin = importlib.import_module("robin")
    gc.collect()  # grids of other tests
    before = watches() if sys.platform == "linux" else 0
    with Grid(slots=1, progress=False) as grid:
        assert grid.submit(robin.value).result(60) == 1
        if sys.platform != "linux":
            pytest.skip("there is nothing to close")
        assert watches() == before + 1
    assert watches() == before


def test_a_changed_project_is_built_anew_for_submits_too(grid, write, monkeypatch, tmp_path):

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write("project/pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')
    write("project/backend.py", BACKEND)
    write("project/robin_built.py", "VALUE = 0\n")

    def value(_):
        import robin_built

        return robin_built.VALUE

    options = grid.options(env=Environment.from_project(tmp_path / "program" / "project"))
    for number in (1, 22):
        write("project/robin_built.py", f"VALUE = {number}\n")
        assert options.submit(value, 0).result(60) == number


def test_a_project_and_a_loose_module_of_its_name(grid, write, monkeypatch, tmp_path):
    """As here: what the program imports is what runs, and the project's is not sent twice."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write("project/pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')
    write("project/backend.py", BACKEND.replace('"robin_built.py": ', '"robin_built/__init__.py": '))
    write("project/robin_built.py", "VALUE = 'of the project'\n")
    loose = write("robin_built.py", "VALUE = 'loose'\n")
    env = Environment.from_project(tmp_path / "program" / "project")

    def value(_):
        import robin_built

        return robin_built.VALUE

    import robin_built

    assert grid.map(value, [0], env=env).result(60) == ["loose"] == [robin_built.VALUE]
    loose.unlink()
    del sys.modules["robin_built"]
    assert grid.map(value, [0], env=env).result(60) == ["of the project"]
    write("robin_built.py", "VALUE = 'loose again'\n")
    assert grid.map(value, [0], env=env).result(60) == ["loose again"]


def test_of_a_namespace_each_part_comes_from_where_it_is(grid, write, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write("project/pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n')
    write("project/backend.py", BACKEND.replace('"robin_built.py": ', '"robin_space/built.py": '))
    write("project/robin_built.py", "VALUE = 'of the project'\n")
    write("robin_space/loose.py", "VALUE = 'loose'\n")

    def value(_):
        from robin_space import built, loose

        return built.VALUE, loose.VALUE

    env = Environment.from_project(tmp_path / "program" / "project")
    assert grid.map(value, [0], env=env).result(60) == [("of the project", "loose")]


SCRIPT = """
import robin_space.loaded
from fallow import Environment, Grid

def lazily(_):
    import robin_late
    from robin_space import late
    return robin_late.VALUE, late.VALUE, robin_space.loaded.VALUE

class Bird:
    def sing(self, _):
        from robin_package import song
        return song.VALUE

if __name__ == "__main__":
    with Grid(slots=1, progress=False) as grid:
        print(grid.map(lazily, [1]).result(60), grid.map(Bird().sing, [1]).result(60))
"""


def test_a_script_finds_on_the_node_what_its_functions_import_when_they_run(write, tmp_path):
    write("robin_late.py", "import robin_last\nVALUE = robin_last.VALUE\n")
    write("robin_last.py", "VALUE = 1\n")
    write("robin_space/loaded.py", "VALUE = 2\n")  # a namespace: no __init__.py
    write("robin_space/late.py", "VALUE = 3\n")
    write("robin_package/__init__.py", "")
    write("robin_package/song.py", "from robin_other import VALUE\n")
    write("robin_other.py", "VALUE = 4\n")
    script = write("main.py", SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.stdout, done.stderr) == ("[(1, 3, 2)] [4]\n", "")


BACKEND = """
import zipfile
from pathlib import Path


def build_wheel(folder, config_settings=None, metadata_directory=None):
    info = "robin-1.0.dist-info"
    files = {"robin_built.py": Path("robin_built.py").read_text()}
    files[info + "/METADATA"] = "Metadata-Version: 2.1\\nName: robin\\nVersion: 1.0\\n"
    files[info + "/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[info + "/RECORD"] = "".join(name + ",,\\n" for name in [*files, info + "/RECORD"])
    with zipfile.ZipFile(Path(folder, "robin-1.0-py3-none-any.whl"), "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return "robin-1.0-py3-none-any.whl"


def build_sdist(folder, config_settings=None):
    import tarfile

    with tarfile.open(Path(folder, "robin-1.0.tar.gz"), "w:gz") as archive:
        archive.add(".", "robin-1.0")
    return "robin-1.0.tar.gz"
"""
