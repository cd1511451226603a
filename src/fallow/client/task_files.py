"""Input files that differ from task to task: their paths hold placeholders. Read as the tasks are sent, each content sent once.

A small file travels with its task's parameters. A larger one, or one that many tasks have, is a blob that the task's page refers
to; such a page ends where the next task needs other blobs, so that a node is sent no more than its tasks need.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import blake3
import msgspec

from fallow.client.feeding import ParameterSource
from fallow.client.input_files import FileReader, Named, last_part
from fallow.client.inputs import PAGE_AGE_S, PAGE_BYTES, PAGE_GROWTH, PAGE_ITEMS, Page
from fallow.client.sweep import SHOWN, ParameterRows, Parameters
from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.model.program import InputFile, check_inside, check_template
from fallow.slot.pages import encode_json
from fallow.slot.program import FILES
from fallow.slot.templates import BadValue, Values

CHECKED_TASKS = 10_000
"""Of a sweep with no more tasks, all files are looked for before anything runs; of others, when their turn comes."""
ALWAYS_INLINE_BYTES = 4 * 1024
"""Files up to this size travel with the parameters however many tasks have them."""
KNOWN_FILES = 10_000
"""Contents and hashes that are remembered."""

Blobs = dict[Digest, "Path | bytes"]


class TaskFiles:
    """What a program's tasks have of their own."""

    def __init__(self, own: Sequence[Named], base: Path, names: Collection[str], common: Collection[str]) -> None:
        """own: templates of names and paths. names: of parameters. common: paths of the files that all tasks have.

        Raises BadRequest for a placeholder that is no parameter.
        """
        self._own = own
        self._base = base
        for pair in own:
            for text in pair:
                if isinstance(text, str):
                    check_template("inputs", text, {*names, "index"})
        self._files = set(common)
        self._folders = {parent for path in common for parent in _parents(path)}
        self._reader = _TaskReader(base)

    def check(self, rows: ParameterRows) -> None:
        """Raise BadRequest, naming the task's parameters, if the files of a sweep that is not too long are not all there."""
        length = rows.known_length()
        if length is None or length > CHECKED_TASKS:
            return
        for index, parameters in enumerate(rows):
            for _, source in self._named(index, parameters):
                if isinstance(source, str) and not os.path.lexists(self._base / source):
                    raise _fault(index, parameters, f"inputs: {self._base / source} is not there")

    def of(self, index: int, parameters: Parameters) -> tuple[list[InputFile], Blobs]:
        """Read a task's files; return them and the blobs among them. Raises BadRequest, naming the task's parameters."""
        named = self._named(index, parameters)
        self._reader.begin()
        try:
            files = list(self._reader.read(named))
            self._check(files)
        except BadRequest as error:
            raise _fault(index, parameters, str(error)) from None
        return files, self._reader.blobs

    def _named(self, index: int, parameters: Parameters) -> list[Named]:
        values = Values({**parameters, "index": index})
        try:
            filled = [
                (values.fill(name), source if isinstance(source, bytes) else values.fill(source))
                for name, source in self._own
            ]
        except BadValue as error:
            raise _fault(index, parameters, f"inputs: {error}") from None
        return [(name or last_part(source), source) for name, source in filled]

    def _check(self, files: Sequence[InputFile]) -> None:
        """Raise BadRequest if files are in each other's way, or outside of the working folder."""
        seen: set[str] = set()
        folders: set[str] = set()
        for file in files:
            check_inside(file.path, "inputs")
            if file.path in seen or file.path in self._files:
                raise BadRequest(f"inputs: two files are called {file.path!r:.{SHOWN}} in the working folder")
            seen.add(file.path)
            folders.update(_parents(file.path))
        if both := (seen & (folders | self._folders)) | (folders & self._files):
            raise BadRequest(f"inputs: {min(both)!r:.{SHOWN}} is a file and a folder")


class TaskFilesSource(ParameterSource):
    """Parameters of tasks that have files of their own."""

    def __init__(
        self, rows: ParameterRows, length: int | None, blobs: Mapping[Digest, Path | bytes], files: TaskFiles
    ) -> None:
        super().__init__(rows, length, blobs)
        self._files = files

    def pages(self) -> Iterator[Page]:
        chunk: list[Parameters] = []
        refs: Blobs = {}
        start = size = 0
        deadline = 0.0
        most = 1  # the first one begins at once
        for index, row in enumerate(self.items):
            files, own = self._files.of(index, row)
            item = {**row, FILES: msgspec.to_builtins(files)}
            item_bytes = sum(file.size for file in files if file.data is not None)
            is_over = len(chunk) >= most or size + item_bytes > PAGE_BYTES or time.monotonic() > deadline
            if chunk and (is_over or own.keys() != refs.keys()):
                yield _page(start, chunk, refs)
                most = min(PAGE_ITEMS, most * PAGE_GROWTH)
                start, size, chunk = index, 0, []
            if not chunk:
                refs = own
                deadline = time.monotonic() + PAGE_AGE_S if self.length is None else float("inf")
            chunk.append(item)
            size += item_bytes + len(row) * 16
        if chunk:
            yield _page(start, chunk, refs)


class _TaskReader(FileReader):
    """Reads one task's files after another's."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self._seen: OrderedDict[Digest, None] = OrderedDict()
        self._hashes: OrderedDict[tuple[object, ...], Digest] = OrderedDict()

    def begin(self) -> None:
        self.blobs, self._inline_bytes, self._count = {}, 0, 0

    def _digest(self, path: Path, facts: os.stat_result) -> Digest:
        look = (str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
        if look not in self._hashes:
            _remember(self._hashes, look, super()._digest(path, facts))
        return self._hashes[look]

    def _kept(self, name: str, data: bytes, size: int, *, is_executable: bool, path: Path | None = None) -> InputFile:
        if size > ALWAYS_INLINE_BYTES:
            digest = Digest(blake3.blake3(data).hexdigest())
            is_known = digest in self._seen
            _remember(self._seen, digest, None)
            if is_known or self._inline_bytes + size > PAGE_BYTES:
                self.blobs[digest] = path or data
                return InputFile(name, size, digest, executable=is_executable)
        return super()._kept(name, data, size, is_executable=is_executable, path=path)


def _remember(held: OrderedDict[Any, Any], key: object, value: object) -> None:
    held[key] = value
    held.move_to_end(key)
    if len(held) > KNOWN_FILES:
        held.popitem(last=False)


def _page(start: int, chunk: Sequence[Parameters], refs: Blobs) -> Page:
    return Page(start, start + len(chunk), [encode_json(chunk)], tuple(refs), refs)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _fault(index: int, parameters: Parameters, what: str) -> BadRequest:
    told = ", ".join(f"{name}={value!r:.{SHOWN}}" for name, value in islice(parameters.items(), 8))
    where = f"task {index} ({told})" if told else f"task {index}"
    return BadRequest(f"{what} (of {where})")
