"""Readers hand out each index once, whatever pages it comes in; parts of pages are sliced right."""

import pytest

from fallow.client.inputs import Gate
from fallow.client.job import Job
from fallow.client.job_state import JobState
from fallow.client.readers import CompletionReader, OrderedReader
from fallow.client.result_page import ResultValues
from fallow.model.failure import Failure
from fallow.model.ids import JobId
from fallow.model.page import ResultPage, StoredPage
from fallow.slot.pages import encode_list


def stored(start, stop, counts=None, **more):
    """Make a page whose value at each index is ten times that index."""
    kept = more.get("kept") or (start, stop)
    values = [index * 10 for a, b in zip(kept[::2], kept[1::2], strict=True) for index in range(a, b)]
    data = b"".join(encode_list(values))
    return StoredPage(ResultPage(start, stop, data, **more), counts or (start, stop))


@pytest.fixture(params=[OrderedReader, CompletionReader])
def reader(request):
    return request.param(JobState(JobId("j"), "j", Gate(is_windowed=False)), 1)


def come(reader, *pages):
    reader.on_pages(pages, {})


def taken(reader):
    values, start, stop = reader.take(1)
    return start, stop, [value for _, value, _ in values.outcomes(start, stop)]


def test_a_page_that_reaches_into_what_was_taken_counts_for_the_rest(reader):
    come(reader, stored(0, 10))
    assert taken(reader)[:2] == (0, 10)
    come(reader, stored(0, 20))  # its task ran again, with others, after the first one's commit was lost
    assert taken(reader) == (10, 20, [index * 10 for index in range(10, 20)])


def test_a_page_that_reaches_into_what_came_early_counts_for_the_rest(reader):
    come(reader, stored(5, 10), stored(0, 8))
    found = sorted([taken(reader), taken(reader)])
    assert found == [(0, 5, [0, 10, 20, 30, 40]), (5, 10, [50, 60, 70, 80, 90])]


def test_a_page_around_what_came_early_counts_on_both_sides(reader):
    come(reader, stored(5, 10), stored(0, 20))
    assert sorted(taken(reader)[:2] for _ in range(3)) == [(0, 5), (5, 10), (10, 20)]


def test_a_page_that_came_before_counts_for_nothing(reader):
    come(reader, stored(0, 10), stored(0, 10), stored(10, 12), stored(2, 11))
    assert [taken(reader)[:2] for _ in range(2)] == [(0, 10), (10, 12)]
    with pytest.raises(TimeoutError):
        reader.take(0)
    assert reader.missing()[0][0] == 12


def test_what_is_missing_leaves_out_what_came_early(reader):
    come(reader, stored(5, 10), stored(20, 30, (22, 25)))
    assert [*reader.missing()[:2], reader.missing()[2][0]] == [(0, 5), (10, 22), 25]


# --- slices ---


class Read(Job):
    """A job whose parts of pages have come."""

    def __init__(self, stored):
        values, counts = ResultValues(stored, stored.page.data), stored.counts
        self.entries = [(values, *part) for part in zip(counts[::2], counts[1::2], strict=True)]

    def _entries(self, reader_type, deadline=None):
        yield from self.entries

    def chunks(self, *, return_exceptions=False):
        return [list(each) for each in self._chunks(OrderedReader, return_exceptions=return_exceptions, deadline=None)]

    def outcomes(self):
        return [
            [(index, value, failure and failure.kind) for index, value, failure in values.outcomes(start, stop)]
            for values, start, stop in self.entries
        ]


def test_the_parts_of_a_fold_come_whole_with_the_first_index_of_each():
    read = Read(StoredPage(ResultPage(100, 900, b"".join(encode_list([4950])), partial=True), (100, 900)))
    assert list(read.as_completed()) == [(100, 4950)]
    assert read.chunks() == [[4950]]
    empty = Read(StoredPage(ResultPage(0, 9, b"".join(encode_list([])), kept=(), partial=True), (0, 9)))
    assert list(empty.as_completed()) == []


def test_a_part_of_a_fold_that_failed_is_raised_or_stands_for_its_part():
    read = Read(StoredPage(ResultPage(0, 9, kept=(), failures=FAILURES[:1], partial=True), (0, 9)))
    ((index, error),) = read.as_completed(return_exceptions=True)
    assert (index, str(error)) == (0, "KeyError: 1")
    assert [str(each) for each in read.chunks(return_exceptions=True)[0]] == ["KeyError: 1"]
    for results in (read.as_completed(), read._chunks(OrderedReader, return_exceptions=False, deadline=None)):
        with pytest.raises(Exception, match="KeyError: 1"):
            next(results)


FAILURES = tuple(Failure(index=index, kind="raised", type_name="KeyError", message=str(index)) for index in (1, 5, 9))


def test_parts_of_a_plain_page():
    read = Read(stored(0, 10, (0, 2, 8, 10)))
    assert read.chunks() == [[0, 10], [80, 90]]
    assert read.outcomes() == [[(0, 0, None), (1, 10, None)], [(8, 80, None), (9, 90, None)]]


def test_parts_of_a_page_that_does_not_start_at_0():
    assert Read(stored(100, 110, (101, 103, 109, 110))).chunks() == [[1010, 1020], [1090]]
    assert Read(stored(100, 110)).chunks() == [[index * 10 for index in range(100, 110)]]


def test_parts_of_a_page_with_failures_and_without_what_was_filtered_out():
    read = Read(stored(0, 10, (0, 2, 8, 10), kept=(0, 1, 3, 4, 6, 9), failures=FAILURES))
    assert read.outcomes() == [[(0, 0, None), (1, None, "raised")], [(8, 80, None), (9, None, "raised")]]
    (first, second) = read.chunks(return_exceptions=True)
    assert (first[0], str(first[1])) == (0, "KeyError: 1")
    assert (second[0], str(second[1])) == (80, "KeyError: 9")


def test_a_failure_between_values_keeps_its_place():
    kept = (0, 1, 2, 5, 6, 9)
    read = Read(stored(0, 10, kept=kept, failures=FAILURES))
    assert [(index, value) for index, value, _ in read.outcomes()[0]] == [
        (index, None if index in {1, 5, 9} else index * 10) for index in range(10)
    ]


def test_failures_alone_leave_all_other_indices_their_values():
    page = ResultPage(0, 4, b"".join(encode_list([0, 20, 30])), failures=FAILURES[:1])
    (found,) = Read(StoredPage(page, (0, 4))).outcomes()
    assert found == [(0, 0, None), (1, None, "raised"), (2, 20, None), (3, 30, None)]


def test_what_a_task_raised_is_raised_in_its_part_alone():
    read = Read(stored(0, 10, (0, 1, 8, 10), kept=(0, 1, 2, 5, 6, 9), failures=FAILURES))
    chunks = read._chunks(OrderedReader, return_exceptions=False, deadline=None)
    assert list(next(chunks)) == [0]
    with pytest.raises(Exception, match="9"):
        list(next(chunks))
