"""The same grid for asyncio programs: every call that would wait is awaited instead. One implementation, no second copy."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from typing import Any, Generic, Self, TypeVar, cast

from fallow.client.download import By, Downloaded
from fallow.client.grid import Grid
from fallow.client.job import _UNSET, Job
from fallow.client.program_job import ProgramJob
from fallow.client.programs import ProgramResult
from fallow.client.readers import OrderedReader
from fallow.model.changes import LogEntry
from fallow.model.errors import BadRequest
from fallow.model.job import JobInfo, JobProgress
from fallow.model.lease import RunningView
from fallow.model.node_view import NodeView
from fallow.slot.refs import Ref

T = TypeVar("T")
R = TypeVar("R")

_END = object()


class AsyncJob(Generic[T]):
    """A `Job` whose results are awaited: `async for value in job`, `await job`."""

    def __init__(self, job: Job[T]) -> None:
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def name(self) -> str | None:
        return self._job.name

    def map(self, function: Callable[[T], R], **options: Any) -> "AsyncJob[R]":
        return AsyncJob(self._job.map(function, **options))

    def starmap(self, function: Callable[..., R], **options: Any) -> "AsyncJob[R]":
        return AsyncJob(self._job.starmap(function, **options))

    def filter(self, function: Callable[[T], Any], **options: Any) -> "AsyncJob[T]":
        return AsyncJob(self._job.filter(function, **options))

    async def reduce(self, op: Callable[[T, T], T], initial: Any = _UNSET) -> T:
        return await asyncio.to_thread(self._job.reduce, op, initial)

    async def __aiter__(self) -> AsyncIterator[T]:
        async for chunk in _drive(self._job._chunks(OrderedReader, return_exceptions=False, deadline=None)):
            for value in chunk:
                yield value

    async def as_completed(self, *, return_exceptions: bool = False) -> AsyncIterator[tuple[int, T]]:
        async for pair in _drive(self._job.as_completed(return_exceptions=return_exceptions)):
            yield pair

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self.result().__await__()

    async def result(self, timeout: float | None = None, *, return_exceptions: bool = False) -> list[T]:  # noqa: ASYNC109
        return await asyncio.to_thread(self._job.result, timeout, return_exceptions=return_exceptions)

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 -- the same face as Job
        return await asyncio.to_thread(self._job.wait, timeout)

    async def download(self, folder: str | os.PathLike[str], *, by: By = "index") -> Downloaded:
        """Write a program's output files, as `ProgramJob.download` does. Raises BadRequest for other jobs."""
        job = self._job
        if not isinstance(job, ProgramJob):
            raise BadRequest("the job runs no program: its results are values, not files")
        return await asyncio.to_thread(job.download, folder, by=by)

    def cancel(self) -> None:
        self._job.cancel()

    def delete(self) -> None:
        self._job.delete()

    async def progress(self) -> JobProgress:
        return await asyncio.to_thread(lambda: self._job.progress)

    async def running(self) -> list[RunningView]:
        return await asyncio.to_thread(self._job.running)

    async def errors(self) -> list[tuple[int, BaseException]]:
        return await asyncio.to_thread(self._job.errors)

    async def logs(self) -> list[LogEntry]:
        return await asyncio.to_thread(self._job.logs)

    async def explain(self) -> list[str]:
        return await asyncio.to_thread(self._job.explain)


async def _drive(items: Iterable[T]) -> AsyncIterator[T]:
    """Iterate over a blocking iterable without holding up the event loop: a thread hop per item (per page, mostly)."""
    iterator = iter(items)
    try:
        while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
            yield cast("T", item)
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


class AsyncGrid:
    """`Grid` for asyncio: `async with AsyncGrid() as grid: await grid.map(f, xs)`. Takes what Grid takes."""

    def __init__(
        self,
        hub: str | None = None,
        *,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        state: str | os.PathLike[str] | None = None,
        slots: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self._open: Callable[[], Grid] = lambda: Grid(
            hub, token=token, token_file=token_file, state=state, slots=slots, progress=progress
        )
        self._grid: Grid | None = None

    @property
    def _opened(self) -> Grid:
        if self._grid is None:
            raise RuntimeError("open the grid first: async with AsyncGrid(…) as grid")
        return self._grid

    async def __aenter__(self) -> Self:
        self._grid = await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._grid is not None:
            await asyncio.to_thread(self._grid.close)

    def options(self, **options: Any) -> "AsyncGrid":
        """Return a handle on the same grid whose calls have these options unless they say otherwise."""
        view = object.__new__(type(self))
        view._open, view._grid = self._open, self._opened.options(**options)
        return view

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> "asyncio.Future[R]":
        """Run one call; await the future for its value, or cancel it to stop the task."""
        return asyncio.wrap_future(self._opened.submit(function, *args, **kwargs))

    def map(self, function: Callable[..., R], /, *iterables: Iterable[Any], **options: Any) -> AsyncJob[R]:
        return AsyncJob(self._opened.map(function, *iterables, **options))

    def starmap(self, function: Callable[..., R], iterable: Iterable[Iterable[Any]], /, **options: Any) -> AsyncJob[R]:
        return AsyncJob(self._opened.starmap(function, iterable, **options))

    def filter(self, function: Callable[[T], Any], iterable: Iterable[T], /, **options: Any) -> AsyncJob[T]:
        return AsyncJob(self._opened.filter(function, iterable, **options))

    async def run(self, command: str | Sequence[str], /, **options: Any) -> AsyncJob[ProgramResult]:
        """Run a program, as `Grid.run` does; awaits until its input files are read."""
        return AsyncJob(await asyncio.to_thread(lambda: self._opened.run(command, **options)))

    async def reduce(
        self, op: Callable[[T, T], T], iterable: Iterable[T], /, initial: Any = _UNSET, **options: Any
    ) -> T:
        source: Iterable[T] = iterable._job if isinstance(iterable, AsyncJob) else iterable
        return await asyncio.to_thread(lambda: self._opened.reduce(op, source, initial, **options))

    async def put(self, value: object) -> Ref:
        return await asyncio.to_thread(self._opened.put, value)

    async def job(self, name: str) -> AsyncJob[Any]:
        return AsyncJob(await asyncio.to_thread(self._opened.job, name))

    async def jobs(self) -> list[JobInfo]:
        return await asyncio.to_thread(self._opened.jobs)

    async def nodes(self) -> list[NodeView]:
        return await asyncio.to_thread(self._opened.nodes)
