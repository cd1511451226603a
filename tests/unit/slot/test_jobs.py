"""Pages of inputs in a slot."""

import pytest

from fallow.slot.jobs import Page, SlotJob
from fallow.slot.pages import encode_list


class Counted:
    """How many of them there are."""

    alive = 0

    def __init__(self) -> None:
        Counted.alive += 1

    def __setstate__(self, state: object) -> None:
        Counted.alive += 1

    def __getstate__(self) -> int:
        return 1

    def __del__(self) -> None:
        Counted.alive -= 1


@pytest.fixture
def job() -> SlotJob:
    job = SlotJob((("map",), "pickle", None, None, False, (), {}), b"", "")
    data = b"".join(encode_list([Counted() for _ in range(10)]))
    for number in range(3):
        job.add_page(number, Page(10 * number, 10 * number + 10, None, data, None))
    return job


def items(job: SlotJob, page: int, start: int, stop: int) -> int:
    return sum(len(each) for _, each in job.segments(page, start, stop))


def test_of_all_pages_one_is_unpickled_at_a_time(job):
    assert Counted.alive == 0
    for page in (0, 1, 2, 0):
        assert items(job, page, 10 * page, 10 * page + 5) == 5
        assert items(job, page, 10 * page + 5, 10 * page + 10) == 5
        assert Counted.alive == 10


def test_a_page_that_is_dropped_leaves_nothing(job):
    assert items(job, 1, 10, 15) == 5
    job.drop_page(0)
    assert Counted.alive == 10
    job.drop_page(1)
    assert Counted.alive == 0
    assert items(job, 2, 20, 30) == 10
