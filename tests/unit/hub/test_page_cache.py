"""The page cache: covering look-ups, eviction, pinned pages."""

from fallow.hub.core.page_cache import PageCache
from fallow.model.ids import Digest, JobId
from fallow.model.page import InputPage
from fallow.model.ranges import RangeSet

JOB = JobId("a" * 32)


def page(start: int, stop: int, size: int = 1000) -> InputPage:
    return InputPage(JOB, start, stop, b"x" * size)


def test_covering_returns_the_pages_in_order():
    cache = PageCache(1 << 20)
    for start in (0, 10, 20):
        cache.put(page(start, start + 10), pinned=False)
    assert [each.start for each in cache.covering(JOB, 5, 25)] == [0, 10, 20]
    assert [each.start for each in cache.covering(JOB, 10, 20)] == [10]


def test_covering_is_none_where_a_page_is_missing():
    cache = PageCache(1 << 20)
    cache.put(page(0, 10), pinned=False)
    cache.put(page(20, 30), pinned=False)
    assert cache.covering(JOB, 5, 25) is None
    assert cache.covering(JOB, 25, 35) is None
    assert cache.covering(JobId("b" * 32), 0, 1) is None


def test_the_least_recently_used_goes_first_and_pinned_pages_stay():
    cache = PageCache(3500)
    cache.put(page(0, 10), pinned=True)
    cache.put(page(10, 20), pinned=False)
    cache.put(page(20, 30), pinned=False)
    assert cache.covering(JOB, 10, 20) is None
    assert cache.covering(JOB, 0, 10) is not None
    cache.unpin(JOB, 0)
    cache.put(page(30, 40), pinned=False)
    cache.put(page(40, 50), pinned=False)
    assert cache.covering(JOB, 0, 10) is None
    assert cache.covering(JOB, 40, 50) is not None


def test_forgetting_a_job_drops_pinned_pages_too():
    cache = PageCache(1 << 20)
    cache.put(page(0, 10), pinned=True)
    cache.forget(JOB)
    assert cache.covering(JOB, 0, 10) is None


def test_settled_pages_are_dropped_from_the_front():
    cache = PageCache(1 << 20)
    for start in (0, 10, 20):
        cache.put(page(start, start + 10), pinned=False)
    cache.drop_settled(JOB, RangeSet([(0, 9), (10, 25)]))
    assert cache.covering(JOB, 0, 30) is not None
    cache.drop_settled(JOB, RangeSet([(0, 25)]))
    assert cache.covering(JOB, 10, 20) is None
    assert cache.covering(JOB, 20, 30) is not None


def test_blobs_of_dropped_pages_are_named():
    cache = PageCache(1 << 20)
    for number, start in enumerate((0, 10, 20)):
        cache.put(InputPage(JOB, start, start + 10, None, Digest(str(number))), pinned=start == 20)
    assert cache.drop_settled(JOB, RangeSet([(10, 30)])) == []
    assert cache.drop_settled(JOB, RangeSet([(0, 30)])) == ["0", "1"]
    assert cache.forget(JOB) == ["2"]
    assert cache.forget(JOB) == cache.drop_settled(JOB, RangeSet([(0, 30)])) == []
