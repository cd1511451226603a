"""A slot: reads messages, runs tasks one by one in the main thread, and writes results. Knows nothing of hubs or leases.

It blocks in `read` between batches, so there is no hop between threads or loops on the way of a task.
"""

import faulthandler
import json
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, BinaryIO

from fallow.slot import failures, lifeline, pages, refs
from fallow.slot.jobs import Page, Refs, SlotJob, read_head
from fallow.slot.output import Output
from fallow.slot.pipeline import Pipeline
from fallow.slot.protocol import (
    COUNTER_BYTES,
    DONE,
    FORGET,
    HEADER,
    LOAD,
    PAGE,
    PRINTED,
    READY,
    RUN,
    RUNNING,
)

READ_BYTES = 1 << 16


def run(counter_path: str, results_folder: str, inline_bytes: int, parent: int) -> None:
    """Be a slot until the agent closes the pipe."""
    inward, outward = _take_pipes()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the agent's terminal is the agent's business
    faulthandler.enable(2)
    with open(counter_path, "r+b") as file:  # noqa: PTH123
        counter = memoryview(mmap.mmap(file.fileno(), COUNTER_BYTES)).cast("Q")
    Slot(inward, outward, counter, results_folder, inline_bytes).serve(parent)
    lifeline.end_group()


def _take_pipes() -> tuple[int, int]:
    """Move the protocol away from fds 0 and 1, where tasks and their children would write into it."""
    inward, outward = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return inward, outward


class Slot:
    """The loop: read a message, do it."""

    def __init__(self, inward: int, outward: int, counter: memoryview, results_folder: str, inline_bytes: int) -> None:
        self._inward = inward
        self._outward = outward
        self._counter = counter
        self._results_folder = results_folder
        self._inline_bytes = inline_bytes
        self._written = 0
        self._write_lock = threading.RLock()
        self._jobs: dict[int, SlotJob] = {}
        self._refs = Refs()
        self._output = Output(self._send_printed, counter)

    def serve(self, parent: int) -> None:
        """Answer messages until the pipe ends."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_to_parent)
        self._output.install()
        refs.install(self._refs.load)
        lifeline.hold(self._inward, parent)
        self._send(READY, 0, (os.getpid(), 0, 0, 0))
        pipe = os.fdopen(self._inward, "rb", READ_BYTES)
        header_bytes = HEADER.size
        while len(header := pipe.read(header_bytes)) == header_bytes:
            kind, key, length, a, b, c, _ = HEADER.unpack(header)
            if kind == RUN:
                self._run(key, a, b, c)
            else:
                self._note(kind, key, _body(pipe, length), (a, b, c))

    def _note(self, kind: int, key: int, body: memoryview, numbers: tuple[int, int, int]) -> None:
        a, b, c = numbers
        if kind == LOAD:
            head = read_head(body, c)
            self._refs.know(head[-1])
            self._jobs[key] = SlotJob(head, bytes(body[c:]))
        elif kind == PAGE:
            path, kept, known = read_head(body, c) if c else (None, None, None)
            if known:
                self._refs.know(known)
            self._jobs[key].add_page(Page(a, b, path, bytes(body[c:]) if path is None else None, kept))
        elif kind == FORGET:
            if a < 0:
                self._jobs.pop(key, None)
            elif key in self._jobs:
                self._jobs[key].drop_page(a)

    # --- running ---

    def _run(self, key: int, start: int, stop: int, page: int) -> None:
        # Loading functions and inputs is user code too: if it crashes, the first task is to blame.
        self._counter[RUNNING] = start + 1
        job = self._jobs[key]
        batch = Batch(start, stop)
        began = perf_counter_ns()
        pipeline: Pipeline | None = None
        try:
            pipeline = job.pipeline()
            began = perf_counter_ns()
            for first, items in job.segments(page, start, stop):
                batch.ran += 1
                pipeline.run(items, first, self._counter, batch.values, batch.kept, batch.fail)
                batch.covered(first, items)
        except BaseException as error:
            batch.fail_rest(error)
        self._finish(key, job, pipeline, batch, began)

    def _finish(self, key: int, job: SlotJob, pipeline: Pipeline | None, batch: "Batch", began: int) -> None:
        is_fold = pipeline is not None and pipeline.reduces
        filters = pipeline is not None and pipeline.filters and not is_fold
        kept = batch.kept_ranges(is_fold=is_fold, filters=filters)
        encode = _encode_json if job.codec == "json" else pages.encode_list
        pieces: Sequence[pages.Piece] = ()
        if batch.values:
            try:
                pieces = encode(batch.values)
            except BaseException:
                pieces, kept = self._encode_one_by_one(batch, kept, encode, is_fold=is_fold)
        path: str | None = None
        size = pages.size_bytes(pieces)
        if size > self._inline_bytes:
            try:
                path, pieces = self._write_file(pieces), ()
            except OSError as error:
                batch.values, batch.failures, pieces, kept = [], [], (), ()
                batch.fail_rest(
                    OSError(f"a result of {size} bytes can't be stored on its node: {error}"), all_of_it=True
                )
        head = b""
        if path is not None or kept is not None or batch.failures:
            records = [(i, name, message, text, len(data or b"")) for i, name, message, text, data in batch.failures]
            head = json.dumps((path, size, kept, records), separators=(",", ":")).encode()
        exceptions = [data for *_, data in batch.failures if data]
        self._output.flush()
        self._counter[RUNNING] = 0
        numbers = (batch.start, batch.stop, len(head), perf_counter_ns() - began)
        self._send(DONE, key, numbers, head, *exceptions, *pieces)

    def _encode_one_by_one(
        self,
        batch: "Batch",
        kept: Sequence[int] | None,
        encode: Callable[[Any], Sequence[pages.Piece]],
        *,
        is_fold: bool,
    ) -> tuple[Sequence[pages.Piece], Sequence[int] | None]:
        """Find the results that can't be pickled, turn them into failures of their tasks, and encode the others."""
        indices = [batch.start] if is_fold else _indices(kept, batch)
        good: list[Any] = []
        good_indices: list[int] = []
        for index, value in zip(indices, batch.values, strict=True):
            try:
                encode([value])
            except BaseException as error:
                batch.failures.append(failures.unpicklable(index, value, error))
            else:
                good.append(value)
                good_indices.append(index)
        if is_fold:  # it counts whole or not at all
            name, message, text, data = batch.failures[-1][1:]
            batch.failures = [(index, name, message, text, data) for index in range(batch.start, batch.stop)]
            return (), ()
        return (encode(good) if good else ()), _ranges(good_indices)

    def _write_file(self, pieces: Sequence[pages.Piece]) -> str:
        self._written += 1
        path = os.path.join(self._results_folder, f"{os.getpid()}-{self._written}")  # noqa: PTH118
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123
            for piece in pieces:
                view = memoryview(piece).cast("B")
                while view.nbytes:
                    view = view[file.write(view) :]
        return path

    # --- sending ---

    def _send_printed(self, body: bytes) -> None:
        self._send(PRINTED, 0, (0, 0, 0, 0), body)

    def _send(self, kind: int, key: int, numbers: tuple[int, int, int, int], *body: pages.Piece) -> None:
        length = pages.size_bytes(body)
        message = memoryview(b"".join((HEADER.pack(kind, key, length, *numbers), *body)))
        with self._write_lock:
            if self._outward < 0:
                os.write(2, b"".join(body))  # a child that a task forked: what it prints goes the way of fd 2
                return
            while message:
                message = message[os.write(self._outward, message) :]

    def _leave_to_parent(self) -> None:
        """In a process that a task forked: the protocol is the parent's alone."""
        self._write_lock = threading.RLock()
        os.close(self._outward)
        os.close(self._inward)
        self._outward = -1
        self._output.forked()


class Batch:
    """The tasks [start, stop) while they run, and what became of them."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.ran = 0
        self.values: list[Any] = []
        self.kept: list[int] = []
        self.failures: list[failures.Record] = []
        self._covered: list[tuple[int, int]] = []

    def fail(self, index: int, error: BaseException) -> None:
        """Note that a task raised."""
        self.failures.append(failures.describe(index, error, len(self.failures)))
        error.__traceback__ = None  # or its frames would keep the task's variables alive

    def fail_rest(self, error: BaseException, *, all_of_it: bool = False) -> None:
        """Fail every task of the batch that has not come to an end: its function or its input can't be loaded."""
        first = self._covered[-1][1] if self._covered and not all_of_it else self.start
        record = failures.describe(first, error, 0)
        for at, index in enumerate(range(first, self.stop)):
            text = record[3] if at < failures.FULL_LENGTH else ""
            self.failures.append((index, record[1], record[2], text, record[4] if at < failures.FULL_LENGTH else None))

    def covered(self, first: int, items: Any) -> None:
        """Note that the tasks from `first` on have run."""
        self._covered.append((first, first + len(items)))

    def kept_ranges(self, *, is_fold: bool, filters: bool) -> Sequence[int] | None:
        """Return the indices that have a value as flat ranges, None if all have."""
        if is_fold:
            return None if self.values else ()
        if filters:
            kept = _ranges(self.kept)
        elif not self.failures and self._covered == [(self.start, self.stop)]:
            return None
        else:
            failed = {record[0] for record in self.failures}
            kept = _ranges([i for a, b in self._covered for i in range(a, b) if i not in failed])
        return None if kept == [self.start, self.stop] else kept


def _ranges(indices: Sequence[int]) -> list[int]:
    flat: list[int] = []
    for index in indices:
        if flat and flat[-1] == index:
            flat[-1] += 1
        else:
            flat += (index, index + 1)
    return flat


def _indices(kept: Sequence[int] | None, batch: Batch) -> list[int]:
    flat = (batch.start, batch.stop) if kept is None else kept
    return [i for a, b in zip(flat[::2], flat[1::2], strict=True) for i in range(a, b)]


def _encode_json(values: Sequence[Any]) -> Sequence[pages.Piece]:
    return [pages.encode_json(values)]


def _body(pipe: BinaryIO, length: int) -> memoryview:
    body = pipe.read(length)
    if len(body) != length:
        sys.exit(0)
    return memoryview(body)
