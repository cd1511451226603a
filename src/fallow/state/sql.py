"""A `State` in SQLite or PostgreSQL: what `commit` returned from survives `kill -9` and power loss.

One connection writes (see `writer.py`); the reading methods take others from a pool, so that they neither wait for
the writer nor hold it up.
"""

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Select, func, select, union
from sqlalchemy.exc import DatabaseError

from fallow.model.changes import Change, LogEntry
from fallow.model.errors import StateError
from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, NodeId, SessionId
from fallow.model.job import JobSpec
from fallow.model.lease import Lease
from fallow.model.page import InputPage, StoredPage
from fallow.model.ranges import Range
from fallow.model.token import Token
from fallow.state.database import database, prepare
from fallow.state.packing import FIRST_FAILURES, Wanted, counted_failures, merge_ranges, unpack_ranges
from fallow.state.result_rows import read_result_pages
from fallow.state.schema import checkpoints, inputs, job_blobs, jobs, leases, logs, results, session_blobs, tokens
from fallow.state.state import EndedJob, Recovered, RecoveredJob
from fallow.state.writer import Writer

_DIGESTS = 500
"""Digests asked for in one statement; databases bound the parameters of one."""

_decode_spec = msgspec.msgpack.Decoder(JobSpec).decode
_decode_failures = msgspec.msgpack.Decoder(tuple[Failure, ...]).decode
_decode_pages = msgspec.msgpack.Decoder(tuple[StoredPage, ...]).decode
_decode_token = msgspec.msgpack.Decoder(Token).decode
_decode_more = msgspec.msgpack.Decoder(tuple[tuple[Digest, ...], tuple[int, ...] | None, tuple[int, ...] | None]).decode

# Inputs are contiguous from 0, so the last page ends where the inputs end.
_accepted = (
    select(inputs.c.stop).where(inputs.c.job == jobs.c.number).order_by(inputs.c.start.desc()).limit(1)
).scalar_subquery()
_jobs = select(jobs, _accepted.label("accepted"))
_after_snapshot = (results.c.job == jobs.c.number) & (results.c.seq > jobs.c.settled_seq)
_tails = select(results.c.job, results.c.counts, results.c.failures).join(jobs, _after_snapshot).order_by(results.c.seq)
_failing = select(results.c.job, results.c.pages).join(jobs, _after_snapshot).where(results.c.failed > 0)


class SqlState:
    """A durable `State`; `recover` opens it."""

    is_durable = True

    def __init__(self, url_or_path: str | Path) -> None:
        """Name the state.

        url_or_path: a folder, which is made if need be and holds an SQLite database, or `postgresql://…`.
        """
        self._database = database(url_or_path)
        self._readers: Engine | None = None
        self._writer: Writer | None = None
        self._opening = threading.RLock()  # a hub may stop, and close this, while another thread opens it again

    def recover(self) -> Recovered:
        with self._opening:
            try:
                self._readers, writer = self._database.open()
                epoch, state_id = prepare(writer, self._database.name)
                self._writer = Writer(writer)
            except BaseException as error:
                self.close()
                if (
                    isinstance(error, DatabaseError)
                    and isinstance(error.orig, Exception)
                    and self._database.is_full(error.orig)
                ):
                    raise StateError(f"there is no room left for the state in {self._database.name}") from error
                raise
        with self._reader() as reader:
            return Recovered(
                epoch=epoch,
                state_id=state_id,
                jobs=tuple(_read_unfinished(reader)),
                leases=tuple(_read_leases(reader)),
                checkpoints=tuple(_read_checkpoints(reader)),
                tokens=tuple(map(_decode_token, reader.scalars(select(tokens.c.token).order_by(tokens.c.id)))),
                sessions=tuple(sorted(_read_sessions(reader))),
            )

    def commit(self, changes: Sequence[Change]) -> None:
        if self._writer is None:
            raise StateError(f"the state in {self._database.name} is not open")
        try:
            self._writer.commit(changes)
        except Exception as error:
            if self._database.is_full(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._database.name) from error
            raise

    def input_pages(self, job: JobId, start: int, stop: int) -> list[InputPage]:
        if start >= stop:
            return []
        with self._reader() as reader:
            number = reader.scalar(select(jobs.c.number).where(jobs.c.id == job))
            if number is None:
                return []
            c = inputs.c
            of_job = c.job == number
            first = select(c.start).where(of_job, c.start <= start).order_by(c.start.desc()).limit(1)
            low = reader.scalar(first)
            query = select(c.start, c.stop, c.data, c.blob, c.more).where(
                of_job, c.start >= (start if low is None else low), c.start < stop, c.stop > start
            )
            return [_input_page(job, row) for row in reader.execute(query.order_by(c.start))]

    def result_pages(
        self, job: JobId, wanted: Sequence[Range], *, after: int = 0, limit_bytes: int
    ) -> tuple[list[StoredPage], int | None]:
        if not wanted:
            return [], None
        with self._reader() as reader:
            return read_result_pages(reader, job, Wanted(wanted), after, limit_bytes)

    def find_job(self, job: JobId) -> EndedJob | None:
        with self._reader() as reader:
            found = _read_ended(reader, _jobs.where(jobs.c.id == job, jobs.c.state.is_not(None)))
            return found[0] if found else None

    def ended_jobs(self, *, limit: int, before: float | None = None) -> list[EndedJob]:
        earlier = jobs.c.ended_at.is_not(None) if before is None else jobs.c.ended_at < before
        latest = _jobs.where(earlier).order_by(jobs.c.ended_at.desc(), jobs.c.number.desc())
        with self._reader() as reader:
            return _read_ended(reader, latest.limit(limit))

    def job_named(self, name: str) -> EndedJob | None:
        of_name = _jobs.where(jobs.c.name == name.encode(), jobs.c.ended_at.is_not(None))
        with self._reader() as reader:
            found = _read_ended(reader, of_name.order_by(jobs.c.ended_at.desc(), jobs.c.number.desc()).limit(1))
            return found[0] if found else None

    def logs(self, job: JobId, *, after: int = 0, limit: int = 1000) -> tuple[list[LogEntry], int | None]:
        count = select(func.coalesce(func.max(logs.c.entry), -1) + 1).join(jobs, logs.c.job == jobs.c.number)
        query = (
            select(logs.c.entry, logs.c.index.label("at"), logs.c.text, logs.c.node)
            .join(jobs, logs.c.job == jobs.c.number)
            .order_by(logs.c.entry)
            .limit(limit + 1)
        )
        with self._reader() as reader:
            if after < 0:
                after += reader.scalar(count.where(jobs.c.id == job)) or 0
            rows = reader.execute(query.where(jobs.c.id == job, logs.c.entry >= after)).all()
        entries = [LogEntry(row.at, row.text.decode(), row.node.decode()) for row in rows[:limit]]
        return entries, rows[limit].entry if len(rows) > limit else None

    def log_size(self, job: JobId) -> tuple[int, int]:
        total = func.coalesce(func.sum(func.length(logs.c.text)), 0)  # of bytes, in SQLite without reading them
        query = select(func.count(), total).select_from(logs).join(jobs, logs.c.job == jobs.c.number)
        with self._reader() as reader:
            count, size_bytes = reader.execute(query.where(jobs.c.id == job)).one()
        return int(count), int(size_bytes)

    def unreferenced_blobs(self, candidates: Sequence[Digest]) -> list[Digest]:
        used: set[str] = set()
        with self._reader() as reader:
            for at in range(0, len(candidates), _DIGESTS):
                some = candidates[at : at + _DIGESTS]
                of_jobs = select(job_blobs.c.digest).where(job_blobs.c.digest.in_(some))
                of_sessions = select(session_blobs.c.digest).where(session_blobs.c.digest.in_(some))
                of_tasks = select(checkpoints.c.digest).where(checkpoints.c.digest.in_(some))
                used.update(reader.scalars(union(of_jobs, of_sessions, of_tasks)))
        return [digest for digest in candidates if digest not in used]

    def blobs_held_by(self, holder: str) -> list[Digest]:
        of_job = select(job_blobs.c.digest).join(jobs, job_blobs.c.job == jobs.c.number).where(jobs.c.id == holder)
        of_tasks = select(checkpoints.c.digest).join(jobs, checkpoints.c.job == jobs.c.number)
        of_session = select(session_blobs.c.digest).where(session_blobs.c.session == holder)
        held = union(of_job, of_tasks.where(jobs.c.id == holder), of_session)
        with self._reader() as reader:
            return [Digest(digest) for digest in sorted(reader.scalars(held))]

    def reusable_bytes(self) -> int:
        with self._reader() as reader:
            if reader.dialect.name != "sqlite":
                return 0  # on a disk that is not the hub's concern
            pages = reader.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            return int(pages * reader.exec_driver_sql("PRAGMA page_size").scalar_one())

    def close(self) -> None:
        with self._opening:
            self._writer = self._readers = None
            self._database.close()

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        """Lend a connection that sees one consistent state for as long as the block lasts."""
        if self._readers is None:
            raise StateError(f"the state in {self._database.name} is not open")
        with self._readers.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            yield connection


def _input_page(job: JobId, row: Any) -> InputPage:
    refs, kept, counts = ((), None, None) if row.more is None else _decode_more(row.more)
    return InputPage(job, row.start, row.stop, row.data, row.blob, refs, kept, counts)


def _read_unfinished(reader: Connection) -> Iterator[RecoveredJob]:
    unfinished = jobs.c.ended_at.is_(None)
    for row, settled, failed, failures in _read_progress(reader, _jobs.where(unfinished).order_by(jobs.c.number)):
        yield RecoveredJob(
            spec=_decode_spec(row.spec),
            accepted=row.accepted or 0,
            size=row.size,
            input_ended=row.input_ended,
            settled=settled,
            failed=failed,
            first_failures=failures,
        )


def _read_ended(reader: Connection, query: Select[Any]) -> list[EndedJob]:
    return [
        EndedJob(
            spec=_decode_spec(row.spec),
            size=row.size,
            accepted=row.accepted or 0,
            state=row.state,
            ended_at=row.ended_at,
            input_ended=row.input_ended,
            settled=settled,
            failed=failed,
            first_failures=failures,
        )
        for row, settled, failed, failures in _read_progress(reader, query)
    ]


def _read_progress(
    reader: Connection, query: Select[Any]
) -> Iterator[tuple[Any, tuple[int, ...], tuple[int, ...], tuple[Failure, ...]]]:
    """Yield job rows with their settled and failed ranges and first failures: the snapshot and the rows after it."""
    rows = reader.execute(query).all()
    tails: dict[int, list[Any]] = {}
    numbers = query.with_only_columns(jobs.c.number)
    for row in reader.execute(_tails.where(results.c.job.in_(numbers))):
        tails.setdefault(row.job, []).append(row)
    late: dict[int, list[Range]] = {}
    for number, pages in reader.execute(_failing.where(results.c.job.in_(numbers))):
        failing = (failure for stored in _decode_pages(pages) for failure in counted_failures(stored))
        late.setdefault(number, []).extend((failure.index, failure.index + 1) for failure in failing)
    for row in rows:
        tail = tails.get(row.number, ())
        settled = merge_ranges(unpack_ranges(row.settled), [unpack_ranges(each.counts) for each in tail])
        records = [row.failures, *(each.failures for each in tail)]
        first = [failure for packed in records if packed is not None for failure in _decode_failures(packed)]
        failed = merge_ranges(() if row.failed is None else unpack_ranges(row.failed), late.get(row.number, ()))
        yield row, settled, failed, tuple(first[:FIRST_FAILURES])


def _read_leases(reader: Connection) -> Iterator[tuple[Lease, NodeId]]:
    c = leases.c
    query = select(c.id, jobs.c.id.label("job"), c.start, c.stop, c.node).join(jobs, c.job == jobs.c.number)
    for row in reader.execute(query.where(jobs.c.ended_at.is_(None)).order_by(c.id)):
        yield Lease(row.id, row.job, row.start, row.stop), row.node


def _read_checkpoints(reader: Connection) -> list[tuple[JobId, int, Digest]]:
    c = checkpoints.c
    query = select(jobs.c.id, c.index, c.digest).join(jobs, c.job == jobs.c.number)
    unfinished = query.where(jobs.c.ended_at.is_(None)).order_by(c.job, c.index)
    return [(job, index, digest) for job, index, digest in reader.execute(unfinished)]


def _read_sessions(reader: Connection) -> Iterator[SessionId]:
    of_jobs = select(jobs.c.session).where(jobs.c.session.is_not(None), jobs.c.name.is_(None))
    yield from reader.scalars(union(of_jobs, select(session_blobs.c.session)))
