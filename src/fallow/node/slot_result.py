"""What a slot writes about finished tasks, read without trust: tasks can write into the same pipe."""

from pathlib import Path

import msgspec

from fallow.model.failure import Failure
from fallow.model.page import ResultPage
from fallow.model.ranges import Range

_Head = tuple[str | None, int, tuple[int, ...] | None, tuple[tuple[int, str, str, str, int], ...]]
_decode_head = msgspec.json.Decoder(_Head).decode


def read_result(
    span: Range, body: memoryview, head_bytes: int, elapsed_ns: int, *, partial: bool, node: str, folder: Path
) -> tuple[ResultPage, Path | None]:
    """Build the page of results of a DONE message (fallow.slot.protocol), and name the file that its bytes are in, if
    they are many.

    partial: of a fold. node: its name, for failures. folder: where slots put files. Raises ValueError if the message
    makes no sense.
    """
    start, stop = span
    elapsed_s = elapsed_ns / 1e9
    if not head_bytes:
        return ResultPage(start, stop, bytes(body), partial=partial, elapsed_s=elapsed_s), None
    name, _, kept, records = _decode_head(body[:head_bytes])
    at = head_bytes
    failures = []
    for index, type_name, message, traceback, length in records:
        exception = bytes(body[at : at + length]) if length else None
        at += length
        failures.append(
            Failure(
                index=index,
                kind="raised",
                type_name=type_name,
                message=message,
                traceback=traceback,
                exception=exception,
                node=node,
            )
        )
    path = None if name is None else Path(name)
    if path is not None and path.parent != folder:
        raise ValueError("a result outside of the node's folder")
    data = bytes(body[at:]) or None
    page = ResultPage(start, stop, data, None, kept, tuple(failures), partial=partial, elapsed_s=elapsed_s)
    return page, path
