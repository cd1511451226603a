"""What tasks of programs put out, as REST and pages show it: the files of one task, and each of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import msgspec

from fallow.hub.core.hub import Hub
from fallow.hub.web.results import page_bytes, read_json, read_pages
from fallow.model.errors import BadRequest, NotFound, TaskFailed
from fallow.model.ids import Digest
from fallow.model.job import JobSpec
from fallow.model.page import ResultPage
from fallow.model.ranges import RangeSet
from fallow.model.token import Token

CHUNK_BYTES = 256 * 1024


class OutputFile(msgspec.Struct, frozen=True):
    """A file that a task put out."""

    name: str
    size: int
    executable: bool
    url: str
    """Where its bytes are, on this hub."""


class TaskOutputs(msgspec.Struct, frozen=True):
    """What a task of a program came to."""

    index: int
    parameters: dict[str, Any]
    exit_code: int
    seconds: float
    node: str
    files: list[OutputFile]
    """The declared outputs, and "stdout" and "stderr"."""


class _File(msgspec.Struct, frozen=True):
    size: int
    text: str | None = None
    data: bytes | None = None
    file: int | None = None
    executable: bool = False


class _Value(msgspec.Struct, frozen=True):
    """`fallow.slot.program` writes it; whatever runs in a slot may write something else."""

    exit_code: int
    seconds: float
    parameters: dict[str, Any]
    stdout: _File
    stderr: _File
    outputs: dict[str, _File]
    node: str = ""

    def files(self) -> dict[str, _File]:
        return {**self.outputs, "stdout": self.stdout, "stderr": self.stderr}


_values = msgspec.json.Decoder(list[_Value])


async def task_outputs(hub: Hub, spec: JobSpec, index: int, token: Token) -> TaskOutputs:
    """Return what one task put out; raises NotFound if it is not settled, TaskFailed if it failed."""
    value, _ = await _find(hub, spec, index, token)
    return _shown(spec, index, value)


async def read_output(hub: Hub, spec: JobSpec, index: int, name: str, token: Token) -> tuple[AsyncIterator[bytes], int]:
    """Return the bytes of one file, as a stream, and its size; raises NotFound, TaskFailed."""
    value, page = await _find(hub, spec, index, token)
    file = value.files().get(name)
    if file is None:
        raise NotFound(f"task {index} put out no {name!r:.200}, but {', '.join(value.files())}")
    if file.file is None:
        data = file.data if file.data is not None else (file.text or "").encode()
        return _once(data), len(data)
    if not 0 <= file.file < len(page.files):
        raise NotFound(f"the result of task {index} names a file that did not come with it")
    digest = page.files[file.file]
    size = await asyncio.to_thread(hub.blobs.size, digest)
    if size is None:
        raise NotFound(f"the blob {digest} of task {index} is not here")
    return _chunks(hub, digest, size), size


async def first_outputs(hub: Hub, spec: JobSpec, token: Token, count: int) -> list[TaskOutputs]:
    """Return what the first settled tasks put out, as far as they have results."""
    found: list[TaskOutputs] = []
    after: int | None = 0
    while after is not None and len(found) < count:
        pages, after = await read_pages(hub, spec.id, token, after)
        for result in await read_json(hub, pages):
            if result.value is not msgspec.UNSET and len(found) < count:
                try:
                    found.append(_shown(spec, result.index, msgspec.json.decode(result.value, type=_Value)))
                except msgspec.DecodeError:
                    continue
    return found


async def _find(hub: Hub, spec: JobSpec, index: int, token: Token) -> tuple[_Value, ResultPage]:
    if not spec.is_program:
        raise BadRequest(f"the job {spec.function_name} runs no program: its results are values, not files")
    pages, _ = await read_pages(hub, spec.id, token, index)
    for stored in pages:
        page = stored.page
        if index not in RangeSet.from_flat(stored.counts):
            continue
        failure = next((each for each in page.failures if each.index == index), None)
        if failure is not None:
            raise TaskFailed(f"task {index} has no outputs: {failure.message}")
        try:
            values = _values.decode(await page_bytes(hub, page))
        except msgspec.DecodeError:
            break
        kept = RangeSet.from_flat(page.kept) if page.kept is not None else RangeSet([(page.start, page.stop)])
        at = sum(min(stop, index) - start for start, stop in kept.ranges() if start < index)
        if index in kept and at < len(values):
            return values[at], page
    raise NotFound(f"task {index} has no result (yet)")


def _shown(spec: JobSpec, index: int, value: _Value) -> TaskOutputs:
    def url(name: str) -> str:
        return f"/api/v1/jobs/{spec.id}/outputs/{index}/{quote(name)}"

    files = [OutputFile(name, file.size, file.executable, url(name)) for name, file in value.files().items()]
    return TaskOutputs(index, value.parameters, value.exit_code, value.seconds, value.node, files)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _chunks(hub: Hub, digest: Digest, size: int) -> AsyncIterator[bytes]:
    for offset in range(0, size, CHUNK_BYTES):
        yield await asyncio.to_thread(hub.blobs.read_at, digest, offset, CHUNK_BYTES)
