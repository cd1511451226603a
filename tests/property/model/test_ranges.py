"""RangeSet against Python sets."""

from hypothesis import given
from hypothesis import strategies as st

from fallow.model.ranges import RangeSet

BOUND = 40
edges = st.integers(0, BOUND)
ranges = st.tuples(edges, edges)
steps = st.lists(st.tuples(st.sampled_from(["add", "discard", "take"]), edges, edges), max_size=25)


def indices(parts):
    return [index for start, stop in parts for index in range(start, stop)]


@given(steps)
def test_every_operation_agrees_with_a_set(steps):
    ours, theirs = RangeSet(), set()
    for what, start, stop in steps:
        wanted = set(range(start, stop))
        if what == "add":
            assert indices(ours.add(start, stop)) == sorted(wanted - theirs)
            theirs |= wanted
        elif what == "discard":
            assert indices(ours.discard(start, stop)) == sorted(wanted & theirs)
            theirs -= wanted
        else:
            taken = ours.take(start + 1)
            assert (taken is None) == (not theirs)
            if taken is not None:
                got = indices([taken])
                assert got == sorted(theirs)[: len(got)]
                assert len(got) <= start + 1
                theirs -= set(got)
        ours.check_invariants()
        assert indices(ours.ranges()) == sorted(theirs)
        assert len(ours) == len(theirs)
        assert bool(ours) == bool(theirs)
        assert ours.end == (max(theirs) + 1 if theirs else 0)
        assert ours.run_count == sum(index - 1 not in theirs for index in theirs)
        if theirs:
            assert ours.first == min(theirs)


@given(st.lists(ranges, max_size=10), edges, edges)
def test_questions(parts, start, stop):
    ours, theirs = RangeSet(parts), set(indices(parts))
    asked = set(range(start, stop))
    assert indices(ours.missing(start, stop)) == sorted(asked - theirs)
    if start <= stop:
        assert indices(ours.within(start, stop)) == sorted(asked & theirs)
    if start < stop:
        assert ours.covers(start, stop) == (asked <= theirs)
    assert (start in ours) == (start in theirs)


@given(st.lists(ranges, max_size=10))
def test_the_flat_form_reads_back_and_a_copy_is_its_own(parts):
    ours = RangeSet(parts)
    assert RangeSet.from_flat(ours.flat()) == ours
    twin = ours.copy()
    assert twin == ours
    twin.add(BOUND + 5, BOUND + 6)
    assert twin != ours
    twin.clear()
    assert len(twin) == 0
    assert list(twin.ranges()) == []


@given(st.lists(ranges, max_size=8), st.lists(ranges, max_size=8))
def test_equal_when_the_same_indices_are_in_them(some, others):
    assert (RangeSet(some) == RangeSet(others)) == (set(indices(some)) == set(indices(others)))
