"""Tasks' own files become pages: small ones inside, blobs beside, never more of them than a page's tasks need."""

import tracemalloc

import pytest

from fallow.client.inputs import PAGE_BYTES, PAGE_ITEMS
from fallow.client.sweep import read_parameters
from fallow.client.task_files import TaskFiles, TaskFilesSource
from fallow.model.errors import BadRequest
from fallow.slot.pages import decode
from fallow.slot.program import FILES

SMALL, LARGE = 20_000, 200_000
"""Bytes of files that travel with the parameters the first time, and of files that never do."""


@pytest.fixture
def cut(tmp_path):
    """Return what cuts tasks with `data/{x}` into pages."""
    (tmp_path / "data").mkdir()

    def pages(params, own=(("", "data/{x}"),)):
        rows = read_parameters(params)
        source = TaskFilesSource(rows, rows.known_length(), {}, TaskFiles(own, tmp_path, rows.names, []))
        return source.pages()

    return pages


def write(tmp_path, sizes):
    for x, size in enumerate(sizes):
        (tmp_path / "data" / str(x)).write_bytes((b"%d " % x * size)[:size])


def items_of(page):
    return list(decode(b"".join(page.pieces)))


def test_small_files_travel_with_their_tasks_in_pages_of_bounded_size(cut, tmp_path):
    write(tmp_path, [SMALL] * 40)
    found = list(cut({"x": range(40)}))
    assert [page.start for page in found] == [0, *[page.stop for page in found[:-1]]]
    assert found[0].stop == 1, "the first one begins at once"
    assert all(page.size_bytes < 2 * PAGE_BYTES and not page.refs for page in found)
    items = [item for page in found for item in items_of(page)]
    assert [item["x"] for item in items] == list(range(40))
    assert all([file["path"] for file in item[FILES]] == [str(item["x"])] for item in items)


def test_a_page_ends_where_other_blobs_are_needed(cut, tmp_path):
    write(tmp_path, [LARGE] * 3)
    found = list(cut({"x": range(3), "again": range(5)}))
    assert [(page.stop - page.start, len(page.refs)) for page in found] == [(1, 1), (4, 1), (5, 1), (5, 1)]
    assert [set(page.refs) == set(page.blobs) for page in found] == [True] * 4
    crossed = list(cut({"again": range(5), "x": range(3)}))
    assert [len(page.refs) for page in crossed] == [1] * 15


def test_a_small_file_of_many_tasks_becomes_a_blob(cut, tmp_path):
    write(tmp_path, [SMALL])
    found = list(cut({"x": [0], "again": range(2 * PAGE_ITEMS)}))
    assert [(page.start, len(page.refs)) for page in found[:3]] == [(0, 0), (1, 1), (17, 1)]
    assert len({digest for page in found for digest in page.refs}) == 1
    assert sum(page.size_bytes for page in found) < 2 * PAGE_ITEMS * 250


def test_a_long_sweep_is_never_held(cut, tmp_path):
    """8 MB of files, of which a page at a time is in memory."""
    write(tmp_path, [4_000] * 50)
    tracemalloc.start()
    try:
        tasks = sum(page.stop - page.start for page in cut({"again": range(40), "x": range(50)}))
        assert tasks == 2_000
        assert tracemalloc.get_traced_memory()[1] < 8 * PAGE_BYTES
    finally:
        tracemalloc.stop()


def test_of_a_long_sweep_files_are_looked_for_when_their_turn_comes(cut, tmp_path):
    write(tmp_path, [10])
    rows = read_parameters({"x": range(100_000)})
    TaskFiles([("", "data/{x}")], tmp_path, rows.names, []).check(rows)
    pages = cut({"x": range(100_000)})
    with pytest.raises(BadRequest, match=r"data/1 is not there \(of task 1 \(x=1\)\)"):
        list(pages)
