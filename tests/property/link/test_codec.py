"""Every frame survives the trip; nothing else decodes, and nothing crashes the decoder."""

from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallow.link import frames
from fallow.link.codec import MAX_MESSAGE_BYTES, FrameDecoder, encode_frame, join_frames
from fallow.link.frames import ClientFrame, NodeFrame, ToClient, ToNode
from fallow.model.errors import BadRequest, TooLarge
from fallow.model.job import Counting, JobSpec, Pages, ResultsOf

INT = st.integers(0, 2**62)
TEXT = st.text(max_size=20)
SCALARS = {int: INT, str: TEXT, bytes: st.binary(max_size=50), float: st.floats(allow_nan=False, allow_infinity=False)}
SPEC = JobSpec(id="a" * 32, stages=("map",), function="f" * 64, function_name="f", inputs=Pages())
SPECS = [
    SPEC,
    msgspec.structs.replace(SPEC, inputs=Counting(1, 2)),
    msgspec.structs.replace(SPEC, inputs=ResultsOf("b" * 32), name="n", timeout_s=1.5),
]


def strategy_of(annotation: object) -> st.SearchStrategy:
    """Integers are what MessagePack can hold; everything else as annotated."""
    supertype = getattr(annotation, "__supertype__", annotation)
    if supertype in SCALARS:
        return SCALARS[supertype]
    if annotation is bool:
        return st.booleans()
    if annotation is type(None):
        return st.none()
    if annotation is msgspec.Raw:
        return INT.map(lambda i: msgspec.Raw(msgspec.msgpack.encode(i)))
    if annotation is JobSpec:
        return st.sampled_from(SPECS)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return st.one_of(*map(strategy_of, arguments))
    if origin is tuple:
        return st.lists(strategy_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(*map(strategy_of, arguments), max_size=3)
    if origin is Literal:
        return st.sampled_from(arguments)
    return st.builds(annotation, **fields_of(annotation))


def fields_of(cls: type) -> dict[str, st.SearchStrategy]:
    return {name: strategy_of(hint) for name, hint in get_type_hints(cls).items() if name in cls.__struct_fields__}


DIRECTIONS = {"client": ClientFrame, "node": NodeFrame, "to_client": ToClient, "to_node": ToNode}
ALL = [(name, cls) for name, union in DIRECTIONS.items() for cls in union.__args__]


@pytest.mark.parametrize(("direction", "cls"), ALL, ids=lambda value: getattr(value, "__name__", value))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_frame_survives_the_trip_and_its_cut_versions_are_refused(direction, cls, data):
    frame = data.draw(st.builds(cls, **fields_of(cls)))
    decoder = FrameDecoder(DIRECTIONS[direction])
    message = join_frames([encode_frame(frame), encode_frame(frame)])
    assert decoder.decode(message) == [frame, frame]
    cut = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(BadRequest):
        decoder.decode(message[:cut])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(DIRECTIONS)))
def test_garbage_is_refused_with_one_kind_of_error(garbage, direction):
    try:
        decoded = FrameDecoder(DIRECTIONS[direction]).decode(garbage)
    except BadRequest:
        return
    assert isinstance(decoded, list)


def test_too_large_messages_and_frames_are_refused():
    with pytest.raises(TooLarge, match="over the limit"):
        FrameDecoder(ToNode).decode(b"\x90" + bytes(MAX_MESSAGE_BYTES))
    with pytest.raises(
        TooLarge, match=r"a BlobChunk frame of \d+ bytes is over the limit of 1048576 bytes; .*as a blob"
    ):
        encode_frame(frames.BlobChunk("d" * 64, 0, 1, bytes(MAX_MESSAGE_BYTES)))


def test_a_frame_of_the_wrong_direction_is_refused():
    message = join_frames([encode_frame(frames.Acknowledged(1))])
    with pytest.raises(BadRequest):
        FrameDecoder(ClientFrame).decode(message)


def test_many_frames_in_a_message():
    message = join_frames([encode_frame(frames.Acknowledged(i)) for i in range(1000)])
    assert len(FrameDecoder(ToNode).decode(message)) == 1000
