"""What a slot writes about finished tasks, read without trust: tasks can write into the same pipe."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fallow.model.failure import Failure
from fallow.model.page import ResultPage
from fallow.model.ranges import Range
from fallow.slot.protocol import ENVIRONMENT_FAULT, INPUT_FAULT, NODE_FAULT

MAX_FILES = 10_000
"""Files beside the values of one page."""

_Head = tuple[str | None, int, tuple[int, ...] | None, tuple[tuple[int, str, str, str, int], ...], tuple[str, ...]]
_PROGRAM_KINDS = {ENVIRONMENT_FAULT: "environment", NODE_FAULT: "environment", INPUT_FAULT: "program"}
"""Whose fault a program's failure is; functions can't say."""
_decode_head = msgspec.json.Decoder(_Head).decode


def read_result(
    span: Range,
    body: memoryview,
    head_bytes: int,
    elapsed_ns: int,
    *,
    partial: bool,
    node: str,
    folder: Path,
    memory_folder: Path | None = None,
    is_program: bool = False,
) -> tuple[ResultPage, Path | None, Sequence[Path]]:
    """Build the page of results of a DONE message (fallow.slot.protocol), name the file that its bytes are in, if
    they are many, and those that its values refer to.

    partial: of a fold. node: its name, for failures. folder: where the slot puts files. memory_folder: where it may put
    the page's bytes instead. Raises ValueError if the message makes no sense.
    """
    start, stop = span
    elapsed_s = elapsed_ns / 1e9
    if not head_bytes:
        return ResultPage(start, stop, bytes(body), partial=partial, elapsed_s=elapsed_s), None, ()
    name, _, kept, records, names = _decode_head(body[:head_bytes])
    at = head_bytes
    failures = []
    for index, type_name, message, traceback, length in records:
        exception = bytes(body[at : at + length]) if length else None
        at += length
        failures.append(
            Failure(
                index=index,
                kind=_PROGRAM_KINDS.get(type_name, "raised") if is_program else "raised",
                type_name=type_name,
                message=message,
                traceback=traceback,
                exception=exception,
                node=node,
                is_of_node=is_program and type_name == NODE_FAULT,
            )
        )
    path = None if name is None else Path(name)
    files = tuple(map(Path, names))
    is_within = path is None or path.parent in {folder, memory_folder}
    if not is_within or len(files) > MAX_FILES or any(each.parent != folder for each in files):
        raise ValueError("a result outside of the slot's folder, or too many")
    data = bytes(body[at:]) or None
    page = ResultPage(start, stop, data, None, kept, tuple(failures), partial=partial, elapsed_s=elapsed_s)
    return page, path, files
