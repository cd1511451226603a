"""Calls that are pickled a page at a time are those that nothing can change, and come out as they went in."""

import enum
import pickle

import pytest

from fallow.client import stream
from fallow.client.plain_calls import MOST_BYTES, TYPICAL_BYTES, encode, ends, is_plain, one_by_one
from fallow.model.page import INLINE_BYTES
from fallow.slot.pages import decode


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    """One that may hold anything beside."""

    __slots__ = ()


@pytest.mark.parametrize(
    "args", [(), (1,), (True, None), (1.5, float("inf")), ("text", b"bytes"), (-(1 << 62), "é" * 9)]
)
def test_numbers_and_short_texts_are_plain(args):
    assert is_plain(args)
    assert [pickle.loads(one_by_one(args))] == list(decode(encode([args]))) == [(args, {})]


@pytest.mark.parametrize(
    "args",
    [([],), (1, {}), ((1,),), (Colour.RED,), (Text("a"),), (bytearray(1),), ("a" * 10_000,), (1 << 10_000,), (1,) * 50],
)
def test_what_can_change_or_is_large_is_not(args):
    assert not is_plain(args)


def test_a_page_of_both():
    calls = [(1, "a"), pickle.dumps((([2],), {"x": 3})), (None,)]
    assert list(decode(encode(calls))) == [((1, "a"), {}), (([2],), {"x": 3}), ((None,), {})]
    first, second, third = TYPICAL_BYTES, TYPICAL_BYTES + len(calls[1]), 2 * TYPICAL_BYTES + len(calls[1])
    assert ends(calls) == [0, first, second, third]
    assert list(ends([(1,), (2,)])) == [0, TYPICAL_BYTES, 2 * TYPICAL_BYTES]


def test_the_largest_page_of_plain_calls_is_an_inline_one():
    few = "é" * 50
    assert is_plain((few,))
    assert not is_plain((few, few))
    calls = [(few[:-4] + f"{n:04}",) for n in range(stream.PAGE_CALLS)]
    assert all(map(is_plain, calls))
    assert ends(calls)[-1] <= stream.PAGE_BYTES
    assert len(encode(calls)) < INLINE_BYTES
    assert stream.PAGE_CALLS * MOST_BYTES < INLINE_BYTES
