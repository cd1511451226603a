"""How values become bytes: C pickle where it can, cloudpickle where it must.

C pickle is ten times faster and pickles functions and classes by reference. What the other end can't import (anything
of `__main__`, lambdas, closures) goes by value with cloudpickle, which is imported on first need: it costs 10 ms.
"""

import pickle
from typing import Any

PROTOCOL = 5
"""The newest protocol that every supported Python reads; the first with out-of-band buffers."""

OUT_OF_BAND_BYTES = 64 * 1024
"""Buffers from this size on stay outside of the pickle, so that a mapped page is read without copying them. Below it,
a copy is cheaper than the bookkeeping."""


def dumps(value: object, buffers: list[memoryview] | None = None) -> bytes:
    """Pickle a value.

    buffers: if given, large contiguous buffers (numpy arrays' data) are appended here instead of being copied into the
    pickle; `pickle.loads(data, buffers=buffers)` takes them back in the same order.

    Raises whatever the value's own pickling raises (PicklingError, TypeError, AttributeError, RecursionError, …).
    """
    take = None if buffers is None else _taker(buffers)
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=take)
        if b"__main__" not in data:
            return data
    except Exception:  # noqa: S110 -- whatever C pickle can't do cloudpickle may; if not, its error is the clearer one
        pass
    if buffers is not None:
        buffers.clear()
    import cloudpickle

    by_value: bytes = cloudpickle.dumps(value, PROTOCOL, buffer_callback=take)
    return by_value


def _taker(buffers: list[memoryview]) -> Any:
    def take(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND_BYTES:
            return True  # stays in the pickle
        buffers.append(raw)
        return False

    return take
