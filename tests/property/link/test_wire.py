"""Whatever comes over a connection, however it is cut on the way, is read as websockets alone would read it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from fallow.link.wire import Cutter, envelop

MAX_BYTES = 70_000
SIZES = st.sampled_from([0, 1, 125, 126, 300, 65_535, 65_536, MAX_BYTES, MAX_BYTES + 1])
SIDES = {Side.SERVER: True, Side.CLIENT: False}
"""Which end reads, and whether what comes to it is masked."""


class Reader:
    """One end's protocol, with the cutter before it or without."""

    def __init__(self, side, cutter=None):
        self.protocol = Protocol(side, state=State.OPEN, max_size=MAX_BYTES)
        self.cutter = cutter
        self.got = []

    def read(self, data):
        for part, is_message in [(data, False)] if self.cutter is None else self.cutter.cut(data):
            if not is_message:
                if not self.protocol.reader.eof:
                    self.protocol.receive_data(part)
                self.got += [(e.opcode, e.fin, bytes(e.data)) for e in self.protocol.events_received()]
            elif self.protocol.state is State.OPEN:
                self.got.append((Opcode.BINARY, True, part))


def frames(opcode, size, parts, *, is_masked):
    """Serialize a message as websockets does, in so many parts."""
    data = bytes(range(256)) * (size // 256 + 1)
    bounds = [size * at // parts for at in range(parts + 1)]
    for at in range(parts):
        kind = opcode if at == 0 else Opcode.CONT
        yield Frame(kind, data[bounds[at] : bounds[at + 1]], at == parts - 1).serialize(mask=is_masked)


def check(side, stream, cuts):
    alone, cut = Reader(side), Reader(side, Cutter(MAX_BYTES, is_masked=SIDES[side]))
    bounds = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, stop in zip(bounds, bounds[1:], strict=False):
        for reader in (alone, cut):
            reader.read(stream[start:stop])
        assert len(cut.cutter._rest) <= MAX_BYTES + 14
    assert cut.got == alone.got
    if cut.protocol.parser_exc is not None:  # a frame that is wrong may be refused only once it is whole
        assert str(cut.protocol.parser_exc) == str(alone.protocol.parser_exc)
    return cut


MESSAGES = st.lists(
    st.tuples(st.sampled_from([Opcode.BINARY, Opcode.BINARY, Opcode.TEXT]), SIZES, st.sampled_from([1, 1, 2, 3]))
    | st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.sampled_from([0, 5, 125]), st.just(1)),
    max_size=5,
)


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=80, deadline=None)
@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 1 << 20), max_size=8), closes=st.booleans(), damage=st.data())
def test_messages_whole_and_in_parts_between_other_frames(side, messages, cuts, closes, damage):
    parts = [frame for opcode, size, count in messages for frame in frames(opcode, size, count, is_masked=SIDES[side])]
    if closes:
        parts += frames(Opcode.CLOSE, 0, 1, is_masked=SIDES[side])
    if parts and damage.draw(st.booleans(), "damaged"):
        at = damage.draw(st.integers(0, len(parts) - 1))
        byte = damage.draw(st.integers(0, 1))
        head = bytearray(parts[at])
        head[byte] ^= 1 << damage.draw(st.integers(0, 7))
        parts[at] = bytes(head)
    check(side, b"".join(parts), cuts)


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=100, deadline=None)
@given(garbage=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_garbage(side, garbage, cuts):
    check(side, garbage, cuts)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.TEXT])
def test_a_whole_message_between_the_parts_of_another_is_an_error(side, opcode):
    first, *rest = frames(opcode, 300, 3, is_masked=SIDES[side])
    ping, whole = Frame(Opcode.PING, b"").serialize(mask=SIDES[side]), envelop(b"whole", is_masked=SIDES[side])
    reader = check(side, b"".join([whole, first, ping, rest[0], whole, rest[1]]), [])
    assert "expected a continuation frame" in str(reader.protocol.parser_exc)
    assert check(side, b"".join([first, ping, *rest, whole]), []).got[-1][2] == b"whole"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_what_is_enveloped_is_read_by_both(side, size):
    message = bytes(range(256)) * (size // 256 + 1)
    messages = [message[:size], b"next"]
    stream = b"".join(envelop(each, is_masked=SIDES[side]) for each in messages)
    reader = check(side, stream, range(1, 20))
    assert [data for _, _, data in reader.got] == messages
    assert reader.protocol.reader.buffer == b"", "all of it went past websockets"
