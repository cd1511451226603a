import json
import pickle

import numpy as np
import pytest

from fallow.slot import pages
from fallow.slot.pickling import OUT_OF_BAND_BYTES, dumps


def page_of(items):
    return b"".join(pages.encode_list(items))


def test_a_list_comes_back():
    items = [1, "two", {"three": [4.0]}, None, b"six" * 100]
    assert pages.decode(page_of(items)) == items


def test_a_range_stays_a_range():
    assert pages.decode(page_of(range(10**9))) == range(10**9)


def test_large_buffers_lie_aligned_outside_of_the_pickle():
    arrays = [np.arange(OUT_OF_BAND_BYTES, dtype=np.uint8), np.ones((300, 300)), np.arange(3)]
    pieces = pages.encode_list(arrays)
    assert sum(isinstance(piece, memoryview) for piece in pieces) == 2
    page = b"".join(pieces)
    assert pages.size_bytes(pieces) == len(page)
    for sent, got in zip(arrays, pages.decode(page), strict=True):
        assert np.array_equal(sent, got)
    at = page.index(arrays[0].tobytes())
    assert at % pages.ALIGNMENT_BYTES == 0


def test_arrays_may_be_written_to_unless_the_page_is_shared():
    page = page_of([np.zeros(100_000), np.zeros(3)])
    mine, small = pages.decode(page)
    mine[0] = small[0] = 1
    shared, _ = pages.decode(page, writable=False)
    assert not shared.flags.writeable


def test_a_writable_page_is_not_copied():
    page = bytearray(page_of([np.zeros(100_000)]))
    (array,) = pages.decode(memoryview(page))
    array[:] = 7
    (again,) = pages.decode(memoryview(page))
    assert again[0] == 7


def test_calls_are_read_one_by_one_from_anywhere():
    calls = [((i,), {"k": str(i)}) for i in range(100)]
    page = pages.encode_calls([dumps(call) for call in calls])
    got = pages.decode(page)
    assert len(got) == 100
    assert got[42] == calls[42]
    assert got[-1] == calls[-1]
    assert got[10:13] == calls[10:13]
    assert list(got) == calls
    with pytest.raises(IndexError):
        got[100]


def test_a_call_that_cannot_be_read_leaves_the_others_alone():
    good = dumps("fine")
    got = pages.decode(pages.encode_calls([good, b"garbage", good]))
    assert got[0] == got[2] == "fine"
    with pytest.raises(pickle.UnpicklingError):
        got[1]


def test_json_pages_are_plain_arrays():
    page = pages.encode_json([1, "é", {"a": None}])
    assert json.loads(page) == [1, "é", {"a": None}]
    assert pages.decode(page) == [1, "é", {"a": None}]
    with pytest.raises(ValueError):
        pages.encode_json([float("nan")])


@pytest.mark.parametrize("page", [b"", b"X", b"L", b"C", b"C\0\0\0\xff\xff\0\0", page_of([1, 2])[:-3]])
def test_damaged_bytes_are_refused(page):
    with pytest.raises((pages.BadPage, pickle.UnpicklingError)):
        pages.decode(page)


def test_a_buffer_that_was_cut_off_is_refused():
    with pytest.raises(pages.BadPage, match="cut short"):
        pages.decode(page_of([np.zeros(100_000)])[:-1])
