import operator

import pytest

from fallow.slot.pipeline import Pipeline

COUNTER = memoryview(bytearray(64)).cast("Q")


def run(stages, functions, items, *, index=0, has_timeout=False, called=False):
    pipeline = Pipeline(stages, functions, has_timeout=has_timeout)
    values, kept, failed = [], [], []
    if called:
        items = [lambda item=item: item for item in items]
    pipeline.run(items, index, COUNTER, values, kept, lambda i, error: failed.append((i, type(error).__name__)))
    return values, kept, failed


def test_map_counts_its_items():
    assert run(["map"], [str], [1, 2], index=7) == (["1", "2"], [], [])
    assert COUNTER[0] == 9


def test_a_failure_is_noted_and_the_rest_goes_on():
    values, _, failed = run(["map"], [lambda x: 1 // x], [1, 0, -1], index=10)
    assert values == [1, -1]
    assert failed == [(11, "ZeroDivisionError")]


def test_filters_note_what_they_keep():
    values, kept, failed = run(["map", "filter", "map"], [abs, lambda x: x > 1, str], [-1, -2, None, 3])
    assert (values, kept, failed) == (["2", "3"], [1, 3], [(2, "TypeError")])


def test_folds():
    assert run(["reduce"], [operator.add], [1, 2, 3])[0] == [6]
    assert run(["filter", "reduce"], [lambda x: False, operator.add], [1, 2])[0] == []
    values, _, failed = run(["reduce"], [operator.add], [1, "x", 3])
    assert (values, failed) == ([4], [(1, "TypeError")])


def test_a_fold_can_be_gone_on_with_after_its_page_is_full():
    pipeline = Pipeline(["reduce"], [operator.add], has_timeout=False)
    values, left = [], iter([1, "x", 3])

    def full(index, error):
        raise StopIteration

    with pytest.raises(StopIteration):
        pipeline.run(left, 0, COUNTER, values, [], full)
    assert values == [1]
    values.clear()
    pipeline.run(left, 2, COUNTER, values, [], full)
    assert values == [3]


def test_calls():
    assert run(["call"], [pow], [((2, 3), {}), ((2,), {"exp": 2})], called=True)[0] == [8, 4]
    assert run(["apply", "map"], [None, str], [(max, (1, 2), {})], called=True)[0] == ["2"]
    assert run(["starmap"], [operator.sub], [(3, 1)])[0] == [2]


def test_times_are_noted_only_for_jobs_with_a_timeout():
    COUNTER[1] = 0
    run(["map"], [abs], [1])
    assert COUNTER[1] == 0
    run(["map"], [abs], [1], has_timeout=True)
    assert COUNTER[1] > 0


@pytest.mark.parametrize("stages", [["reduce", "map"], ["sing"], ["map", "map"]])
def test_impossible_pipelines_are_refused(stages):
    with pytest.raises(ValueError):
        Pipeline(stages, [abs] if stages == ["map", "map"] else [abs] * len(stages), has_timeout=False)
