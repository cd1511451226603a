"""Jobs as users hold them: lazy, ordered, chained, found again by name."""

import functools
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future as StandardFuture
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, cast

from fallow.client.failures import exception_of
from fallow.client.feeding import ParentSource, Source, release_job, start_job
from fallow.client.inputs import Gate
from fallow.client.job_state import JobState
from fallow.client.options import Options
from fallow.client.programs import Prepared
from fallow.client.readers import CREDIT_BYTES, CompletionReader, Entry, OrderedReader, TimeIsUp
from fallow.client.result_page import ResultValues
from fallow.client.session import JobFeed
from fallow.model.changes import LogEntry
from fallow.model.errors import BadRequest, FallowError
from fallow.model.ids import Digest
from fallow.model.job import (
    MAX_FUNCTION_NAME,
    JobInfo,
    JobProgress,
    JobSpec,
    StageKind,
)
from fallow.model.lease import RunningView
from fallow.model.page import INLINE_BYTES

if TYPE_CHECKING:
    from fallow.client.core import GridCore

T = TypeVar("T")
R = TypeVar("R")

START_DELAY_S = 0.002
"""How long a job waits for being chained before it starts, so that the stages run fused."""
_UNSET = object()


class Job(Generic[T]):
    """A function over many inputs, on the grid. Iterate over it for the results, in order.

    An unnamed job lives as long as this object; a named one until it is deleted.
    """

    _codec: ClassVar[Literal["pickle", "json"]] = "pickle"
    _can_fuse: ClassVar[bool] = True

    def __init__(
        self,
        core: "GridCore",
        stages: tuple[tuple[StageKind, Callable[..., Any]], ...],
        source: Source,
        options: Options,
        *,
        info: JobInfo | None = None,
    ) -> None:
        """info: of a job that exists already; made by `Grid.job`."""
        self._core = core
        self._stages = stages
        self._source = source
        self._options = options if info is not None else core.fit(options, stages)
        self._lock = threading.Lock()
        self._started = info is not None
        self._fused = False
        if info is not None:
            self._id, self._label = info.spec.id, info.spec.name or info.spec.function_name
            self._reduces = info.spec.reduces
        else:
            self._function, self._refs = self._encode(stages)
            self._id, self._label = core.new_job_id(), options.name or _label(stages)
            self._reduces = stages[-1][0] == "reduce"
        self._state = JobState(self._id, self._label, Gate(is_windowed=source.is_iterator))
        self._state.size = source.length
        if info is not None:
            self._state.progress = info.progress
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def _encode(self, stages: tuple[tuple[StageKind, Callable[..., Any]], ...]) -> tuple[bytes, tuple[Digest, ...]]:
        """Return the blob that says what is run, and those that it refers to."""
        return self._core.pickle_stages(stages)

    # --- identity -------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The job's id, 32 hex digits."""
        return self._id

    @property
    def name(self) -> str | None:
        """The job's name, None if it has none."""
        return self._options.name

    def __repr__(self) -> str:
        progress = self._state.progress
        if self._state.error is not None:
            state = f"failed: {self._state.error}"
        elif not self._started:
            state = "not started"
        elif progress is None:
            state = "starting"
        else:
            size = progress.size if progress.size is not None else f"{progress.accepted}+"
            failed = f", {progress.failed} failed" if progress.failed else ""
            state = f"{progress.state}, {progress.settled} of {size}{failed}"
        return f"<Job {self._label} {self._id[-8:]}: {state}>"

    # --- chaining -------------------------------------------------------------------------------

    def map(self, function: Callable[[T], R], **options: Any) -> "Job[R]":
        """Apply `function` to each result. Fused with this job's stages if it has not started yet."""
        return self._chain("map", function, options)

    def starmap(self, function: Callable[..., R], **options: Any) -> "Job[R]":
        """Apply `function` to each result, unpacked as its arguments."""
        return self._chain("starmap", function, options)

    def filter(self, function: Callable[[T], Any], **options: Any) -> "Job[T]":
        """Keep the results for which `function` is true."""
        return self._chain("filter", function, options)

    def reduce(self, op: Callable[[T, T], T], initial: Any = _UNSET, *, timeout: float | None = None) -> T:
        """Fold the results with an associative `op`: partially on the nodes, the partial results here, in order.

        initial: comes first, once, as with functools.reduce. timeout: seconds to wait. Raises TypeError if there is
        nothing to fold and no `initial`.
        """
        job: Job[T] = self._chain("reduce", op, {})
        folded: T = job._fold(op, initial, timeout)
        return folded

    def _fold(self, op: Callable[[T, T], T], initial: Any, timeout: float | None) -> T:
        partials = self._values(OrderedReader, return_exceptions=False, deadline=_Deadline(timeout))
        if initial is _UNSET:
            return functools.reduce(op, partials)
        folded: T = functools.reduce(op, partials, initial)
        return folded

    def _chain(self, kind: StageKind, function: Callable[..., Any], options: dict[str, Any]) -> "Job[Any]":
        if self._reduces:
            raise BadRequest("nothing can follow reduce")
        with self._lock:
            if self._can_fuse and not self._started and not self._fused and not options:
                child: Job[Any] = Job(self._core, (*self._stages, (kind, function)), self._source, self._options)
                self._fused = True
            else:
                child = Job(self._core, ((kind, function),), ParentSource(self), self._core.options(options))
        if isinstance(child._source, ParentSource):
            self._demand()
        child._start_soon()
        return child

    # --- starting -------------------------------------------------------------------------------

    def _start_soon(self) -> None:
        """Start after START_DELAY_S, or now if the job is named."""
        if self._options.name is not None:
            self._demand()
            info = self._created.result()  # a name that is taken is the caller's error, now
            if info is not None:
                self._id = self._state.job = info.spec.id
                self._state.progress = info.progress
                self._reduces = info.spec.reduces
            return
        reference = weakref.ref(self)

        def start() -> None:
            job = reference()
            if job is not None:
                job._demand(unasked=True)

        self._core.engine.post(lambda: self._core.engine.loop.call_later(START_DELAY_S, start))

    def _demand(self, *, unasked: bool = False) -> None:
        """Start the job unless it has started. unasked: nor if another has taken its stages, perhaps just now."""
        with self._lock:
            if self._started or (unasked and self._fused):
                return
            self._started = True
            if self._fused:
                self._source.check_not_taken(self._label)
        spec = JobSpec(
            id=self._id,
            stages=tuple(kind for kind, _ in self._stages),
            function=self._core.digest(self._function),
            function_name=_label(self._stages),
            inputs=self._source.inputs(),
            codec=self._codec,
            name=self._options.name,
            session=self._core.session.id,
            refs=self._refs,
            created_at=time.time(),
            **self._options.of_spec(),
        )
        state = self._state
        if self._options.name is not None:
            self._mark_kept()
        self._finalizer = weakref.finalize(self, release_job, self._core, state, self._options.name is not None)
        self._finalizer.atexit = False
        self._created: StandardFuture[JobInfo | None] = self._core.engine.submit(
            start_job(self._core, spec, self._function, state, self._source, self._options)
        )
        self._function = b""

    def _mark_kept(self) -> None:
        self._state.outlives_client = True
        if isinstance(self._source, ParentSource):
            self._source.parent._mark_kept()

    def _follow(self, info: JobInfo) -> None:
        """Take part in a job that exists: hear of its progress."""
        state = self._state

        async def attach() -> None:
            feed = JobFeed(info.spec, "attach", state.on_progress, state.on_error, state.gate.accepted)
            self._core.session.attach(feed, info)

        self._core.engine.run(attach())

    # --- results --------------------------------------------------------------------------------

    def __iter__(self) -> Generator[T, None, None]:
        """Yield the results in order, as they come; what a task raised is raised here, at its place."""
        return self._values(OrderedReader, return_exceptions=False, deadline=None)

    def results(self, *, return_exceptions: bool = False, timeout: float | None = None) -> Generator[T, None, None]:
        """Yield the results in order; with `return_exceptions` what tasks raised is yielded instead of raised.

        timeout: seconds for all of them, from this call. Raises TimeoutError.
        """
        return self._values(OrderedReader, return_exceptions=return_exceptions, deadline=_Deadline(timeout))

    def as_completed(self, *, return_exceptions: bool = False) -> Generator[tuple[int, T], None, None]:
        """Yield (index, result) in the order in which the tasks end; of a fold, its parts with the first index of each."""
        for values, start, stop in self._entries(CompletionReader):
            if values.page.partial:
                for part in self._partial(values, return_exceptions):
                    yield start, part
                continue
            for index, value, failure in values.outcomes(start, stop):
                if failure is None:
                    yield index, value
                elif return_exceptions:
                    yield index, cast("T", exception_of(failure))
                else:
                    raise exception_of(failure)

    def result(self, timeout: float | None = None, *, return_exceptions: bool = False) -> list[T]:
        """Wait for all results and return them as a list. timeout: seconds. Raises TimeoutError, and what a task raised."""
        deadline = _Deadline(timeout)
        found: list[T] = []
        for chunk in self._chunks(OrderedReader, return_exceptions=return_exceptions, deadline=deadline):
            found.extend(chunk)
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every task is settled; return False if `timeout` seconds passed first. Raises what ended the job."""
        self._demand()
        self._state.gate.open_wide()
        state = self._state
        with self._cancelling(), state.condition:
            return (
                state.condition.wait_for(
                    lambda: state.error is not None or (state.progress is not None and state.progress.ended), timeout
                )
                and self._raise_if_failed()
            )

    def _raise_if_failed(self) -> bool:
        if self._state.error is not None:
            raise self._state.error
        return True

    def _values(
        self, reader: type[OrderedReader], *, return_exceptions: bool, deadline: "_Deadline | None"
    ) -> Generator[T, None, None]:
        for chunk in self._chunks(reader, return_exceptions=return_exceptions, deadline=deadline):
            yield from chunk

    def _chunks(
        self, reader: type[OrderedReader], *, return_exceptions: bool, deadline: "_Deadline | None"
    ) -> Iterator[Iterable[T]]:
        """Yield the results page by page."""
        for values, start, stop in self._entries(reader, deadline):
            page = values.page
            if page.partial:
                yield self._partial(values, return_exceptions)
            elif values.is_plain:
                whole = values.values
                yield whole if stop - start == len(whole) else whole[start - page.start : stop - page.start]
            else:
                yield _outcomes(values.outcomes(start, stop), return_exceptions)

    @staticmethod
    def _partial(values: ResultValues, return_exceptions: bool) -> list[Any]:
        if not values.page.failures:
            return list(values.values)
        error = exception_of(values.page.failures[0])
        if return_exceptions:
            return [error]
        raise error

    def _entries(
        self, reader_type: "type[OrderedReader | CompletionReader]", deadline: "_Deadline | None" = None
    ) -> Generator[Entry, None, None]:
        self._demand()
        core, state = self._core, self._state
        reader = reader_type(state, core.next_reader_number())
        core.engine.post(core.session.add_reader, reader)
        with_bar = core.progress_bar(self._label, state)
        used = 0
        try:
            while True:
                try:
                    entry = with_bar.wait_for(reader, None if deadline is None else deadline.left_s())
                except KeyboardInterrupt:
                    self.cancel()
                    raise
                except TimeIsUp:
                    assert deadline is not None
                    raise TimeoutError(f"not all results within {deadline.timeout:g} s") from None
                if entry is None:
                    return
                yield entry
                values, _, stop = entry
                state.gate.consumed(stop)
                used += 120 + (len(values.page.data) if values.page.data is not None else INLINE_BYTES)
                if used > CREDIT_BYTES // 4:
                    core.engine.post(core.session.extend, reader, 0, 0, used)
                    used = 0
        finally:
            with_bar.close()
            core.engine.post(core.session.remove_reader, reader)

    def _cancelling(self) -> "_CancelOnInterrupt":
        return _CancelOnInterrupt(self)

    # --- control and information ----------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel the job: tasks that have not started won't, running ones are stopped."""
        with self._lock:
            if not self._started:
                self._started = True
                self._state.on_error(_cancelled(self._label))
                return
        self._state.gate.close()
        self._state.is_cancelled = True
        self._core.engine.post(self._core.session.cancel, self._id)

    def delete(self) -> None:
        """Cancel the job if it runs, and remove it and its results from the hub, named or not."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._state.gate.close()
        self._state.is_released = True
        self._core.engine.post(functools.partial(self._core.session.release, self._id, delete=True))

    @property
    def progress(self) -> JobProgress:
        """How far the job is, as the hub sees it now."""
        self._demand()
        if self._state.progress is not None and self._state.progress.ended:
            return self._state.progress
        return self.info().progress

    def info(self) -> JobInfo:
        """Return all that the hub knows of the job."""
        self._demand()
        self._wait_created()
        return self._core.ask("job", self._id, JobInfo)

    def running(self) -> list[RunningView]:
        """Return the tasks that run now, by index, with what they say of their progress: the first 1,000 of them.

        As the nodes last said: some seconds old.
        """
        self._demand()
        self._wait_created()
        return self._core.ask("running", self._id, list[RunningView])

    def errors(self) -> list[tuple[int, BaseException]]:
        """Return (index, exception) of the tasks that failed so far: the first 100 of them."""
        return [(failure.index, exception_of(failure)) for failure in self.info().first_failures]

    def logs(self) -> list[LogEntry]:
        """Return what the job's tasks printed so far, in order of arrival at the hub. Bounded: 64 KiB a task, 64 MiB a job."""
        self._demand()
        self._wait_created()
        found: list[LogEntry] = []
        after: int | None = 0
        while after is not None:
            page: tuple[list[LogEntry], int | None] = self._core.ask(
                "logs", self._id, tuple[list[LogEntry], int | None], after=after
            )
            found += page[0]
            after = page[1]
        return found

    def explain(self) -> list[str]:
        """Return in plain words what the job is waiting for."""
        self._demand()
        self._wait_created()
        return self._core.ask("explain", self._id, list[str])

    def _wait_created(self) -> None:
        if self._state.error is not None:
            raise self._state.error
        created = getattr(self, "_created", None)
        if created is not None:
            created.result()


class _CancelOnInterrupt:
    def __init__(self, job: Job[Any]) -> None:
        self._job = job

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            self._job.cancel()


def _outcomes(outcomes: Iterator[tuple[int, Any, Any]], return_exceptions: bool) -> Iterator[Any]:
    for _, value, failure in outcomes:
        if failure is None:
            yield value
        elif return_exceptions:
            yield exception_of(failure)
        else:
            raise exception_of(failure)


class _Deadline:
    """The end of a wait for several things, and how long the wait was to be."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._began_mono = time.monotonic()

    def left_s(self) -> float | None:
        return None if self.timeout is None else max(0.0, self._began_mono + self.timeout - time.monotonic())


def _label(stages: tuple[tuple[StageKind, Callable[..., Any]], ...]) -> str:
    return ".".join(f"{kind}({_name(function)})" for kind, function in stages)[:MAX_FUNCTION_NAME]


def _name(function: Any) -> str:
    if isinstance(function, Prepared):
        return function.label
    return getattr(function, "__qualname__", None) or type(function).__name__


def _cancelled(label: str) -> FallowError:
    from fallow.model.errors import JobCancelled

    return JobCancelled(f"job {label} was cancelled before it started")
