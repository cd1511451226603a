"""parse_requirements: it reads what is right, and refuses the rest with one typed error, whatever it is given."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallow.model.errors import BadRequest
from fallow.model.node import NodeInfo
from fallow.model.requirements import Requirements, format_size, parse_requirements, parse_size

words = st.text("abcxyz0123456789_.", min_size=1, max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(
    cores=st.integers(1, 512),
    memory=st.integers(0, 2**45),
    tags=st.lists(words, max_size=4),
    os=st.none() | words,
    arch=st.none() | words,
    python=st.none() | words,
)
def test_what_is_right_is_read(cores, memory, tags, os, arch, python):
    wanted = parse_requirements(
        {"cores": cores, "memory": memory, "tags": tags, "os": os, "arch": arch, "python": python}
    )
    assert wanted == Requirements(
        cores=cores, memory_bytes=memory, os=os, arch=arch, python=python, tags=tuple(sorted(tags))
    )
    node = NodeInfo(
        name="n",
        cores=cores,
        slots=1,
        memory_bytes=memory,
        os=os or "",
        arch=arch or "",
        pythons=(python or "",),
        tags=tuple(tags),
    )
    assert wanted.unmet_by(node) == []


@given(st.dictionaries(st.sampled_from(["cores", "memory", "os", "arch", "python", "tags", "gpu"]), anything))
def test_the_rest_is_refused_with_one_error(requires):
    with contextlib.suppress(BadRequest):
        wanted = parse_requirements(requires)
        assert wanted.cores >= 1
        assert wanted.memory_bytes >= 0


@given(st.integers(0, 10**6), st.sampled_from(["", "B", "KB", "MB", "GB", "TB", "KiB", "mib", "gib", "TiB"]))
def test_sizes_with_units(number, unit):
    factor = {"": 1, "B": 1}.get(unit) or (
        1024 ** "KMGT".index(unit[0].upper()) * 1024 if "i" in unit else 1000 ** ("KMGT".index(unit[0]) + 1)
    )
    assert parse_size(f"{number}{unit}") == number * factor
    assert parse_size(f" {number} {unit} ") == number * factor


@given(st.integers(300, 5000), st.sampled_from("123456789"), st.sampled_from(["", "B", "GB", "TiB"]))
def test_sizes_beyond_every_number_are_refused(digits, digit, unit):
    with pytest.raises(BadRequest, match="over the limit"):
        parse_size(digit * digits + unit)


@given(anything)
def test_what_is_no_size_is_refused(value):
    with contextlib.suppress(BadRequest):
        assert parse_size(value) >= 0


@given(st.integers(0, 10**16))
def test_a_size_written_for_people_reads_back_about_the_same(size):
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.01)
