import io
import math

import pytest

from fallow.cli.mapping import _Input, find_function, read_requires
from fallow.model.errors import BadRequest


def test_lines_are_read_as_values():
    assert list(_Input(io.StringIO('1\n\n"two"\n{"three": 3}'))) == [1, "two", {"three": 3}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n\n{\n", "line 3 of the input is not JSON: .* at column 2"),
        ("[1,]\n", "line 1 of the input is not JSON: .* at column"),
        ("[" * 100_000, "line 1 of the input is not JSON: nested too deeply"),
    ],
)
def test_a_malformed_line_is_named(text, message):
    values = _Input(io.StringIO(text))
    with pytest.raises(BadRequest, match=message) as error:
        list(values)
    assert values.error is error.value
    assert len(str(error.value)) < 200


def test_values_are_known_by_their_lines():
    values = _Input(io.StringIO('\n"2"\n"3"\n\n \n"6"\n\n'))
    assert [values.line_of(index) for index, _ in enumerate(values)] == [2, 3, 6]
    values = _Input(io.StringIO('"1"\n"2"'))
    assert [values.line_of(index) for index, _ in enumerate(values)] == [1, 2]


def test_functions_are_found():
    assert find_function("math:sqrt") is math.sqrt
    assert find_function("builtins:str.upper") is str.upper


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("math", "not of the form"),
        (":sqrt", "not of the form"),
        ("math:", "not of the form"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("math.nothing:f", "no module 'math.nothing'|can't be imported"),
        ("math:nothing", "module 'math' has no 'nothing'"),
        ("math:pi", "no function but a float"),
    ],
)
def test_what_is_no_function_is_named(text, message):
    with pytest.raises(BadRequest, match=message):
        find_function(text)


def test_modules_that_fail_are_told_from_absent_ones(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_at_all\n")
    (tmp_path / "is_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="needs_more can't be imported: it needs 'not_installed_at_all'"):
        find_function("needs_more:f")
    with pytest.raises(BadRequest, match="is_broken can't be imported: ZeroDivisionError"):
        find_function("is_broken:f")


def test_requirements():
    assert read_requires(["memory=4GB", "cores=2", "tags=a,b", "tags=c"]) == {
        "memory": "4GB",
        "cores": 2,
        "tags": ["a", "b", "c"],
    }
    for pair in ("memory", "memory=", "=4"):
        if pair != "=4":
            with pytest.raises(BadRequest, match="key=value"):
                read_requires([pair])
