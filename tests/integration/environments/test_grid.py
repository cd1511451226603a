"""Environments from the client's end: `env=` on calls of an embedded grid, with real builds of tiny packages."""

import sys
import time

import pytest

from fallow import BadRequest, Environment, EnvironmentFailed, Grid

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def functions():
    """Pickled by value, as this module imports what the environments don't have."""

    def version_of(module):
        import importlib

        return importlib.import_module(module).VERSION

    def prefix(_):
        import sys

        return sys.prefix

    return version_of, prefix


version_of, prefix = functions()


@pytest.fixture
def grid(index, no_orphans):
    with Grid(slots=2) as opened:
        yield opened


@pytest.mark.slow
def test_tasks_find_the_packages_of_their_environment(index, grid):
    index.add("apple", "1.5", requires=["pear>1"])
    index.add("apple", "1.0")
    index.add("pear", "2.0")
    env = Environment(["apple"])
    assert grid.map(version_of, ["apple", "pear"] * 5, env=env).result(60) == ["1.5", "2.0"] * 5
    assert grid.options(env=env).submit(version_of, "apple").result(60) == "1.5"


@pytest.mark.slow
def test_environments_run_side_by_side(index, grid):
    """Two versions of one package, and none of it, at the same time on one node."""
    index.add("apple", "1.0")
    index.add("apple", "2.0")
    old, new = (grid.map(version_of, ["apple"] * 20, env=Environment([f"apple=={each}"])) for each in ("1.0", "2.0"))
    own = grid.map(prefix, range(20))
    assert set(old.result(60)) == {"1.0"}
    assert set(new.result(60)) == {"2.0"}
    assert set(own.result(60)) == {sys.prefix}


@pytest.mark.slow
def test_what_can_not_be_resolved_says_why(index, grid):
    index.add("apple", "1.0")
    with pytest.raises(BadRequest, match=r"can't be resolved(.|\n)*apple==99"):
        grid.map(abs, [1], env=Environment(["apple==99"])).result(60)
    with pytest.raises(BadRequest, match=r"can't be resolved(.|\n)*no-such-fruit"):
        grid.options(env=Environment(["no-such-fruit"])).submit(abs, 1).result(60)


@pytest.mark.slow
def test_a_build_that_fails_gives_its_log_and_others_go_on(index, grid, monkeypatch):
    monkeypatch.setattr("fallow.client.job.START_DELAY_S", 60)  # it starts once the files are spoiled
    index.add("apple", "1.0")
    index.answer_files = index.answer

    def spoiled(path):
        body, kind = index.answer_files(path)
        return (body + b"x" if body and path.startswith("/files/") else body), kind

    env = Environment(["apple"])
    job = grid.map(version_of, ["apple"] * 3, env=env)
    index.answer = spoiled
    with pytest.raises(EnvironmentFailed, match=r"on [\w.-]+: (.|\n)*Failed to download `apple==1.0`"):
        job.result(60)
    assert grid.map(abs, [-1]).result(60) == [1]
    index.answer = index.answer_files


@pytest.mark.slow
def test_a_module_that_is_missing_comes_with_the_line_that_brings_it(grid):
    with pytest.raises(ModuleNotFoundError) as caught:
        grid.map(version_of, ["scarce_fruit"]).result(60)
    assert any('env=Environment(packages=["scarce_fruit"])' in note for note in caught.value.__notes__)


@pytest.mark.slow
def test_another_python_is_refused_at_once(grid):
    with pytest.raises(BadRequest, match=rf"pickled by Python {PYTHON}.*3\.99"):
        grid.map(abs, [1], env=Environment(python="3.99"))
    with pytest.raises(BadRequest, match=r"3\.99"):
        grid.options(env=Environment(python="3.99")).submit(abs, 1)


BACKEND = """
import zipfile
from pathlib import Path


def build_wheel(folder, config_settings=None, metadata_directory=None):
    files = {path.as_posix(): path.read_text() for path in Path("fruits").glob("*.py")}
    info = "fruits-1.0.dist-info"
    files[info + "/METADATA"] = "Metadata-Version: 2.1\\nName: fruits\\nVersion: 1.0\\nRequires-Dist: apple\\n"
    files[info + "/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[info + "/RECORD"] = "".join(name + ",,\\n" for name in [*files, info + "/RECORD"])
    with zipfile.ZipFile(Path(folder, "fruits-1.0-py3-none-any.whl"), "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return "fruits-1.0-py3-none-any.whl"


def build_sdist(folder, config_settings=None):
    import tarfile

    with tarfile.open(Path(folder, "fruits-1.0.tar.gz"), "w:gz") as archive:
        archive.add(".", "fruits-1.0")
    return "fruits-1.0.tar.gz"
"""


@pytest.mark.slow
def test_a_project_travels_as_a_wheel_and_its_changes_with_it(index, grid, tmp_path):
    index.add("apple", "1.5")
    project = tmp_path / "project"
    (project / "fruits").mkdir(parents=True)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "fruits"\nversion = "1.0"\ndependencies = ["apple"]\n'
    )
    (project / "backend.py").write_text(BACKEND)
    (project / "fruits" / "__init__.py").write_text("from apple import VERSION\n")
    assert grid.map(version_of, ["fruits"], env=Environment.from_project(project)).result(60) == ["1.5"]
    (project / "fruits" / "__init__.py").write_text("VERSION = 'changed'\n")
    assert grid.map(version_of, ["fruits"], env=Environment.from_project(project)).result(60) == ["changed"]
    (project / "backend.py").write_text("raise RuntimeError('a backend that breaks')\n")
    with pytest.raises(BadRequest, match=r"can't be built(.|\n)*a backend that breaks"):
        grid.map(version_of, ["fruits"], env=Environment([str(project)])).result(60)


@pytest.mark.slow
def test_capture_takes_what_the_function_needs(index, grid, tmp_path, monkeypatch, make_wheel):
    for name in ("apple", "pear"):
        index.add(name, "1.5")
        index.add(name, "3.0")
        place = tmp_path / "lib" / f"python{PYTHON}" / "site-packages"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.py").write_text("VERSION = 'installed'\n")
        info = place / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "top_level.txt").write_text(f"{name}\n")
    monkeypatch.syspath_prepend(str(place))
    import apple

    def needs_apple(_):
        return apple.VERSION

    def has_pear(_):
        import importlib.util

        return importlib.util.find_spec("pear") is not None

    try:
        env = Environment.capture()
        assert grid.map(needs_apple, [1], env=env).result(60) == ["1.5"]
        assert grid.map(needs_apple, [1], env=env).map(has_pear, env=env).result(60) == [False]
    finally:
        del sys.modules["apple"]


@pytest.mark.slow
def test_programs_run_in_environments_too(index, grid):
    index.add("apple", "1.5")
    job = grid.run(["python", "-c", "import apple; print(apple.VERSION)"], env=Environment(["apple"]))
    assert [each.stdout for each in job] == ["1.5\n"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_numpy(monkeypatch, tmp_path, no_orphans):
    """With the index that this computer is configured for."""
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "no-config.toml"))
    for name in ("FALLOW_HUB", "FALLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def total(n):
        import numpy

        return int(numpy.arange(n).sum())

    with Grid(slots=2) as grid:
        env = Environment(["numpy"])
        began = time.monotonic()
        assert grid.map(total, [10], env=env).result(200) == [45]
        cold = time.monotonic() - began
        began = time.monotonic()
        assert grid.map(total, [100], env=env).result(60) == [4950]
        print(f"cold {cold:.1f} s, warm {time.monotonic() - began:.2f} s")
