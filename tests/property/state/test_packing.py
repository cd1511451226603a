"""Packed ranges, merged ranges and the test for wanted ones, against plain sets."""

import hypothesis.strategies as st
from hypothesis import given

from fallow.model.failure import Failure
from fallow.model.page import ResultPage, StoredPage
from fallow.model.ranges import RangeSet
from fallow.state.packing import Wanted, counted_failures, merge_ranges, pack_ranges, unpack_ranges

indices = st.sets(st.integers(0, 40))
far = st.sets(st.integers(0, 2**40))


def flat_of(numbers):
    return tuple(RangeSet((number, number + 1) for number in sorted(numbers)).flat())


def numbers_of(flat):
    return {number for start, stop in zip(flat[::2], flat[1::2], strict=True) for number in range(start, stop)}


@given(far)
def test_packed_ranges_come_back(numbers):
    assert unpack_ranges(pack_ranges(flat_of(numbers))) == flat_of(numbers)


def test_a_million_half_done_pack_small():
    assert len(pack_ranges((0, 500_000))) < 10
    assert len(pack_ranges(tuple(range(0, 20_000, 10)))) < 2100


@given(indices, st.lists(indices, max_size=4))
def test_merged_ranges_are_the_union(settled, more):
    assert merge_ranges(flat_of(settled), [flat_of(each) for each in more]) == flat_of(settled.union(*more))


@given(indices, indices)
def test_wanted_ranges_touch_what_shares_an_index(wanted, other):
    assert Wanted(list(RangeSet.from_flat(flat_of(wanted)).ranges())).touches(flat_of(other)) == bool(wanted & other)


@given(indices, indices)
def test_failures_count_where_their_index_does(failing, counts):
    failures = tuple(Failure(index=index, kind="raised") for index in sorted(failing))
    stored = StoredPage(ResultPage(0, 41, failures=failures), flat_of(counts))
    assert {failure.index for failure in counted_failures(stored)} == failing & counts
