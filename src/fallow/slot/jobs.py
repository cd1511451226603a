"""What a slot holds of its jobs: functions, unpickled on first use, and pages of inputs, mapped where they are files."""

import json
import mmap
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module, invalidate_caches
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fallow.slot import pages
from fallow.slot.pipeline import Pipeline

if TYPE_CHECKING:
    from fallow.slot.program import Runner

REF_BYTES = 512 << 20
"""Blobs of `grid.put` objects that a slot keeps unpickled. They are mapped, so most of it is shared with other slots."""

Segment = tuple[int, Sequence[Any]]
"""Items of consecutive indices, from an index on."""


def map_file(path: str, *, writable: bool) -> memoryview:
    """Map a whole file. writable: changes stay private to this process (copy on write)."""
    with open(path, "rb") as file:  # noqa: PTH123 -- pathlib is not needed otherwise
        if not file.seek(0, 2):
            return memoryview(b"")
        access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
        return memoryview(mmap.mmap(file.fileno(), 0, access=access))


class Refs:
    """The objects behind `Ref`s, unpickled once, least recently used ones dropped over REF_BYTES."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._held_bytes = 0

    def know(self, paths: dict[str, str]) -> None:
        self._paths.update(paths)

    def load(self, digest: str) -> Any:
        held = self._values.get(digest)
        if held is not None:
            self._values.move_to_end(digest)
            return held[0]
        path = self._paths.get(digest)
        if path is None:
            raise LookupError(f"the object {digest[:12]}… of grid.put is not on this node")
        view = map_file(path, writable=False)
        (value,) = pages.decode(view, writable=False)
        self._values[digest] = (value, view.nbytes)
        self._held_bytes += view.nbytes
        while self._held_bytes > REF_BYTES and len(self._values) > 1:
            self._held_bytes -= self._values.popitem(last=False)[1][1]
        return value


class Page:
    """Inputs [start, stop), decoded on first use."""

    def __init__(
        self,
        start: int,
        stop: int,
        path: str | None,
        data: bytes | None,
        kept: Sequence[int] | None,
        refs: Mapping[str, str] | None = None,
    ) -> None:
        """refs: paths of the blobs that the items refer to."""
        self.start = start
        self.stop = stop
        self.refs = refs or {}
        self._path = path
        self._data = data
        self._kept = kept
        self._items: Sequence[Any] | None = None
        self._used_to = -1

    def segments(self, start: int, stop: int, *, called: bool) -> Iterator[Segment]:
        """Yield the items of [start, stop), which lies in the page, without the indices that the page has none for.

        called: as functions that return the item, so that unpickling it is part of its task.
        """
        at = 0
        for first, end in [(self.start, self.stop)] if self._kept is None else _pairs(self._kept):
            low, high = max(first, start), min(end, stop)
            if low < high:
                items = self._decoded(low, high)
                a, b = at + low - first, at + high - first
                if called:
                    yield low, [partial(items.__getitem__, i) for i in range(a, b)]
                else:
                    yield low, items if b - a == len(items) else items[a:b]
                del items
            at += end - first
        if stop == self.stop and self._path is not None:
            self._items = None  # all of it has run: a large file needn't stay mapped

    def close(self) -> None:
        """Forget what was decoded; on the next use that is done again."""
        self._items = None

    def _decoded(self, start: int, stop: int) -> Sequence[Any]:
        if self._items is None or start < self._used_to:  # run again: the task may have changed its input
            view = memoryview(self._data or b"") if self._path is None else map_file(self._path, writable=True)
            self._items = pages.decode(view)
        self._used_to = stop
        return self._items


class SlotJob:
    """One job in this slot."""

    def __init__(self, head: Sequence[Any], function: bytes, folder: str) -> None:
        """folder: the slot's own, in which programs run."""
        stages, self.codec, self._path, self._counting, self._has_timeout, self._sources, self._paths = head
        self._folder = folder
        self.runner: Runner | None = None
        """What runs the program, if the job is one."""
        self._stages = tuple(stages)
        self._function = function
        self._pipeline: Pipeline | None = None
        self._broken: BaseException | None = None
        self._pages: dict[int, Page] = {}
        self._decoded: Page | None = None
        """The page of the last tasks: what unpickling makes of a page takes many times its bytes, so it is kept of one alone."""

    def pipeline(self) -> Pipeline:
        """Load the functions on first use; raises what loading raised, each time."""
        if self._broken is not None:
            raise self._broken
        if self._pipeline is None:
            try:
                self._pipeline = self._load()
            except BaseException as error:
                self._broken = error
                raise
            self._function = b""
        return self._pipeline

    @property
    def is_program(self) -> bool:
        return self._stages == ("run",)

    def _load(self) -> Pipeline:
        if self.is_program:
            from fallow.slot.program import Runner

            self.runner = Runner(json.loads(bytes(self._body())), self._paths, self._folder)
            return Pipeline(self._stages, [self.runner], has_timeout=self._has_timeout)
        new = [folder for folder in self._sources if folder not in sys.path]
        if new:
            sys.path[:0] = new
            invalidate_caches()
        functions: Sequence[Any]
        if self.codec == "json":
            module, _, name = bytes(self._body()).decode().partition(":")
            functions = [attrgetter(name)(import_module(module))]
        else:
            functions = pickle.loads(self._body())
        return Pipeline(self._stages, functions, has_timeout=self._has_timeout)

    def _body(self) -> bytes | memoryview:
        return self._function if self._path is None else map_file(self._path, writable=True)

    def add_page(self, number: int, page: Page) -> None:
        self._pages[number] = page

    def drop_page(self, number: int) -> None:
        if self._pages.pop(number, None) is self._decoded:
            self._decoded = None

    def segments(self, page: int, start: int, stop: int) -> Iterable[Segment]:
        """Return the inputs of the tasks [start, stop)."""
        called = self._stages[0] in {"call", "apply"}
        if page >= 0:
            if self.runner is not None:
                self.runner.refs = self._pages[page].refs
            found = self._pages[page]
            if found is not self._decoded:
                if self._decoded is not None:
                    self._decoded.close()
                self._decoded = found
            return found.segments(start, stop, called=called)
        first, step = self._counting
        return [(start, range(first + start * step, first + stop * step, step) if step else [first] * (stop - start))]


def read_head(body: memoryview, length: int) -> Any:
    """Decode the JSON at the beginning of a message's body."""
    return json.loads(bytes(body[:length]))


def _pairs(flat: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(flat[::2], flat[1::2], strict=True)
