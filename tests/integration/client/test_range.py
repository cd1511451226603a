"""A `range` travels as a range, however long it is."""

import pytest

from fallow.model.job import Counting

pytestmark = pytest.mark.slow


def square(x):
    return x * x


def test_a_range_is_not_cut_into_pages(grid):
    job = grid.map(square, range(5, 10**9, 2), name="squares-of-a-range")
    results = iter(job)
    assert [next(results) for _ in range(3)] == [25, 49, 81]
    results.close()
    (info,) = [each for each in grid.jobs() if each.spec.name == "squares-of-a-range"]
    assert info.spec.inputs == Counting(5, 2)
    assert info.progress.size == len(range(5, 10**9, 2))
    job.cancel()
    job.delete()


def test_a_range_backwards(grid):
    job = grid.map(square, range(10, -10, -3), name="backwards")
    assert list(job) == [x * x for x in range(10, -10, -3)]
    assert job.info().spec.inputs == Counting(10, -3)
    job.delete()
