"""A checkpoint folder as one file and back, without following what leads out of it."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from fallow.slot import checkpoint
from fallow.slot.checkpoint import Unfit, look, make_empty, pack, unpack


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "checkpoint"
    made.mkdir()
    return made


def there_and_back(folder, tmp_path):
    pack(str(folder), look(str(folder)), str(tmp_path / "packed"))
    (tmp_path / "out").mkdir()
    unpack(str(tmp_path / "packed"), str(tmp_path / "out"))
    return tmp_path / "out"


def test_files_and_folders_come_back_as_they_were(folder, tmp_path):
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "deep" / "er" / "größe\n").write_bytes(b"x" * 100_000)
    (folder / "none").touch()
    (folder / "tool").write_text("#!")
    (folder / "tool").chmod(0o750)
    out = there_and_back(folder, tmp_path)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        "deep", "deep/er", "deep/er/größe\n", "empty", "none", "tool"
    ]  # fmt: skip
    assert (out / "deep" / "er" / "größe\n").read_bytes() == b"x" * 100_000
    assert (out / "tool").stat().st_mode & 0o777 == 0o750
    assert int((out / "tool").stat().st_mtime) == int((folder / "tool").stat().st_mtime)


def test_links_pipes_and_what_is_being_written_are_left_out(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("do not read")
    (folder / "link").symlink_to(secret / "key")
    (folder / "linked").symlink_to(secret)
    (folder / "state.tmp").write_text("half")
    (folder / "state").write_text("whole")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    assert os.listdir(there_and_back(folder, tmp_path)) == ["state"]


def test_a_file_that_becomes_a_link_while_it_is_packed_is_not_followed(folder, tmp_path):
    (tmp_path / "secret").write_text("do not read")
    (folder / "state").write_text("state")
    seen = look(str(folder))
    (folder / "state").unlink()
    (folder / "state").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError):
        pack(str(folder), seen, str(tmp_path / "packed"))


def test_a_change_is_seen(folder):
    (folder / "state").write_text("one")
    before = look(str(folder))
    assert look(str(folder)) == before
    times = (folder / "state").stat()
    (folder / "state").write_text("two")  # of the same size
    os.utime(folder / "state", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert look(str(folder)) != before


def test_a_file_that_shrinks_while_it_is_packed_makes_no_checkpoint(folder, tmp_path):
    (folder / "state").write_bytes(b"x" * 100_000)
    seen = look(str(folder))
    (folder / "state").write_bytes(b"x")
    with pytest.raises(OSError):
        pack(str(folder), seen, str(tmp_path / "packed"))


def test_too_many_files_and_too_large_ones_are_refused(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_FILES", 20)
    for number in range(30):
        (folder / f"{number}").touch()
    with pytest.raises(Unfit, match="over 20 files"):
        look(str(folder))
    monkeypatch.setattr(checkpoint, "MAX_FILES", 10_000)
    with (folder / "huge").open("wb") as file:
        file.truncate(checkpoint.MAX_BYTES + 1)
    with pytest.raises(Unfit, match="larger than 1024 MiB"):
        look(str(folder))


def packed(path, *members):
    with tarfile.open(path, "w") as archive:
        for name, kind, size, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, size, link
            archive.addfile(member, io.BytesIO(bytes(size)))
    return str(path)


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, 3, "")],
        [("a/../../out", tarfile.REGTYPE, 3, "")],
        [("/tmp/fallow-out", tarfile.REGTYPE, 3, "")],
        [("a\\..\\out", tarfile.REGTYPE, 3, "")],
        [("link", tarfile.SYMTYPE, 0, ".."), ("link/out", tarfile.REGTYPE, 3, "")],
        [("link", tarfile.LNKTYPE, 0, "../secret")],
        [("device", tarfile.CHRTYPE, 0, "")],
        [("pipe", tarfile.FIFOTYPE, 0, "")],
    ],
)
def test_nothing_is_unpacked_outside_of_the_folder(folder, tmp_path, members):
    before = sorted(tmp_path.iterdir())
    path = packed(tmp_path / "packed", *members)
    with pytest.raises(Unfit):
        unpack(path, str(folder))
    assert sorted(tmp_path.iterdir()) == sorted([*before, Path(path)])
    assert not any(each.is_symlink() for each in folder.iterdir())


def test_an_archive_that_would_fill_the_disk_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 1000)
    with pytest.raises(Unfit, match="larger"):
        unpack(
            packed(tmp_path / "packed", ("a", tarfile.REGTYPE, 600, ""), ("b", tarfile.REGTYPE, 600, "")), str(folder)
        )
    monkeypatch.setattr(checkpoint, "MAX_FILES", 2)
    with pytest.raises(Unfit, match="over 2 files"):
        make_empty(str(folder))
        unpack(packed(tmp_path / "many", *((name, tarfile.REGTYPE, 0, "") for name in "abc")), str(folder))


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, bytes(512)])
def test_what_is_no_archive_is_refused_or_empty(folder, tmp_path, content):
    (tmp_path / "packed").write_bytes(content)
    try:
        unpack(str(tmp_path / "packed"), str(folder))
    except Unfit as error:
        assert "damaged" in str(error)  # noqa: PT017 -- an empty archive is no error
    assert not list(folder.iterdir())


def test_a_folder_is_made_empty_whatever_is_there(folder, tmp_path):
    (folder / "closed").mkdir()
    (folder / "closed" / "file").touch()
    (folder / "closed").chmod(0)
    make_empty(str(folder))
    assert list(folder.iterdir()) == []
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    folder.rmdir()
    folder.symlink_to(tmp_path / "precious")
    make_empty(str(folder))
    assert list(folder.iterdir()) == []
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.skipif(not hasattr(os, "fwalk"), reason="needs folders relative to a handle")
def test_a_folder_as_deep_as_can_be_is_out_of_the_way_of_the_next_task(folder, tmp_path):
    here = os.open(folder, os.O_RDONLY)
    for _ in range(1_200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(Unfit, match="over 100 deep"):
        look(str(folder))
    make_empty(str(folder))
    assert list(folder.iterdir()) == []
    subprocess.run(["rm", "-rf", *map(str, tmp_path.iterdir())], check=True)
