"""Whatever a task has left goes."""

import os
import resource

import pytest

from fallow.slot.removing import remove_tree


def nest(folder, depth, name="d"):
    """Make folders in folders, deeper than any path can say."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "left"
    made.mkdir()
    return made


def test_folders_in_folders_by_the_thousand_go_with_few_open_files(folder):
    nest(folder, 2_000, "long-name-" * 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        remove_tree(str(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not folder.exists()


def test_links_go_and_what_they_lead_to_stays(folder, tmp_path):
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    (kept / "file").write_text("kept")
    (folder / "d").mkdir()
    for place in (folder, folder / "d"):
        (place / "to-folder").symlink_to(kept)
        (place / "to-file").symlink_to(kept / "file")
        (place / "nowhere").symlink_to("nowhere")
        os.mkfifo(place / "pipe")
    remove_tree(str(folder))
    assert not folder.exists()
    assert sorted(each.name for each in kept.iterdir()) == ["below", "file"]


def test_a_link_in_the_place_of_the_folder_is_not_followed(folder, tmp_path):
    (folder / "file").write_text("kept")
    link = tmp_path / "link"
    link.symlink_to(folder)
    remove_tree(str(link))
    assert (folder / "file").exists()


def test_what_nobody_may_read_or_write_goes(folder):
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("x")
    for place in ("a/b/c", "a/b", "a"):
        (folder / place).chmod(0)
    remove_tree(str(folder))
    assert not folder.exists()


def test_what_is_not_there_is_no_error(tmp_path):
    remove_tree(str(tmp_path / "never"))
