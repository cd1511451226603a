"""Local modules are found, packed the same way each time, and packed anew when they change."""

import importlib
import io
import logging
import sys
import types
import zipfile

import pytest

from fallow.client.sources import LocalSources, Paced


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("wren"):
            del sys.modules[name]


@pytest.fixture
def write(folder):
    """Write a file of the folder, and those of packages around it."""

    def make(name, text=""):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    return make


def names(data):
    return sorted(zipfile.ZipFile(io.BytesIO(data)).namelist())


def packed():
    """Return what travels: the names in all archives of this test's modules."""
    found = LocalSources().archives()
    return sorted(each for name, (_, data) in found.items() if name.startswith("wren") for each in names(data))


def test_modules_and_packages(folder, caplog):
    (folder / "wren_module.py").write_text("X = 1\n")
    package = folder / "wren_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "not_imported.py").write_text("")
    (package / "data.txt").write_text("data")
    (package / "big.bin").write_bytes(bytes(3 << 20))
    importlib.import_module("wren_module")
    importlib.import_module("wren_package")
    sources = LocalSources()
    with caplog.at_level(logging.WARNING, "fallow"):
        found = sources.archives()
        sources.archives()
    assert names(found["wren_module"][1]) == ["wren_module.py"]
    assert names(found["wren_package"][1]) == [
        "wren_package/__init__.py", "wren_package/data.txt", "wren_package/inner/__init__.py",
        "wren_package/inner/not_imported.py",
    ]  # fmt: skip
    assert not {"fallow", "msgspec", "json", "__main__"} & set(found)
    (told,) = [each.getMessage() for each in caplog.records if "wren" in each.getMessage()]
    assert told.startswith("big.bin of the package wren_package does not travel")
    assert "grid.put()" in told


def test_changed_code_has_another_digest_and_unchanged_code_the_same(folder):
    path = folder / "wren_changing.py"
    path.write_text("X = 1\n")
    importlib.import_module("wren_changing")
    sources = LocalSources()
    first = sources.archives()["wren_changing"]
    assert sources.archives()["wren_changing"] is first
    assert LocalSources().archives()["wren_changing"][0] == first[0]
    path.write_text("X = 1234\n")
    assert sources.archives()["wren_changing"][0] != first[0]


@pytest.mark.parametrize(
    "statement",
    [
        "import wren_late",
        "import json, wren_late as it",
        "from wren_late import X",
        "from wren_space import late",
        "from wren_space.late import (\n        X, Y)",
        "import wren_space.deep.late",
        "if x: import wren_late",
        "from wren_space import (  # a comment\n        other as X, late\n    )",
    ],
)
def test_what_functions_import_when_they_run_travels(write, statement):
    write("wren_early.py", f"def f(x):\n    {statement}\n")
    write("wren_late.py", "import wren_last, no_such_module\n")
    write("wren_last.py")
    write("wren_other.py")
    write("wren_space/late.py", "from . import beside\nfrom .beside import other\n")
    write("wren_space/beside.py")
    write("wren_space/other.py")
    write("wren_space/deep/late.py")
    importlib.import_module("wren_early")
    if "wren_late" in statement:
        expected = ["wren_early.py", "wren_last.py", "wren_late.py"]
    elif "deep" in statement:
        expected = ["wren_early.py", "wren_space/deep/late.py"]
    else:
        expected = ["wren_early.py", "wren_space/beside.py", "wren_space/late.py"]
        expected += ["wren_space/other.py"] if "other" in statement else []
    assert packed() == expected
    assert "wren_late" not in sys.modules  # nothing is imported to find out


def test_a_loaded_namespace_gives_what_is_imported_from_it(write):
    write("wren_space/loaded.py", "def f(x):\n    from wren_space import late\n    import wren_space.whole\n")
    write("wren_space/late.py")
    write("wren_space/never.py")
    write("wren_space/whole/__init__.py")
    write("wren_space/whole/part.py")
    importlib.import_module("wren_space.loaded")
    assert packed() == [f"wren_space/{each}.py" for each in ("late", "loaded", "whole/__init__", "whole/part")]


def test_a_package_comes_before_a_loose_module_of_its_name_as_in_python(write):
    write("wren_twice.py", "X = 'loose'\n")
    write("wren_twice/__init__.py", "X = 'package'\n")
    assert importlib.import_module("wren_twice").X == "package"
    assert packed() == ["wren_twice/__init__.py"]


def test_functions_of_a_notebook(write, monkeypatch):
    """They have no file; what they import is in their code."""
    write("wren_late.py")
    write("wren_space/later.py")
    notebook = types.ModuleType("__main__")
    exec(
        "def f(x):\n    def g():\n        import wren_late\n    return g\n"
        "class C:\n    def m(self):\n        from wren_space import later\n",
        vars(notebook),
    )
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    assert packed() == ["wren_late.py", "wren_space/later.py"]


def test_a_script_and_its_changes(write, monkeypatch):
    script = write("wren_script.py", "def f(x):\n    import wren_late\n")
    write("wren_late.py")
    other = write("wren_other.py", "X = 1\n")
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    sources = LocalSources()
    first = sources._look()
    assert sources._look() == first
    other.write_text("X = 22\n")
    assert sources._look() == first  # nobody imports it
    script.write_text("def f(x):\n    import wren_other\n")
    second = sources._look()
    assert second > first
    other.write_text("X = 333\n")
    assert sources._look() > second


def test_the_version_grows_with_each_change(write):
    path = write("wren_package/__init__.py")
    importlib.import_module("wren_package")
    sources = LocalSources()
    versions = [sources._look()]
    for change in (
        lambda: path.write_text("X = 1\n"),
        lambda: write("wren_package/new.py"),
        lambda: write("wren_package/new.py", "Y = 1\n"),
        lambda: (path.parent / "new.py").unlink(),
        lambda: (write("wren_more.py"), importlib.import_module("wren_more")),
    ):
        change()
        versions.append(sources._look())
        assert sources._look() == versions[-1]
    assert versions == sorted(set(versions))


def test_what_is_asked_at_every_call_looks_seldom_unless_it_must_be_sure(monkeypatch):
    now, looks = 0.0, []
    monkeypatch.setattr("fallow.client.sources.time.perf_counter", lambda: now)

    def look():
        nonlocal now
        now += 0.00001
        looks.append(now)
        return len(looks)

    ask = Paced(look)
    assert [ask(is_sure=False) for _ in range(10)] == [1] * 10
    now += 0.00019
    assert ask(is_sure=False) == 1
    now += 0.00002
    assert ask(is_sure=False) == 2
    assert [ask() for _ in range(3)] == [3, 4, 5]
