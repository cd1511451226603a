import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from fallow.model.errors import BadRequest
from fallow.node import node_job
from fallow.node.node_job import unpack_sources


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in members.items():
            zipped.writestr(name, text)
    return path


def test_sources_are_unpacked_whole(tmp_path):
    unpack_sources(archive(tmp_path / "a.zip", **{"pkg/__init__.py": "x = 1", "pkg/sub/m.py": ""}), tmp_path / "out")
    assert (tmp_path / "out/pkg/__init__.py").read_text() == "x = 1"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py", "c:evil.py", "a\\evil.py"])
def test_what_would_write_outside_is_refused(tmp_path, name):
    path = archive(tmp_path / "a.zip", **{"fine.py": ""})
    with zipfile.ZipFile(path, "a") as zipped:
        info = zipfile.ZipInfo("x")
        info.filename = name
        zipped.writestr(info, "")
    with pytest.raises(BadRequest, match="outside"):
        unpack_sources(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(BadRequest, match="link"):
        unpack_sources(path, tmp_path / "out")


def test_damaged_and_oversized_archives_are_refused(tmp_path, monkeypatch):
    (tmp_path / "bad.zip").write_bytes(b"not a zip")
    with pytest.raises(BadRequest, match="damaged"):
        unpack_sources(tmp_path / "bad.zip", tmp_path / "out")
    monkeypatch.setattr(node_job, "MAX_SOURCE_BYTES", 10)
    with pytest.raises(BadRequest, match="over"):
        unpack_sources(archive(tmp_path / "a.zip", **{"a.py": "x" * 11}), tmp_path / "out")


def test_jobs_that_bring_the_same_sources_may_unpack_them_at_the_same_time(tmp_path):
    packed = archive(tmp_path / "a.zip", **{f"pkg/m{number}.py": "x" for number in range(100)})
    for attempt in range(5):
        folder = tmp_path / "sources" / str(attempt)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _, folder=folder: unpack_sources(packed, folder), range(4)))
        assert len(list(folder.glob("pkg/*.py"))) == 100
        assert list(folder.parent.glob("partial-*")) == []
