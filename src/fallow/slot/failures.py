"""Failures: from an exception to a record that is bounded and always travels."""

import pickle
from collections.abc import Sequence
from types import TracebackType

from fallow.slot.pickling import dumps

TRACEBACK_BYTES = 16 * 1024
"""As `fallow.model.failure` has it, which a slot can't import."""
FULL_LENGTH = 8
"""Failures of a page that keep a long traceback; in a page of thousands nobody reads the others …"""
SHORT_BYTES = 1024
"""… which keep the end of it."""
MESSAGE_BYTES = 4 * 1024
EXCEPTION_BYTES = 64 * 1024
"""A larger pickled exception is left out: the record has its type and message."""
SHORT_EXCEPTION_BYTES = 4 * 1024

PAGE_FAILURES = 1000
"""Failures per result page …"""
PAGE_BYTES = 128 * 1024
"""… and about how long they may be in all: then the page is sent and the batch goes on with the next one."""

Record = tuple[int, str, str, str, bytes | None]
"""Index, type name, message, traceback, pickled exception."""

PIPELINE_FILE = "<fallow pipeline>"
"""The file name in tracebacks of the loop that calls the user's functions."""

_OURS = (__file__.removesuffix("failures.py"), PIPELINE_FILE, "<frozen importlib")


class Told(Exception):
    """A fault that is told in its own words, without a traceback."""

    def __init__(self, type_name: str, message: str, text: str = "") -> None:
        """text: what stands in the traceback's place, such as a program's last words."""
        super().__init__(message)
        self.type_name = type_name
        self.text = text


def describe(index: int, error: BaseException, earlier: int) -> Record:
    """Make the record of a task that raised. earlier: how many failures the page has before it."""
    if isinstance(error, Told):
        return (index, error.type_name, bounded(str(error), MESSAGE_BYTES), bounded(error.text, TRACEBACK_BYTES), None)
    is_short = earlier >= FULL_LENGTH
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
    )
    return (
        index,
        name[:200],
        bounded(_message(error), SHORT_BYTES if is_short else MESSAGE_BYTES),
        bounded(_text(error, is_short), SHORT_BYTES if is_short else TRACEBACK_BYTES, keep_end=True),
        _pickled(error, SHORT_EXCEPTION_BYTES if is_short else EXCEPTION_BYTES),
    )


def unpicklable(index: int, value: object, error: BaseException) -> Record:
    """Make the record of a task whose result can't travel."""
    kind = type(value)
    message = bounded(f"the result of type {kind.__qualname__} can't be pickled: {_message(error)}", MESSAGE_BYTES)
    # The pickle of a PicklingFailed, by hand: its class is not importable in every slot.
    exception = b"cfallow.model.errors\nPicklingFailed\n" + pickle.dumps((message,), 2)[2:-1] + b"R."
    return (index, "fallow.model.errors.PicklingFailed", message, "", exception)


def bounded(text: str, size_bytes: int, *, keep_end: bool = False) -> str:
    """Cut text to a number of bytes of valid UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= size_bytes:
        return data.decode()
    if keep_end:
        half = size_bytes // 2
        data = data[: half - 5] + b"\n[\xe2\x80\xa6]\n" + data[-(half - 5) :]
    return data[:size_bytes].decode("utf-8", "ignore")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # a user's __str__
        return f"(its message can't be shown: {type(broken).__name__})"


def _text(error: BaseException, is_short: bool) -> str:
    import traceback  # 4 ms, on first need

    try:
        first = _users_part(error.__traceback__)
        limit = -3 if is_short else None
        lines: Sequence[str] = traceback.format_exception(type(error), error, first, limit=limit, chain=not is_short)
        return "".join(lines)
    except Exception as broken:  # a user's exception class can break anything
        return f"{type(error).__name__} (its traceback can't be shown: {type(broken).__name__})\n"


def _users_part(first: TracebackType | None) -> TracebackType | None:
    """Skip our frames at the top."""
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OURS):
        first = first.tb_next
    return first


def _pickled(error: BaseException, limit: int) -> bytes | None:
    """Pickle the exception; None if it can't be done, does not come back as an exception, or is too large."""
    try:
        data = dumps(error)
        if len(data) > limit or not isinstance(pickle.loads(data), BaseException):
            return None
    except BaseException:
        return None
    return data
