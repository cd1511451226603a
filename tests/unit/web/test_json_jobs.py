import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.hub.web.json_jobs import PAGE_BYTES, PAGE_ITEMS, cut
from fallow.hub.web.results import json_results
from fallow.model.failure import Failure
from fallow.model.page import ResultPage, StoredPage


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=50))
def test_pages_hold_all_items_in_order(items):
    raws = [msgspec.Raw(msgspec.json.encode(item if not isinstance(item, int) else str(item))) for item in items]
    pages = list(cut(raws))
    assert [raw for _, _, page in pages for raw in msgspec.json.decode(page, type=list[msgspec.Raw])] == raws
    assert [start for start, _, _ in pages] == [0, *(stop for _, stop, _ in pages)][: len(pages)]


def test_pages_are_bounded():
    pages = list(cut([msgspec.Raw(b'"' + b"x" * 1000 + b'"')] * 1000))
    assert all(len(page) <= PAGE_BYTES + 1002 for _, _, page in pages)
    assert all(stop - start <= PAGE_ITEMS for start, stop, _ in cut([msgspec.Raw(b"1")] * 10_000))
    huge = list(cut([msgspec.Raw(b"1"), msgspec.Raw(b"2" * 10 * PAGE_BYTES), msgspec.Raw(b"3")]))
    assert [(start, stop) for start, stop, _ in huge] == [(0, 1), (1, 2), (2, 3)]


def read(page, counts):
    return [
        (each.index, "error" if each.error else bytes(each.value))
        for each in sorted(json_results(StoredPage(page, counts), page.data), key=lambda each: each.index)
    ]


def test_results_of_a_page_are_cut_to_what_counts():
    page = ResultPage(10, 15, b"[0,1,2,3,4]")
    assert read(page, (10, 15)) == [(10, b"0"), (11, b"1"), (12, b"2"), (13, b"3"), (14, b"4")]
    assert read(page, (11, 12, 14, 15)) == [(11, b"1"), (14, b"4")]


def test_failures_stand_among_the_values():
    failures = (Failure(index=11, kind="raised"), Failure(index=14, kind="raised"))
    for kept in ((10, 11, 12, 14), None):
        page = ResultPage(10, 15, b"[0,2,3]", kept=kept, failures=failures)
        assert [(index, value if value == "error" else int(value)) for index, value in read(page, (10, 14))] == [
            (10, 0),
            (11, "error"),
            (12, 2),
            (13, 3),
        ]
