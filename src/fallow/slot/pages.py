"""The bytes of a page, for inputs and results alike: written by clients and slots, opaque to the hub.

The first byte tells the kind:

    L   one pickle of the list of items; buffers of 64 KiB and more lie behind it, aligned
    C   items pickled one by one, when they were submitted (single calls, unless all of a page are of numbers and short texts)
    A   as L, of calls: each item is the tuple of a call's arguments, which has no keywords
    [   the page is a JSON array (codec json)

Layout of L, little-endian, offsets from the page's first byte:

    0   "L" and 3 zero bytes
    4   u32  number of buffers b
    8   u64  length of the pickle p
    16  b times (u64 offset, u64 length)
    …   the pickle; then each buffer at a multiple of 64

Layout of C: "C" and 3 zero bytes, u32 number of items n, n times u64 end of item i (counted from the first item's
start), the pickles one after the other.

The values that a `Ref` names are stored as an L page of one item.
"""

import json
import pickle
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, overload

from fallow.slot.pickling import dumps

Piece = bytes | memoryview

ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector register: what numerical libraries like their arrays to start at."""

LIST, ARGUMENTS, CALLS, JSON = b"L"[0], b"A"[0], b"C"[0], b"["[0]

_HEAD = struct.Struct("<4sIQ")
_CALLS_HEAD = struct.Struct("<4sI")
_SPAN = struct.Struct("<QQ")


class BadPage(ValueError):
    """The bytes are not a page: cut, damaged, or of an unknown kind."""


# --- writing ------------------------------------------------------------------------------------


def encode_list(items: object) -> list[Piece]:
    """Pickle a list of items as an L page; returns its pieces in order, for writing without joining them.

    Raises whatever pickling raises.
    """
    buffers: list[memoryview] = []
    data = dumps(items, buffers)
    if not buffers:
        return [_HEAD.pack(b"L", 0, len(data)), data]
    at = _HEAD.size + _SPAN.size * len(buffers) + len(data)
    spans: list[bytes] = []
    tail: list[Piece] = []
    for buffer in buffers:
        padding = -at % ALIGNMENT_BYTES
        at += padding
        spans.append(_SPAN.pack(at, buffer.nbytes))
        tail += (bytes(padding), buffer)
        at += buffer.nbytes
    return [_HEAD.pack(b"L", len(buffers), len(data)), *spans, data, *tail]


def encode_arguments(calls: Sequence[tuple[Any, ...]]) -> bytes:
    """Build an A page of calls without keywords.

    Raises whatever pickling raises, which is of no call then, but of all.
    """
    data = dumps(calls)
    return _HEAD.pack(b"A", 0, len(data)) + data


def encode_calls(pickles: Sequence[bytes]) -> bytes:
    """Build a C page from items that were pickled one by one (`pickling.dumps`).

    A call with large arrays is better sent as an L page of one item, which keeps them out of the pickle.
    """
    ends = array("Q", accumulate(map(len, pickles)))
    return b"".join((_CALLS_HEAD.pack(b"C", len(pickles)), ends.tobytes(), *pickles))


def encode_json(items: Sequence[Any]) -> bytes:
    """Write a page of codec json; raises TypeError or ValueError for what JSON can't hold."""
    return json.dumps(items, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def size_bytes(pieces: Sequence[Piece]) -> int:
    """How long a page in pieces is; views are of bytes, as pickle's buffers are."""
    return sum(map(len, pieces))


# --- reading ------------------------------------------------------------------------------------


class Calls(Sequence[Any]):
    """The items of a C page, each unpickled when it is asked for."""

    __slots__ = ("_ends", "_pickles")

    def __init__(self, ends: memoryview, pickles: memoryview) -> None:
        self._ends = ends
        self._pickles = pickles

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self._ends)))]
        count = len(self._ends)
        if at < 0:
            at += count
        if not 0 <= at < count:
            raise IndexError(at)
        return pickle.loads(self._pickles[self._ends[at - 1] if at else 0 : self._ends[at]])

    def __iter__(self) -> Iterator[Any]:
        start, pickles, loads = 0, self._pickles, pickle.loads
        for end in self._ends:
            yield loads(pickles[start:end])
            start = end


def decode(page: bytes | memoryview, *, writable: bool = True) -> Sequence[Any]:
    """Return the items of a page: a list (L, A and JSON), or Calls, whose items are unpickled one by one when asked for.

    writable: arrays whose buffers lie in read-only memory are copied out of it, so that user code may change what is
    its own. A page mapped with ACCESS_COPY needs no copy; a `Ref`'s value is shared and stays read-only.

    Raises BadPage if the bytes are no page, otherwise whatever unpickling raises.
    """
    view = memoryview(page)
    kind = view[0] if view.nbytes else -1
    if kind == LIST:
        return _decode_list(view, writable)
    if kind == ARGUMENTS:
        keywords: dict[str, Any] = {}  # one for all: to call a function copies it
        return [(args, keywords) for args in _decode_list(view, writable)]
    if kind == CALLS:
        return _decode_calls(view)
    if kind == JSON:
        items: list[Any] = json.loads(bytes(view))
        return items
    raise BadPage(f"not a page: {view.nbytes} bytes that begin with {bytes(view[:4])!r}")


def _decode_list(view: memoryview, writable: bool) -> list[Any]:
    if view.nbytes < _HEAD.size:
        raise BadPage(f"a page of {view.nbytes} bytes is cut short")
    _, count, length = _HEAD.unpack_from(view)
    start = _HEAD.size + _SPAN.size * count
    if start + length > view.nbytes:
        raise BadPage(f"a page of {view.nbytes} bytes is cut short: {start + length} expected")
    data = view[start : start + length]
    items: Any = pickle.loads(data, buffers=_buffers(view, count, writable) if count else ())
    if not isinstance(items, (list, tuple, range)):
        raise BadPage(f"a page of {type(items).__name__}, not of a list")
    return items  # type: ignore[return-value]


def _buffers(view: memoryview, count: int, writable: bool) -> Iterator[memoryview | bytearray]:
    for i in range(count):
        offset, length = _SPAN.unpack_from(view, _HEAD.size + i * _SPAN.size)
        buffer = view[offset : offset + length]
        if buffer.nbytes != length:
            raise BadPage(f"a page of {view.nbytes} bytes is cut short: a buffer ends at {offset + length}")
        yield bytearray(buffer) if writable and view.readonly else buffer


def _decode_calls(view: memoryview) -> Calls:
    if view.nbytes < _CALLS_HEAD.size:
        raise BadPage(f"a page of {view.nbytes} bytes is cut short")
    _, count = _CALLS_HEAD.unpack_from(view)
    start = _CALLS_HEAD.size + 8 * count
    if start > view.nbytes:
        raise BadPage(f"a page of {view.nbytes} bytes is cut short: {count} calls announced")
    ends = view[_CALLS_HEAD.size : start].cast("Q")
    if count and start + ends[-1] > view.nbytes:
        raise BadPage(f"a page of {view.nbytes} bytes is cut short: {start + ends[-1]} expected")
    return Calls(ends, view[start:])
