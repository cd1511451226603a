"""Parameters: lists, ranges, cross products, columns that go together, tables; never held as a whole."""

import tracemalloc
from itertools import islice

import pytest

from fallow.client.inputs import cut
from fallow.client.sweep import Crossed, Steps, Sweep, Table, read_parameters, zipped
from fallow.model.errors import BadRequest
from fallow.slot.pages import encode_json


def test_columns_are_crossed_and_the_last_changes_fastest():
    sweep = read_parameters({"x": range(2), ("a", "b"): [(1, "p"), (2, "q")]})
    assert list(sweep) == [
        {"x": 0, "a": 1, "b": "p"},
        {"x": 0, "a": 2, "b": "q"},
        {"x": 1, "a": 1, "b": "p"},
        {"x": 1, "a": 2, "b": "q"},
    ]
    assert [sweep[i] for i in range(len(sweep))] == list(sweep)
    assert sweep[-1] == {"x": 1, "a": 2, "b": "q"}
    assert sweep[1:3] == list(sweep)[1:3]
    assert list(read_parameters(None)) == [{}]
    assert list(read_parameters({"x": 5})) == [{"x": 5}]
    assert list(read_parameters({"x": []})) == []


def test_steps_include_both_ends():
    assert list(Steps(0.0, 1.0, 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert list(Steps(3.0, 9.0, 1)) == [3.0]
    assert Steps(0.0, 0.3, 4)[-1] == 0.3


def test_columns_that_go_together_are_of_one_length():
    assert list(Sweep([zipped({"a": [1, 2], "b": [3, 4]})])) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    with pytest.raises(BadRequest, match="a has 2, b has 1"):
        zipped({"a": [1, 2], "b": [3]})


def test_numbers_of_other_libraries_become_plain_ones():
    class Number:
        def item(self):
            return 7

    assert list(read_parameters({"x": [Number()]})) == [{"x": 7}]
    assert list(read_parameters([{"x": float("inf")}])) == [{"x": "inf"}]


@pytest.mark.parametrize("source", ["sweep", "table", "rows"])
def test_a_million_sets_are_made_as_they_are_sent(source, tmp_path):
    if source == "sweep":
        rows = read_parameters({"x": range(1000), "y": range(1000)})
    elif source == "table":
        with (tmp_path / "t.csv").open("w") as file:
            file.write("x,y\n")
            file.writelines(f"{i},{i}\n" for i in range(100_000))
        rows = Crossed(Table(tmp_path / "t.csv"), read_parameters({"z": range(10)}))
    else:
        rows = read_parameters({"x": i} for i in range(1_000_000))
    assert rows.known_length() in {1_000_000, None}
    tracemalloc.start()
    count = sum(page.stop - page.start for page in islice(cut(rows, 1_000_000, lambda items: [encode_json(items)]), 10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 25_000
    assert peak < 8_000_000


def test_a_table_keeps_what_stands_there(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('﻿a, b\n1,007\n2.50,"two, words"\n\n1e3,-4\n', encoding="utf-8")
    table = Table(path)
    assert table.names == ("a", "b")
    assert list(table) == [{"a": 1, "b": "007"}, {"a": "2.50", "b": "two, words"}, {"a": "1e3", "b": -4}]
    assert len(table) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: there is no header"),
        (b"a,a\n", "stands there twice"),
        (b"a b\n", "is no name"),
        (b"a,b\n1,2\n1\n", "line 3: 1 values, and 2 columns"),
        (b"a\n1\n\xff\n", "not UTF-8"),
        (b'a\n"1\n', "line 2"),
        (None, "can't be read"),
    ],
)
def test_a_faulty_table_is_told_with_its_line(tmp_path, content, said):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRequest, match=said) as caught:
        Table(path)
    assert "t.csv" in str(caught.value)
