"""Single submits as a streaming job: calls gather into pages, results spread over futures."""

import contextlib
import sys
import threading
import time
import warnings
import weakref
from bisect import bisect_left
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fallow.client import direct
from fallow.client.direct import DirectCall
from fallow.client.future import Future
from fallow.client.inputs import UNPICKLED, check_refs
from fallow.client.options import Options
from fallow.client.plain_calls import TYPICAL_BYTES, PlainCall, encode, ends, is_plain, one_by_one, size_of
from fallow.client.readers import WHOLE_JOB
from fallow.client.result_page import ResultValues
from fallow.client.session import JobFeed
from fallow.model.errors import FallowError, PicklingFailed
from fallow.model.ids import Digest, JobId
from fallow.model.job import JobProgress, JobSpec, Pages, StageKind
from fallow.model.page import INLINE_BYTES, MAX_PAGE_REFS, REF_BYTES, InputPage, StoredPage
from fallow.model.ranges import RangeSet
from fallow.slot import pages, refs
from fallow.slot.pickling import dumps

if TYPE_CHECKING:
    from fallow.client.core import GridCore

MAX_TASKS = 1_000_000
"""A stream's job is sealed here and the next submit opens another, so that no job grows for ever."""
IDLE_S = 60.0
"""A stream nobody submits to is sealed after this long."""
PAGE_BYTES = 256 * 1024
PAGE_CALLS = 4096
MAX_WAITING_BYTES = 64 << 20
"""Calls that the hub has not acknowledged; `submit` waits while there are more."""
FIRST_PATIENCE = 256
"""When so many calls wait to be sent, who submits makes room for the thread that sends them: else it may not get the interpreter
until all are submitted, and slots stand idle meanwhile. In a long burst, at each twice as many, up to a page."""
HAND_OVER_S = 0.00005
"""As long as a thread takes to wake up."""
LARGE_CALL_BYTES = 10_000_000
NO_CREDIT_LIMIT = 1 << 60


class Stream:
    """One open job that takes the calls of one function (or of any, kind "apply")."""

    def __init__(self, core: "GridCore", kind: StageKind, function: Callable[..., Any], options: Options) -> None:
        self._core = core
        self._function, self._refs = core.pickle_stages([(kind, function)])
        self._kind = kind
        self._name = getattr(function, "__qualname__", type(function).__name__)
        self._options = core.fit(options, [(kind, function)])
        self.code_version = core.code_version(options, is_sure=False)
        """Of what travels beside the function: when it changes, calls need another stream."""
        self._lock = threading.Lock()
        self._takes_plain = kind == "call"
        self._calls: list[bytes | PlainCall] = []
        self._digests: dict[int, tuple[Digest, ...]] = {}
        """What calls that were not sent yet refer to, by index; most refer to nothing."""
        self._cancelled: list[int] = []
        self._futures: dict[int, Future[Any]] = {}
        self._direct = core.direct if options == core.options({}) else None
        self._direct_slots = 0 if self._direct is None else self._direct.slots
        self._direct_calls: dict[int, DirectCall] = {}
        self._next_direct = direct.FIRST_INDEX
        self._taken = 0
        """Calls that left `_calls`."""
        self._sent = 0
        self._patience = FIRST_PATIENCE
        self._is_flushing = False
        self._waiting_bytes = 0
        self._room = threading.Condition(self._lock)
        self._bytes_until: list[tuple[int, int]] = []
        self._idle: Any = None
        self._used_mono = 0.0
        self._feed: JobFeed | None = None
        self._is_opened = self._is_ready = False
        self._missing = RangeSet([(0, WHOLE_JOB)])
        self._large: weakref.WeakSet[ResultValues] = weakref.WeakSet()
        """Results in files, of futures that somebody holds still."""
        self._error: BaseException | None = None
        self.is_sealed = False
        self.job: JobId = core.new_job_id()
        self.number = core.next_reader_number()

    # --- the user's threads ---

    def submit(self, item: Any) -> "Future[Any] | None":
        """Queue a call; None if the stream is sealed and another must be opened. Raises PicklingFailed."""
        digests: dict[str, None] | None = None
        if self._takes_plain and not item[1] and is_plain(item[0]):
            data: bytes | PlainCall = item[0]
        else:
            data, digests = self._pickle(item)
        call: DirectCall | None = None
        try:
            with self._lock:
                while self._waiting_bytes > MAX_WAITING_BYTES and self._error is None:
                    self._room.wait()
                if self.is_sealed or self._taken + len(self._calls) >= MAX_TASKS:
                    return None
                if self._error is not None:
                    raise self._error
                if len(self._futures) >= self._direct_slots or not self._may_go_directly(data, digests):
                    future = self._add(data, digests)
                else:
                    call = self._new_direct(one_by_one(data))
            if call is None:
                if len(self._calls) >= self._patience:
                    self._patience *= 2  # until the next flush
                    time.sleep(HAND_OVER_S)
                return future
            self._patience = FIRST_PATIENCE  # perhaps a burst begins
            self._start_directly(call)
        except BaseException:  # Ctrl-C
            if call is not None:
                self._direct_ended(call)
            raise
        return call.future

    def _pickle(self, item: Any) -> tuple[bytes, dict[str, None]]:
        """Return a call's bytes, and what it refers to."""
        with refs.collecting() as digests:
            try:
                data = dumps(item)
            except Exception as error:  # whatever an argument's pickling raises
                raise PicklingFailed(self._explain_unpickled(item, error)) from error
        if len(data) > LARGE_CALL_BYTES:
            warnings.warn(
                f"a call of {self._name} carries {len(data) / 1e6:.0f} MB; grid.put(obj) sends a large object once, "
                "however many calls use it",
                stacklevel=5,
            )
        if digests:
            check_refs(len(digests), f"the call of {self._name}")
        return data, digests

    def _may_go_directly(self, data: "bytes | PlainCall", digests: dict[str, None] | None) -> bool:
        """Whether nothing else is under way, but for calls that went directly and left slots idle."""
        return (
            self._is_ready
            and len(self._futures) == len(self._direct_calls)
            and size_of(data) <= direct.MAX_BYTES
            and not digests
        )

    def _new_direct(self, data: bytes) -> DirectCall:
        """Note a call that goes directly. Needs the lock."""
        index = self._next_direct
        self._next_direct += 1
        future: Future[Any] = Future(self, index)
        call = DirectCall(data, future, self._direct_ended, self._queue)
        self._direct_calls[index], self._futures[index] = call, future
        return call

    def _start_directly(self, call: DirectCall) -> None:
        """Hand it to a slot: without the lock, for its result may be here before this returns."""
        assert self._direct is not None
        self._used_mono = time.monotonic()
        page = pages.encode_calls([call.data])
        if not self._direct.run_at_once(self.job, call.index, page, call):
            self._core.engine.post(self._run_directly, call, page)

    def _add(
        self, call: "bytes | PlainCall", digests: dict[str, None] | None = None, future: "Future[Any] | None" = None
    ) -> "Future[Any]":
        """Have a call sent with the next page, in order. Needs the lock.

        Ctrl-C may come between any two lines: until the call is in `_calls` its index is the next one's too, and nothing is lost
        if it is flushed twice.
        """
        index = self._taken + len(self._calls)
        if future is None:
            future = Future(self, index)
        else:
            future._index = index
        self._futures[index] = future
        if digests:
            self._digests[index] = self._core.digests(tuple(digests))
        self._waiting_bytes += len(call) if isinstance(call, bytes) else TYPICAL_BYTES
        self._calls.append(call)
        if not self._is_flushing:
            self._core.engine.post(self._flush)
            self._is_flushing = True
        return future

    def _explain_unpickled(self, item: Any, error: Exception) -> str:
        """Name the argument that is at fault, if one alone is."""
        args, kwargs = item[-2:]
        for name, value in [*((str(at), value) for at, value in enumerate(args)), *kwargs.items()]:
            try:
                dumps(value)
            except Exception as own:
                what = f"argument {name} of {self._name}, a {type(value).__name__},"
                return f"{what} can't be pickled: {own}. {UNPICKLED}"
        return f"a call of {self._name} can't be pickled: {error}. {UNPICKLED}"

    def cancel_task(self, index: int) -> None:
        """Stop one task, running or not. What is cancelled at a time goes to the hub together."""
        self._futures.pop(index, None)
        with self._lock:
            if index >= direct.FIRST_INDEX:  # the hub knows no such task, also if it has just ended
                alone = self._direct_calls.get(index)
                if alone is not None:
                    self._core.engine.post(self._stop_directly, alone)
                return
            self._cancelled.append(index)
            if len(self._cancelled) > 1:
                return
        self._core.engine.post(self._cancel_tasks)

    # --- direct calls, on the engine's thread ---

    def _run_directly(self, call: DirectCall, data: bytes) -> None:
        assert self._direct is not None
        if call.future.done() or not self._direct.run_directly(self.job, call.index, data, call):
            call.lost()

    def _stop_directly(self, call: DirectCall) -> None:
        assert self._direct is not None
        self._direct.stop_directly(call)

    def _direct_ended(self, call: DirectCall) -> bool:
        with self._lock:
            self._direct_calls.pop(call.index, None)
            waits = self._futures.pop(call.index, None) is not None
        if self.is_sealed:
            self._release_if_over()
        return waits

    def _queue(self, call: DirectCall) -> int | None:
        """Let a call go the usual way; return its index there, None if nobody waits for it any more."""
        future = call.future
        with self._lock:
            if self._error is not None or future.done():
                return None
            self._add(call.data, future=future)
        if future.done():  # cancelled meanwhile, by the index that it had
            self.cancel_task(future._index)
        return future._index

    # --- the engine's thread ---

    def _cancel_tasks(self) -> None:
        with self._lock:
            cancelled = RangeSet((index, index + 1) for index in sorted(self._cancelled))
            self._cancelled = [
                index for index in self._cancelled if index >= self._sent
            ]  # `_flush` comes back to these
        self._core.session.cancel_tasks(self.job, RangeSet(cancelled.within(0, self._sent)))
        self._release_if_over()

    def _flush(self) -> None:
        if not self._is_opened:
            self._is_opened = True
            self._core.session.spawn(self._open())
            return
        if not self._is_ready:
            return
        with self._lock:
            calls, self._calls = self._calls, []
            self._taken += len(calls)
            self._is_flushing = False
        self._patience = min(max(FIRST_PATIENCE, 2 * len(calls)), PAGE_CALLS)
        end, at = ends(calls), 0
        while at < len(calls) and self._is_ready:
            full = bisect_left(end, end[at] + PAGE_BYTES, at + 1)
            count = self._send(calls[at : min(full, at + PAGE_CALLS)])
            self._bytes_until.append((self._sent, end[at + count] - end[at]))
            at += count
        if at < len(calls):  # a page became a blob: the rest follows once that is kept
            with self._lock:
                self._calls[:0] = calls[at:]
                self._taken -= len(calls) - at
        if self._cancelled:
            self._cancel_tasks()
        self._put_off_idle()
        if self._taken + len(self._calls) >= MAX_TASKS:
            self.seal()

    def _send(self, calls: "list[bytes | PlainCall]") -> int:
        """Send a page of calls, of fewer than these if they refer to too much; return how many."""
        session = self._core.session
        start = self._sent
        digests = self._digests_of(start, start + len(calls))
        while len(digests) > MAX_PAGE_REFS:
            calls = calls[: len(calls) // 2]
            digests = self._digests_of(start, start + len(calls))
        if digests:
            for index in range(start, start + len(calls)):
                self._digests.pop(index, None)
        data = encode(calls)
        self._sent = stop = start + len(calls)
        assert self._feed is not None
        if len(data) + REF_BYTES * len(digests) <= INLINE_BYTES:
            session.add_input(self._feed, InputPage(self.job, start, stop, data, None, tuple(digests)))
        else:
            session.spawn(self._send_blob(session, data, start, stop, tuple(digests)))
            self._is_ready = False  # pages must arrive in order
        return len(calls)

    def _digests_of(self, start: int, stop: int) -> dict[Digest, None]:
        """Return what calls refer to, each once."""
        known = self._digests
        return dict.fromkeys(digest for index in range(start, stop) for digest in known.get(index, ())) if known else {}

    async def _send_blob(self, session: Any, data: bytes, start: int, stop: int, digests: tuple[Digest, ...]) -> None:
        digest = self._core.digest(data)
        try:
            await session.blobs.keep_page(digest, data)
        except FallowError as error:
            self.on_error(error)
            return
        session.add_input(self._feed, InputPage(self.job, start, stop, None, digest, digests))
        self._is_ready = True
        if self.is_sealed:
            self._send_seal()
        else:
            self._flush()

    async def _open(self) -> None:
        core, options = self._core, self._options
        spec = JobSpec(
            id=self.job,
            stages=(self._kind,),
            function=core.digest(self._function),
            function_name=self._name,
            inputs=Pages(),
            session=core.session.id,
            refs=self._refs,
            created_at=time.time(),
            **options.of_spec(),
        )
        self._feed = JobFeed(spec, "error", self._on_progress, self.on_error, self._on_accepted)
        try:
            self._feed.spec = await core.keep_blobs(spec, self._function, options)
        except FallowError as error:
            self.on_error(error)
            return
        core.session.create_job(self._feed)
        core.session.add_reader(self)
        self._is_ready = True
        self._flush()

    def _put_off_idle(self) -> None:
        self._used_mono = time.monotonic()
        if self._idle is None:
            self._idle = self._core.engine.loop.call_later(IDLE_S, self._seal_if_idle)

    def _seal_if_idle(self) -> None:
        left_s = self._used_mono + IDLE_S - time.monotonic()
        if left_s <= 0:
            self.seal()
        if not self.is_sealed:  # it was used, or calls are still on their way
            self._idle = self._core.engine.loop.call_later(max(left_s, 1.0), self._seal_if_idle)

    def seal(self) -> None:
        """Take no more calls."""
        with self._lock:
            if self.is_sealed or self._calls or self._direct_calls:
                return
            self.is_sealed = True
        if self._is_ready:  # else a page is still on its way to being kept, and the seal follows it
            self._send_seal()

    def _send_seal(self) -> None:
        if self._error is None and self._feed is not None:
            self._core.session.seal(self._feed, self._sent)
            self._release_if_over()

    def _release_if_over(self) -> None:
        """Let the hub forget a sealed job that nobody waits for any more."""
        feed = self._feed
        if self._futures or feed is None or feed.sealed is None or feed.released:
            return
        if any(values.is_in_file for values in self._large):  # the job's end would take them away
            self._core.engine.loop.call_later(IDLE_S, self._release_if_over)
        else:
            self._core.session.release(self.job)

    def _on_progress(self, progress: JobProgress) -> None:
        if progress.state == "cancelled":
            self.on_error(FallowError(f"the job of {self._name} was cancelled"))

    def _on_accepted(self, stop: int) -> None:
        with self._lock:
            done = 0
            while done < len(self._bytes_until) and self._bytes_until[done][0] <= stop:
                self._waiting_bytes -= self._bytes_until[done][1]
                done += 1
            del self._bytes_until[:done]
            self._room.notify_all()

    # --- as a reader ---

    def on_pages(self, stored: tuple[StoredPage, ...], blobs: dict[Digest, Path | bytes]) -> None:
        futures = self._futures
        for page in stored:
            blob = page.page.blob
            values = ResultValues(page, blobs[blob] if blob is not None else page.page.data)
            if values.is_in_file:
                self._large.add(values)
            counts = page.counts
            for start, stop in zip(counts[::2], counts[1::2], strict=True):
                self._missing.discard(start, stop)
                for future in map(futures.pop, range(start, stop), repeat(None)):
                    if future is not None:  # else it was cancelled
                        future._arrived(values)
        if self.is_sealed:
            self._release_if_over()

    def on_error(self, error: BaseException) -> None:
        with self._lock:
            self._error = error
            self.is_sealed = True
            futures, self._futures = self._futures, {}
            self._room.notify_all()
        for future in futures.values():
            future._failed(error)

    def closing(self) -> None:
        for values in self._large:
            values.take_along()

    def missing(self) -> list[tuple[int, int]]:
        return self._missing.within(0, WHOLE_JOB)

    def credit_bytes(self) -> int:
        return NO_CREDIT_LIMIT


class StreamBook:
    """The open streams of one grid handle: one per (function, options), and one of any functions per options."""

    def __init__(self, core: "GridCore") -> None:
        self._core = core
        self._lock = threading.Lock()
        self._streams: dict[tuple[int, Options], tuple[Any, Stream]] = {}
        self._is_code_version = core.is_code_version
        self._latest: tuple[Any, Options, Stream] | None = None
        """The stream of the last call, if it has one of its function."""
        self._apply: dict[Options, Stream] = {}
        self._seen_once: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Any:
        """Queue one call and return its future."""
        while True:
            latest = self._latest
            if (
                latest is not None
                and latest[0] is function
                and latest[1] is options
                and (stream := latest[2])._futures  # else it is to be sure
                and self._is_code_version(stream.code_version)
            ):
                item: Any = (args, kwargs)
            else:
                stream = self._find(function, options)
                item = (args, kwargs) if stream._takes_plain else (function, args, kwargs)
            future = stream.submit(item)
            if future is not None:
                return future
            self._drop(stream)

    def _find(self, function: Callable[..., Any], options: Options) -> Stream:
        key = (id(function), options)
        found = self._streams.get(key)
        busy = self._apply.get(options) if found is None else found[1]
        # While calls are out more follow quickly. After them, files may have been written.
        version = self._core.code_version(options, is_sure=busy is None or not busy._futures)
        if found is not None and found[0] is function:
            if found[1].code_version == version:
                self._latest = (function, options, found[1])
                return found[1]
            self._leave(found[1])
        with self._lock:
            is_captured = options.env is not None and options.env.is_capture  # what one function needs, not any
            if is_captured or _is_importable(function) or self._was_seen(function):
                stream = Stream(self._core, "call", function, options)
                self._streams[key] = (function, stream)
                return stream
            apply = self._apply.get(options)
            if apply is not None and apply.code_version != version:
                self._core.engine.post(apply.seal)
                apply = None
            if apply is None:
                apply = self._apply[options] = Stream(
                    self._core, "apply", callable, options
                )  # unused: items bring their own
            return apply

    def _was_seen(self, function: Callable[..., Any]) -> bool:
        """Whether this very object was submitted before; it is worth a stream of its own then."""
        if self._seen_once.get(id(function)) is function:
            return True
        with contextlib.suppress(TypeError):  # some can't be referred to weakly: never the same object for sure
            self._seen_once[id(function)] = function
        return False

    def _leave(self, stream: Stream) -> None:
        self._core.engine.post(stream.seal)
        self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        with self._lock:
            self._latest = None
            self._streams = {key: found for key, found in self._streams.items() if found[1] is not stream}
            self._apply = {key: found for key, found in self._apply.items() if found is not stream}


def _is_importable(function: Callable[..., Any]) -> bool:
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", "")
    if module is None or module == "__main__" or "." in name:
        return False
    return getattr(sys.modules.get(module), name, None) is function
