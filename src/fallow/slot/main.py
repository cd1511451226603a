"""A slot: reads messages, runs tasks one by one in the main thread, and writes results. Knows nothing of hubs or leases.

It blocks in `read` between batches, so there is no hop between threads or loops on the way of a task.
"""

import contextlib
import faulthandler
import json
import mmap
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, BinaryIO

from fallow.slot import failures, lifeline, pages, refs, room, task
from fallow.slot.batch import Batch, PageFull, indices_of, ranges_of
from fallow.slot.jobs import Page, Refs, SlotJob, read_head
from fallow.slot.output import Output
from fallow.slot.pipeline import Pipeline
from fallow.slot.protocol import (
    CONTAINED,
    COUNTER_BYTES,
    DONE,
    FORGET,
    GAVE,
    HEADER,
    LAST,
    LOAD,
    PAGE,
    PRINTED,
    READY,
    RESUME,
    RUN,
    RUNNING,
    STARTED_NS,
)
from fallow.slot.turn import Turn

READ_BYTES = 1 << 16
REF_BYTES = 66
"""What the digest of a file takes in a frame beside the page."""


def run(counter_path: str, results_folder: str, memory_folder: str, inline_bytes: int, control: str) -> None:
    """Be a slot until the agent closes the pipe. memory_folder: see `Slot`."""
    if control.startswith(CONTAINED):
        from fallow.slot import contained

        control = contained.enter(control.removeprefix(CONTAINED))
    parent = os.getppid()  # the agent, or what its sandbox put in between
    inward, outward = _take_pipes()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the agent's terminal is the agent's business
    faulthandler.enable(2)
    with open(counter_path, "r+b") as file:  # noqa: PTH123
        counter = memoryview(mmap.mmap(file.fileno(), COUNTER_BYTES)).cast("Q")
    slot = Slot(inward, outward, counter, results_folder, memory_folder, inline_bytes)
    slot.serve(parent, lifeline.open_control(control))
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

    def __init__(
        self,
        inward: int,
        outward: int,
        counter: memoryview,
        results_folder: str,
        memory_folder: str,
        inline_bytes: int,
    ) -> None:
        """memory_folder: where large results go while that has room; "": always to the results folder."""
        self._inward = inward
        self._outward = outward
        self._counter = counter
        self._results_folder = results_folder
        self._memory_folder = memory_folder
        self._inline_bytes = inline_bytes
        self._control = -1
        self._written = 0
        self._write_lock = threading.RLock()
        self._turn = Turn()
        self._batch_lock = threading.Lock()
        self._running: tuple[int, SlotJob, Pipeline, Batch] | None = None
        self._jobs: dict[int, SlotJob] = {}
        self._refs = Refs()
        self._output = Output(self._send_printed, counter)
        self._task = task.TaskDesk(results_folder, counter, self._send_of_task)

    def serve(self, parent: int, control: int) -> None:
        """Answer messages until the pipe ends."""
        self._control = control
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_to_parent)
        self._output.install()
        refs.install(self._refs.load)
        task.install(self._task)
        lifeline.hold(control, parent, self._cut)
        self._send(READY, 0, (os.getpid(), 0, 0, 0))
        self._warm_up()
        pipe = os.fdopen(self._inward, "rb", READ_BYTES)
        header_bytes = HEADER.size
        while len(header := pipe.read(header_bytes)) == header_bytes:
            kind, key, length, a, b, c, d = HEADER.unpack(header)
            if kind == RUN:
                if self._turn.begin(d, a, b):
                    self._run(key, a, b, c)
            else:
                self._note(kind, key, _body(pipe, length), (a, b, c, d))

    def _warm_up(self) -> None:
        """Import what most functions need, unless there is work already."""
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._inward, select.POLLIN)
            if poll.poll(0):
                return
        with contextlib.suppress(ImportError):
            import cloudpickle  # noqa: F401

    def _note(self, kind: int, key: int, body: memoryview, numbers: tuple[int, int, int, int]) -> None:
        a, b, c, d = numbers
        if kind == LOAD:
            head = read_head(body, c)
            self._refs.know(head[-1])
            self._jobs[key] = SlotJob(head, bytes(body[c:]), self._results_folder)
            self._task.know(key, a / 1000)
        elif kind == PAGE:
            path, kept, known = read_head(body, c) if c else (None, None, None)
            if known and not self._jobs[key].is_program:
                self._refs.know(known)
            self._jobs[key].add_page(d, Page(a, b, path, bytes(body[c:]) if path is None else None, kept, known))
        elif kind == RESUME:
            self._task.leave(key, a, bytes(body).decode("utf-8", "surrogateescape"))
        elif kind == FORGET:
            if a < 0:
                self._jobs.pop(key, None)
                self._task.forget(key)
            elif key in self._jobs:
                self._jobs[key].drop_page(a)

    # --- running ---

    def _run(self, key: int, start: int, stop: int, page: int) -> None:
        # Loading functions and inputs is user code too: if it crashes, the first task is to blame.
        self._counter[STARTED_NS] = 0
        self._counter[RUNNING] = start + 1
        self._output.begin()
        job = self._jobs[key]
        self._task.begin(key)
        turn, lock = self._turn, self._batch_lock
        batch = Batch(start)
        try:
            pipeline = job.pipeline()
            batch.begin()
            for first, items in job.segments(page, start, stop):
                left, at = turn.enter(first, items), first
                if left is None:
                    break
                while True:
                    batch.enter(at)
                    self._running = (key, job, pipeline, batch)
                    try:
                        pipeline.run(left, at, self._counter, batch.values, batch.kept, batch.fail)
                    except PageFull:
                        with lock:
                            at = self._counter[RUNNING]
                            batch.ran(at)
                            self._finish(key, job, pipeline, batch, at)
                            batch = Batch(at)
                    else:
                        with lock:
                            batch.ran(turn.leave())
                        break
            left, items = None, ()  # files of inputs are mapped no longer when their results are known
            with lock:
                self._running = None
                self._finish(key, job, pipeline, batch, turn.end())
        except BaseException as error:
            with lock:
                self._running = None
                self._fail_rest(key, batch.rest(), turn.end(), error)
        self._counter[LAST] = self._counter[RUNNING]
        self._counter[RUNNING] = 0
        self._task.end()

    def _finish(
        self, key: int, job: SlotJob, pipeline: Pipeline, batch: Batch, stop: int, *, is_early: bool = False
    ) -> bool:
        """Send the results of the tasks from the batch's start to `stop`.

        is_early: another task runs, which may be changing what is pickled: if that fails, send nothing, return False.
        """
        if stop == batch.start:
            return True
        kept = batch.kept_ranges(stop, pipeline)
        if job.runner is not None:
            batch.files += job.runner.take_files()
        encode = _encode_json if job.codec == "json" else pages.encode_list
        pieces: Sequence[pages.Piece] = ()
        if batch.values:
            try:
                pieces = encode(batch.values)
            except BaseException:
                if is_early:
                    return False
                pieces, kept = self._encode_one_by_one(batch, stop, kept, encode, is_fold=pipeline.reduces)
        path: str | None = None
        size = pages.size_bytes(pieces)
        if size + batch.failures_bytes + REF_BYTES * len(batch.files) > self._inline_bytes and size:
            try:
                path, pieces = self._write_file(pieces, size), ()
            except OSError as error:
                problem = OSError(f"a result of {size} bytes can't be stored on its node: {error}")
                self._fail_rest(key, batch.start, stop, problem)
                return True
        self._send_done(key, batch, stop, (path, size, kept), pieces)
        return True

    def _fail_rest(self, key: int, start: int, stop: int, error: BaseException) -> None:
        """Fail all of the tasks for one reason: their function or their inputs can't be loaded, or their results stored."""
        for first in range(start, stop, failures.PAGE_FAILURES):
            end = min(stop, first + failures.PAGE_FAILURES)
            batch = Batch(first)
            index, name, message, text, data = failures.describe(first, error, 0)
            batch.failures.append((index, name, message, text, data))
            short = failures.bounded(message, 200)
            batch.failures += [(i, name, short, "", None) for i in range(first + 1, end)]
            self._send_done(key, batch, end, (None, 0, ()), ())

    def _send_done(
        self,
        key: int,
        batch: Batch,
        stop: int,
        about: tuple[str | None, int, Sequence[int] | None],
        pieces: Sequence[pages.Piece],
    ) -> None:
        head = b""
        path, size, kept = about
        if path is not None or kept is not None or batch.failures or batch.files:
            records = [(i, name, message, text, len(data or b"")) for i, name, message, text, data in batch.failures]
            head = json.dumps((path, size, kept, records, batch.files), separators=(",", ":")).encode()
        exceptions = [data for *_, data in batch.failures if data]
        self._output.flush()
        numbers = (batch.start, stop, len(head), perf_counter_ns() - batch.began_ns)
        self._send(DONE, key, numbers, head, *exceptions, *pieces)

    def _encode_one_by_one(
        self,
        batch: Batch,
        stop: int,
        kept: Sequence[int] | None,
        encode: Callable[[Any], Sequence[pages.Piece]],
        *,
        is_fold: bool,
    ) -> tuple[Sequence[pages.Piece], Sequence[int] | None]:
        """Find the results that can't be pickled, turn them into failures of their tasks, and encode the others."""
        indices = [batch.start] if is_fold else indices_of((batch.start, stop) if kept is None else kept)
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
            batch.failures = [(index, name, message, text, data) for index in range(batch.start, stop)]
            return (), ()
        return (encode(good) if good else ()), ranges_of(good_indices)

    def _write_file(self, pieces: Sequence[pages.Piece], size: int) -> str:
        self._written += 1
        name = f"{os.getpid()}-{self._written}"
        if self._memory_folder and room.has_room(self._memory_folder, size):
            with contextlib.suppress(OSError):  # somebody else was faster to fill it
                return _write(os.path.join(self._memory_folder, name), pieces)  # noqa: PTH118
        return _write(os.path.join(self._results_folder, name), pieces)  # noqa: PTH118

    # --- sending ---

    def _cut(self, number: int) -> None:
        """Give back what has not begun. Called in the lifeline's thread, which must not wait for what tasks do."""
        self._send(GAVE, 0, (*self._turn.cut(number), number, 0))
        threading.Thread(target=self._send_early, name="fallow-early", daemon=True).start()

    def _send_early(self) -> None:
        """Send the results of the tasks before the slow one that runs."""
        with self._batch_lock:
            if self._running is None:
                return  # it has ended
            key, job, pipeline, batch = self._running
            index = self._counter[RUNNING] - 1  # what it has appended to belongs to lower indices, or to this one
            if pipeline.reduces or index <= batch.start:
                return
            early = batch.before(index, pipeline)
            if self._finish(key, job, pipeline, early, index, is_early=True):
                batch.drop(early, index)

    def _send_of_task(self, kind: int, index: int, body: bytes) -> None:
        self._send(kind, 0, (index, 0, 0, 0), body)

    def _send_printed(self, body: bytes) -> None:
        self._send(PRINTED, 0, (0, 0, 0, 0), body)

    def _send(self, kind: int, key: int, numbers: tuple[int, int, int, int], *body: pages.Piece) -> None:
        header = HEADER.pack(kind, key, pages.size_bytes(body), *numbers)
        message: pages.Piece = b"".join((header, *body))
        with self._write_lock:
            if self._outward < 0:
                os.write(2, b"".join(body))  # a child that a task forked: what it prints goes the way of fd 2
                return
            sent = os.write(self._outward, message)
            while sent < len(message):
                message = memoryview(message)[sent:]
                sent = os.write(self._outward, message)

    def _leave_to_parent(self) -> None:
        """In a process that a task forked: the protocol is the parent's alone."""
        self._write_lock = threading.RLock()
        os.close(self._outward)
        os.close(self._inward)
        os.close(self._control)
        self._outward = -1
        self._output.forked()


def _encode_json(values: Sequence[Any]) -> Sequence[pages.Piece]:
    return [pages.encode_json(values)]


def _write(path: str, pieces: Sequence[pages.Piece]) -> str:
    try:
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123
            for piece in pieces:
                view = memoryview(piece).cast("B")
                while view.nbytes:
                    view = view[file.write(view) :]
    except OSError:
        with contextlib.suppress(OSError):  # half of it would only take room
            os.unlink(path)  # noqa: PTH108
        raise
    return path


def _body(pipe: BinaryIO, length: int) -> memoryview:
    body = pipe.read(length)
    if len(body) != length:
        sys.exit(0)
    return memoryview(body)
