"""Specs that come from outside are checked before anything is kept."""

import msgspec
import pytest

from fallow.model.errors import BadRequest
from fallow.model.job import Counting, JobSpec, Pages, ResultsOf, check_spec
from fallow.model.requirements import Requirements

GOOD = JobSpec(id="a" * 32, stages=("map",), function="f" * 64, function_name="f", inputs=Pages())


def test_a_good_spec_passes():
    check_spec(GOOD)
    check_spec(msgspec.structs.replace(GOOD, stages=("map", "filter", "reduce"), name="n", timeout_s=1.0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"id": "../../etc/passwd"}, "job id"),
        ({"id": "A" * 32}, "job id"),
        ({"function": "f"}, "function"),
        ({"sources": {"m": "x"}}, "digest"),
        ({"refs": ("x",)}, "digest"),
        ({"inputs": ResultsOf("x")}, "parent"),
        ({"inputs": Counting(1 << 63, 1)}, "64-bit"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"stages": ()}, "stages"),
        ({"stages": ("reduce", "map")}, "reduce comes last"),
        ({"function_name": "x" * 5000}, "function name"),
        ({"priority": 10**9}, "priority"),
        ({"retries": -1}, "retries"),
        ({"timeout_s": float("nan")}, "timeout"),
        ({"requirements": Requirements(cores=0)}, "cores"),
        ({"requirements": Requirements(cores=1 << 30)}, "cores"),
        ({"requirements": Requirements(memory_bytes=1 << 62)}, "memory"),
        ({"requirements": Requirements(tags=("t",) * 101)}, "101 tags are over the limit of 100"),
        ({"requirements": Requirements(tags=("ok", "t" * 101))}, "tag 't"),
        ({"requirements": Requirements(os="o" * 101)}, "the os 'o"),
        ({"requirements": Requirements(arch="a" * 101)}, "the arch 'a"),
        ({"requirements": Requirements(python="3" * 101)}, "the python '3"),
        ({"sources": {"m" * 201: "f" * 64}}, "module name 'm"),
    ],
)
def test_what_is_out_of_bounds_is_named(change, named):
    with pytest.raises(BadRequest, match=named):
        check_spec(msgspec.structs.replace(GOOD, **change))
