import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.slot import pages
from fallow.slot.pickling import OUT_OF_BAND_BYTES

pytestmark = pytest.mark.slow

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
sizes = st.lists(
    st.sampled_from([0, 1, 100, OUT_OF_BAND_BYTES - 1, OUT_OF_BAND_BYTES, OUT_OF_BAND_BYTES + 7]), max_size=6
)


@given(st.lists(values))
def test_any_list_comes_back(items):
    assert pages.decode(b"".join(pages.encode_list(items))) == items


@given(sizes)
def test_buffers_of_any_size_come_back(lengths):
    buffers = [pickle.PickleBuffer(bytearray(i % 251 for i in range(length))) for length in lengths]
    page = b"".join(pages.encode_list(buffers))
    assert [bytes(each) for each in pages.decode(page)] == [bytes(each) for each in buffers]


@given(st.lists(values), st.data())
def test_calls_can_be_read_from_anywhere(items, data):
    page = pages.decode(pages.encode_calls([pickle.dumps(item) for item in items]))
    start = data.draw(st.integers(0, len(items)))
    stop = data.draw(st.integers(start, len(items)))
    assert page[start:stop] == items[start:stop]


@given(st.lists(values), st.data())
def test_a_cut_page_is_never_taken_for_a_whole_one(items, data):
    whole = b"".join(pages.encode_list(items))
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        pages.decode(whole[:cut])
    except (pages.BadPage, pickle.UnpicklingError, EOFError):
        return
    raise AssertionError(f"{cut} of {len(whole)} bytes were taken for a page")
