"""Local modules are found, packed the same way each time, and packed anew when they change."""

import importlib
import io
import sys
import zipfile

import pytest

from fallow.client.sources import LocalSources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("wren"):
            del sys.modules[name]


def names(data):
    return sorted(zipfile.ZipFile(io.BytesIO(data)).namelist())


def test_modules_and_packages(folder):
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
    found = LocalSources().archives()
    assert names(found["wren_module"][1]) == ["wren_module.py"]
    assert names(found["wren_package"][1]) == [
        "wren_package/__init__.py", "wren_package/data.txt", "wren_package/inner/__init__.py",
        "wren_package/inner/not_imported.py",
    ]  # fmt: skip
    assert not {"fallow", "msgspec", "json", "__main__"} & set(found)


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
