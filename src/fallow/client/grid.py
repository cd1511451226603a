"""The client's handle on a grid: this computer's cores, or a hub's nodes."""

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from fallow.client.config import HubAddress, find_hub
from fallow.client.core import GridCore, is_interactive
from fallow.client.engine import Engine, at_exit
from fallow.client.feeding import AttachedSource, ItemSource, ParentSource, RangeSource, Source
from fallow.client.future import Future
from fallow.client.input_files import Files
from fallow.client.job import _UNSET, Job
from fallow.client.job_state import JobState
from fallow.client.options import PYTHON, Options
from fallow.client.program_job import ProgramJob, of_program, source_of
from fallow.client.programs import Prepared, prepare
from fallow.client.session import ClientSession
from fallow.client.sources import LocalSources
from fallow.client.stream import StreamBook
from fallow.client.sweep import ParameterRows, read_parameters
from fallow.link.link import Link
from fallow.model.errors import BadRequest, Closed
from fallow.model.ids import SessionId
from fallow.model.job import JobInfo, StageKind
from fallow.model.node_view import NodeView
from fallow.slot.pages import encode_list, size_bytes
from fallow.slot.refs import Ref, collecting

if TYPE_CHECKING:
    from fallow.client.embedded import EmbeddedGrid

T = TypeVar("T")
R = TypeVar("R")

CLOSE_TIMEOUT_S = 5.0
"""How long leaving may take before the interpreter goes on without it."""


class Grid:
    """Runs Python functions on many computers, or on all cores of this one.

    `Grid()` needs no server: it uses this computer, unless $FALLOW_HUB or the config file names a hub.
    `Grid("http://hub:7070", token=…)` uses that hub's nodes. Close it, or use it in a `with` block: unnamed jobs end
    with it, named ones go on.
    """

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
        """Open a grid.

        hub: address of a hub; None: $FALLOW_HUB, the config file, else this computer. token, token_file: what to show
        the hub; default $FALLOW_TOKEN or the config file. state: keep an embedded grid's jobs in this folder, as safe as
        a hub's. slots: worker processes of an embedded grid; default one per core. progress: show bars for long
        waits; default only in terminals and notebooks.

        Raises Denied (wrong token), Unavailable (no hub there), BadRequest, StateInUse, StateTooNew.
        """
        is_embedded = state is not None or slots is not None
        if is_embedded and hub is not None:
            raise BadRequest(
                "state= and slots= are for an embedded grid; leave out the hub's address, or leave out these"
            )
        if slots is not None and (not isinstance(slots, int) or slots < 1):
            raise BadRequest(f"slots={slots!r} is not a whole number of at least 1")
        address = None if is_embedded else find_hub(hub, token, token_file)
        engine = Engine()
        engine.start()
        try:
            session, embedded = engine.run(_open(address, state, slots))
        except BaseException:
            engine.stop()
            raise
        self._hub = address.url if address is not None else "embedded"
        shows = is_interactive() if progress is None else progress
        self._core = GridCore(engine, session, {}, shows_progress=shows)
        self._core.address = address
        if embedded is not None:
            self._core.want_sandboxes = embedded.want_sandboxes
            self._core.direct = embedded.direct_calls
        self._streams = StreamBook(self._core)
        self._defaults: Options = self._core.options({})
        self._finalizer = weakref.finalize(
            self, _shut, engine, session, embedded, self._core.feeders, self._core.sources
        )
        if embedded is not None and embedded.is_durable:
            at_exit(self._finalizer)
        self._is_view = False

    def __repr__(self) -> str:
        return f"<Grid {self._hub}{'' if self._finalizer.alive else ', closed'}>"

    # --- calls ----------------------------------------------------------------------------------

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Run `function(*args, **kwargs)` on the grid; return its Future (a concurrent.futures.Future).

        Arguments are pickled now: changing them later changes nothing. Options such as `timeout` go through
        `grid.options(timeout=5).submit(…)`. Raises PicklingFailed, Closed.
        """
        self._check_open()
        found: Future[R] = self._streams.submit(function, args, kwargs, self._defaults)
        return found

    def map(
        self, function: Callable[..., R], iterable: Iterable[Any], /, *more: Iterable[Any], **options: Any
    ) -> Job[R]:
        """Apply `function` to every item (with several iterables: to one item of each), as the built-in map does.

        The job starts at once and its results come in order. Options: requires, priority, retries, max_retries,
        timeout, name, if_exists, speculate, env, sandbox, network, limits, container.
        """
        if more:
            return self._job("starmap", function, ItemSource(_zipped((iterable, *more))), options)
        return self._job("map", function, _source(iterable), options)

    def starmap(self, function: Callable[..., R], iterable: Iterable[Iterable[Any]], /, **options: Any) -> Job[R]:
        """Apply `function` to every item, unpacked as its arguments."""
        return self._job("starmap", function, _source(iterable), options)

    def filter(self, function: Callable[[T], Any], iterable: Iterable[T], /, **options: Any) -> Job[T]:
        """Keep the items for which `function` is true; decided on the nodes, in order."""
        return self._job("filter", function, _source(iterable), options)

    def reduce(
        self,
        op: Callable[[T, T], T],
        iterable: Iterable[T],
        /,
        initial: Any = _UNSET,
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> T:
        """Fold items, or a job's results, with an associative `op`: in parts on the nodes, the parts here, in order.

        timeout: of each task, in seconds, as everywhere. Raises TypeError if there is nothing to fold and no `initial`.
        """
        if isinstance(iterable, Job) and not options and timeout is None:
            found: T = iterable.reduce(op, initial)
            return found
        job: Job[T] = self._job("reduce", op, _source(iterable), {**options, "timeout": timeout})
        return job._fold(op, initial, None)

    def run(
        self,
        command: str | Sequence[str],
        /,
        *,
        params: Any = None,
        inputs: Files = (),
        outputs: Iterable[str] = (),
        executables: Mapping[str, str | os.PathLike[str]] | None = None,
        environ: Mapping[str, str] | None = None,
        stdin: str | None = None,
        stdin_file: str | None = None,
        shell: bool = False,
        success_codes: Iterable[int] = (0,),
        input_fault_codes: Iterable[int] = (),
        **options: Any,
    ) -> ProgramJob:
        """Run a program once for each set of parameters, in a fresh folder with its input files; results are ProgramResults.

        command: program and arguments; `{x}` is the parameter x, `{index}` the task's index. It is split into words and run
        without a shell, unless `shell` is true. params: a mapping from names to columns, which are crossed (a tuple of names: its
        column has a row of values for each step); an iterable of mappings; or a CSV file. inputs: files and folders (a mapping
        gives them other names); with placeholders each task has its own. outputs: names and patterns of what each task must leave in its folder. executables: by platform
        ("linux-x86_64"), for `{executable}`. environ: environment variables. stdin: text, stdin_file: file of the folder.
        success_codes: exit codes of tasks that have a result. input_fault_codes: those of tasks that are never tried again.

        Options as in `map`. Raises BadRequest.
        """
        self._check_open()
        rows = read_parameters(params)
        prepared = prepare(
            command,
            rows,
            inputs=inputs,
            outputs=outputs,
            executables=executables,
            environ=environ,
            stdin=stdin,
            stdin_file=stdin_file,
            shell=shell,
            success_codes=success_codes,
            input_fault_codes=input_fault_codes,
        )
        return self._run(prepared, rows, options)

    def _run(self, prepared: Prepared, rows: ParameterRows, options: Mapping[str, Any]) -> ProgramJob:
        """Start a program's job."""
        fitting = of_program(self._core.options(options), prepared, options)
        job = ProgramJob(self._core, prepared, source_of(prepared, rows), fitting)
        job._start_soon()
        return job

    def put(self, value: object) -> Ref:
        """Store a large object in the grid once; the Ref may stand anywhere in arguments, and tasks get the object.

        Arrays in it are mapped read-only by all slots of a node. It lives as long as this grid handle, and longer where
        named jobs refer to it. Raises PicklingFailed, HubFull.
        """
        self._check_open()
        with collecting():
            pieces = encode_list([value])
        return Ref(self._core.keep_pieces(pieces), size_bytes(pieces))

    def options(self, **options: Any) -> "Grid":
        """Return a handle on the same grid whose calls have these options unless they say otherwise."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        core = object.__new__(GridCore)
        core.__dict__.update(self._core.__dict__)
        core._defaults = {**self._core._defaults, **options}
        view._core = core
        view._defaults = core.options({})
        view._is_view = True
        return view

    def _job(self, kind: StageKind, function: Callable[..., Any], source: Source, options: dict[str, Any]) -> Job[Any]:
        self._check_open()
        job: Job[Any] = Job(self._core, ((kind, function),), source, self._core.options(options))
        job._start_soon()
        return job

    # --- what is there --------------------------------------------------------------------------

    def job(self, name: str) -> Job[Any]:
        """Return a job by name or id, made by this or any other process. Raises JobNotFound."""
        self._check_open()
        info: JobInfo = self._core.ask("job", name, JobInfo)
        options = msgspec.structs.replace(self._defaults, name=info.spec.name)
        if info.spec.is_program:
            program: Job[Any] = ProgramJob(self._core, None, AttachedSource(info), options, info=info)
            program._follow(info)
            return program
        stages = tuple((kind, _unknown) for kind in info.spec.stages)
        job: Job[Any] = Job(self._core, stages, AttachedSource(info), options, info=info)
        job._follow(info)
        return job

    def jobs(self) -> list[JobInfo]:
        """Return your jobs: unfinished ones first, then the latest ended."""
        self._check_open()
        return self._core.ask("jobs", "", list[JobInfo])

    def nodes(self) -> list[NodeView]:
        """Return the grid's nodes."""
        self._check_open()
        return self._core.ask("nodes", "", list[NodeView])

    # --- life -----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise Closed("this grid was closed; open another with Grid(…)")

    def close(self) -> None:
        """Cancel unnamed jobs, keep named ones, end an embedded grid's processes.

        Returns at once, unless the inputs of named jobs are still on their way: these are sent first. Ctrl-C ends that.
        """
        if not self._is_view:
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _source(iterable: Iterable[Any]) -> Source:
    if isinstance(iterable, range) and max(abs(iterable.start), abs(iterable.stop)) < 1 << 62:
        return RangeSource(iterable)
    if isinstance(iterable, Job):
        return ParentSource(iterable)
    if not isinstance(iterable, Iterable):
        raise BadRequest(f"{iterable!r} can't be iterated over")
    return ItemSource(iterable)


def _zipped(iterables: tuple[Iterable[Any], ...]) -> Iterable[Any]:
    zipped = zip(*iterables, strict=False)
    return list(zipped) if all(isinstance(each, Sized) for each in iterables) else zipped


def _unknown(*_: Any) -> Any:
    raise BadRequest("the function of an attached job is known to the hub only")


async def _open(
    address: HubAddress | None, state: str | os.PathLike[str] | None, slots: int | None
) -> tuple[ClientSession, "EmbeddedGrid | None"]:
    """Return a connected session, and the hub and node of an embedded grid; runs on the engine."""
    session_id = SessionId(os.urandom(16).hex())
    if address is None:
        from fallow.client.embedded import EmbeddedGrid

        embedded = EmbeddedGrid(None if state is None else Path(state), slots)
        await embedded.start()
        session = ClientSession(session_id, embedded.connect, PYTHON)
        await session.open()
        return session, embedded

    from fallow.link.websocket import dial

    async def connect() -> Link:
        return await dial(address.url, address.secret, "client")

    session = ClientSession(session_id, connect, PYTHON)
    await session.open()
    return session, None


def _shut(
    engine: Engine,
    session: ClientSession,
    embedded: "EmbeddedGrid | None",
    feeders: dict[JobState, threading.Thread],
    sources: LocalSources,
) -> None:
    """Close a grid; called once: by `close`, by the garbage collector, or when the interpreter exits."""
    if engine.is_current:  # collected there: it can't wait for itself
        threading.Thread(target=_shut, args=(engine, session, embedded, feeders, sources), name="fallow-close").start()
        return
    if not engine.is_running:
        return
    try:
        if embedded is not None:
            _run_briefly(engine, embedded.stop_node())
        if embedded is None or embedded.is_durable:
            _finish_feeding(engine, session, feeders)
    finally:
        _run_briefly(engine, session.close())
        if embedded is not None:
            _run_briefly(engine, embedded.stop())
        engine.stop()
        sources.close()


def _finish_feeding(engine: Engine, session: ClientSession, feeders: dict[JobState, threading.Thread]) -> None:
    """Wait until the inputs of jobs that go on without this client are at the hub; iterators are left where they are."""
    kept = {
        state.job: (state, thread)
        for state, thread in list(feeders.items())
        if state.outlives_client and state.size is not None
    }
    if not kept:
        return
    engine.post(session.end_unnamed, set(kept))
    deadline = time.monotonic() + CLOSE_TIMEOUT_S
    for state, thread in kept.values():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            _say(f"the inputs of {state.label} are still being sent to the hub; Ctrl-C leaves without the rest")
            thread.join()


def _run_briefly(engine: Engine, work: Coroutine[Any, Any, None]) -> None:
    try:
        engine.run(work, CLOSE_TIMEOUT_S)
    except TimeoutError:
        _say("closing took too long and was given up")


def _say(text: str) -> None:
    print(f"fallow: {text}", file=sys.stderr)  # noqa: T201 -- loggers may be gone
