"""A watch sends what is wanted, once, within its credit."""

from fallow.hub.core.watch import UNLIMITED, Watch
from fallow.model.page import ResultPage, StoredPage
from fallow.model.ranges import RangeSet


def page(start: int, stop: int, *counts: int, data: bytes = b"x" * 1000) -> StoredPage:
    return StoredPage(ResultPage(start, stop, data), counts or (start, stop))


def test_sends_a_wanted_page_once():
    watch = Watch()
    watch.extend(0, 100, UNLIMITED)
    assert watch.take(page(0, 10))
    assert not watch.take(page(0, 10))


def test_leaves_out_what_is_not_wanted():
    watch = Watch()
    watch.extend(50, 100, UNLIMITED)
    assert not watch.take(page(0, 50))
    assert watch.take(page(40, 60))


def test_what_was_sent_is_not_wanted_again():
    watch = Watch()
    watch.extend(0, 100, UNLIMITED)
    watch.take(page(0, 10))
    watch.extend(0, 100, 0)
    assert watch.want == RangeSet([(10, 100)])


def test_without_credit_only_the_page_that_an_ordered_reader_waits_for_goes():
    watch = Watch()
    watch.extend(0, 100, 1)
    assert watch.take(page(10, 20))  # uses up the credit
    assert not watch.take(page(20, 30))
    assert watch.take(page(0, 10))
    watch.extend(0, 0, 5000)
    assert watch.take(page(20, 30))


def test_a_page_of_which_only_parts_count():
    watch = Watch()
    watch.extend(0, 100, UNLIMITED)
    assert watch.take(page(0, 10, 0, 2, 8, 10))
    assert watch.want == RangeSet([(2, 8), (10, 100)])


def test_ready_is_what_is_settled_and_wanted():
    watch = Watch()
    watch.extend(5, 30, UNLIMITED)
    assert watch.ready(RangeSet([(0, 10), (20, 40)])) == [(5, 10), (20, 30)]


def test_ready_without_credit_is_the_lowest_wanted_index_alone():
    watch = Watch()
    watch.extend(5, 30, 0)
    assert watch.ready(RangeSet([(0, 10)])) == [(5, 6)]
    assert watch.ready(RangeSet([(6, 10)])) == []
