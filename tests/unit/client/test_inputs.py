"""Inputs become pages: of the right size, in order, lazily, with the faulty item named."""

import os
import threading
import time

import pytest

from fallow.client.inputs import IN_FLIGHT_BYTES, PAGE_BYTES, PAGE_ITEMS, WINDOW_ITEMS, Gate, cut
from fallow.link.codec import encode_frame
from fallow.link.frames import AddInput
from fallow.model.errors import PicklingFailed, TooLarge
from fallow.model.page import INLINE_BYTES, InputPage
from fallow.slot.pages import decode
from fallow.slot.refs import Ref


def items_of(page):
    return list(decode(b"".join(page.pieces)))


def test_pages_are_contiguous_and_hold_all_items():
    found = list(cut(range(10_000), 10_000))
    assert [page.start for page in found] == [0, *[page.stop for page in found[:-1]]]
    assert [item for page in found for item in items_of(page)] == list(range(10_000))
    assert max(page.stop - page.start for page in found) == PAGE_ITEMS


def test_large_items_are_pages_of_their_own():
    found = list(cut([bytes(2_000_000)] * 3, 3))
    assert [(page.start, page.stop) for page in found] == [(0, 1), (1, 2), (2, 3)]


def test_a_page_over_the_inline_limit_is_split_while_it_holds_several_items():
    items = [b"x"] * 300 + [bytes(INLINE_BYTES // 2)] * 5
    for page in cut(items, len(items)):
        assert page.size_bytes <= INLINE_BYTES or page.stop - page.start == 1


@pytest.mark.parametrize("padding", [0, 5_000])
def test_pages_and_what_they_refer_to_fit_a_frame(padding):
    items = [([Ref(f"{number * 1000 + i:064x}") for i in range(1000)], bytes(padding)) for number in range(40)]
    found = list(cut(items, len(items)))
    assert [page.stop for page in found[:-1]] == [page.start for page in found[1:]]
    for page in found:
        data, blob = (b"".join(page.pieces), None) if page.fits_inline else (None, "b" * 64)
        encode_frame(AddInput(InputPage("j" * 32, page.start, page.stop, data, blob, page.refs)))


def test_an_item_that_refers_to_too_much_is_named():
    items = [1, [Ref(f"{i:064x}") for i in range(10_001)]]
    with pytest.raises(
        TooLarge, match=r"input 1, a list, refers to 10001 objects.*limit of 10000; put one list of them"
    ):
        list(cut(items, 2))


@pytest.mark.parametrize("is_sized", [True, False])
def test_pages_of_small_items_come_near_the_size_that_is_aimed_at(is_sized):
    items = [os.urandom(1000) for _ in range(3000)]
    found = list(cut(items, len(items))) if is_sized else list(cut(iter(items), None))
    sizes = [page.size_bytes for page in found]
    assert max(sizes) <= PAGE_BYTES * 1.05
    assert max(sizes) >= PAGE_BYTES * 0.9
    if is_sized:  # an iterator's pages also end when it is slow
        assert min(sizes[3:-1]) >= PAGE_BYTES * 0.9
    assert [item for page in found for item in items_of(page)] == items


def test_an_iterator_is_pulled_no_further_than_the_page():
    pulled = []

    def numbers():
        for i in range(100_000):
            pulled.append(i)
            yield i

    pages = cut(numbers(), None)
    first = next(pages)
    assert len(pulled) <= first.stop + 1


def test_the_item_that_cannot_be_pickled_is_named():
    items = [1, 2, threading.Lock(), 4]
    with pytest.raises(PicklingFailed, match="input 2, a lock"):
        list(cut(items, len(items)))


def test_pages_list_the_references_in_their_items():
    ref = Ref("d" * 64)
    found = list(cut([1, [ref], {"a": ref}], 3))
    assert {digest for page in found for digest in page.refs} == {"d" * 64}
    assert found[0].refs == ()


def test_the_gate_holds_a_feeder_until_the_reader_comes_near():
    gate = Gate(is_windowed=True)
    assert gate.passed(WINDOW_ITEMS, 60)
    gate.accepted(WINDOW_ITEMS)
    passed = threading.Event()

    def feed():
        gate.passed(WINDOW_ITEMS + 1, 60)
        passed.set()

    thread = threading.Thread(target=feed)
    thread.start()
    assert not passed.wait(0.05)
    gate.consumed(1)
    assert passed.wait(60)
    thread.join()


def test_the_gate_holds_a_feeder_while_too_many_bytes_are_not_acknowledged():
    gate = Gate(is_windowed=False)
    assert gate.passed(1, IN_FLIGHT_BYTES)
    passed = threading.Event()

    def feed():
        gate.passed(2, 60)
        passed.set()

    thread = threading.Thread(target=feed)
    thread.start()
    wait_for_waiter(gate)
    gate.consumed(1)  # what its reader does makes no difference
    wait_for_waiter(gate)
    assert not passed.is_set()
    gate.accepted(1)
    assert passed.wait(60)
    thread.join()


def test_the_gate_lets_pass_what_is_below_the_limit_and_one_page_of_any_size():
    gate = Gate(is_windowed=False)
    assert gate.passed(1, IN_FLIGHT_BYTES - 1)
    assert gate.passed(2, 10 * IN_FLIGHT_BYTES)
    gate.accepted(2)
    assert gate.passed(3, 10 * IN_FLIGHT_BYTES)


def wait_for_waiter(gate):
    deadline = time.monotonic() + 60
    while not gate._condition._waiters:
        assert time.monotonic() < deadline, "nobody waits at the gate"


def test_a_closed_gate_tells_the_feeder_to_stop():
    gate = Gate(is_windowed=True)
    gate.close()
    assert not gate.passed(1, 60)
