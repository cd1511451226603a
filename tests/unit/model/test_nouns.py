"""The small ones: ids, specs, progress, views, errors."""

import uuid

import msgspec
import pytest

from fallow.model import errors
from fallow.model.ids import uuid7
from fallow.model.job import JobProgress, JobSpec, Pages, ResultsOf
from fallow.model.node import NodeInfo
from fallow.model.node_view import NodeView
from fallow.model.ranges import RangeSet
from fallow.model.token import hash_secret, new_secret


def test_a_uuid7_is_what_the_rfc_says():
    made = uuid.UUID(uuid7(0x0123456789AB, bytes(range(10))))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 0x0123456789AB


def test_uuid7s_sort_by_time():
    assert uuid7(1, b"\xff" * 10) < uuid7(2, b"\x00" * 10)


def test_a_spec_knows_whether_it_reduces():
    spec = JobSpec(id="j", stages=("map", "reduce"), function="f", function_name="f", inputs=Pages())
    assert spec.reduces
    assert not msgspec.structs.replace(spec, stages=("map",)).reduces


def test_a_spec_travels():
    spec = JobSpec(id="j", stages=("map",), function="f", function_name="f", inputs=ResultsOf("p"), priority=-3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=JobSpec) == spec


@pytest.mark.parametrize(
    ("state", "ended"), [("waiting", False), ("running", False), ("done", True), ("cancelled", True)]
)
def test_progress_knows_whether_it_is_over(state, ended):
    assert JobProgress(state=state, accepted=0, size=None, settled=0, failed=0, leased=0).ended is ended


def test_a_node_view_travels():
    info = NodeInfo(name="n", cores=1, slots=1, memory_bytes=1, os="linux", arch="x", pythons=())
    view = NodeView(id="n", info=info, connected=True, accepting=False, reason="owner is back")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(view), type=NodeView) == view


def test_an_error_without_a_message_has_its_description():
    assert str(errors.Denied()) == "The token was refused."
    assert str(errors.Denied("no")) == "no"


def test_every_error_is_found_by_its_own_code():
    for code, kind in errors.BY_CODE.items():
        assert kind.code == code
        assert issubclass(kind, errors.FallowError)


def test_a_range_set_is_shown_and_can_not_be_hashed():
    assert repr(RangeSet([(0, 3)])) == "RangeSet([(0, 3)])"
    with pytest.raises(TypeError, match="mutable"):
        hash(RangeSet())
    with pytest.raises(IndexError):
        RangeSet().first


def test_a_secret_is_stored_as_its_digest():
    first, second = new_secret(), new_secret()
    assert first != second
    assert len(hash_secret(first)) == 64
    assert hash_secret(first) == hash_secret(first) != hash_secret(second)


def test_a_range_set_is_not_iterable():
    with pytest.raises(TypeError):
        list(RangeSet([(0, 10**12)]))


def test_numbers_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="shorter|longer|argument"):
        RangeSet.from_flat([1, 2, 3])


def test_broken_range_sets_are_found():
    broken = RangeSet([(0, 3)])
    broken._count = 2
    with pytest.raises(AssertionError, match="count 2"):
        broken.check_invariants()
    broken._starts, broken._stops = [0, 3], [3, 5]
    with pytest.raises(AssertionError, match="touch"):
        broken.check_invariants()
