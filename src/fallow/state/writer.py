"""Turns a group of changes into few statements on the writer's connection.

Statements are compiled once; a group's rows are collected per statement and sent by `executemany` on the driver's own
cursor, because SQLAlchemy's share per statement and row would cost more than the database's. The order of
changes matters only where one undoes another: those (`EndJob`, `DeleteJob`, …) first send what was collected.
"""

import contextlib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import msgspec
from sqlalchemy import Connection, Dialect, Table, bindparam, delete, func, select, update
from sqlalchemy.sql import ClauseElement

from fallow.model.changes import (
    AddInputs,
    AddJob,
    AddLease,
    AddLogs,
    AddResults,
    AddToken,
    Change,
    DeleteJob,
    DropCheckpoint,
    DropSession,
    EndJob,
    EndLease,
    HoldBlob,
    RevokeToken,
    SaveCheckpoint,
    SaveSettled,
    SealJob,
)
from fallow.model.failure import Failure
from fallow.model.ids import JobId, LeaseId
from fallow.state import schema
from fallow.state.packing import FIRST_FAILURES, counted_failures, merge_ranges, pack_ranges, page_bytes

Row = tuple[Any, ...]

_encode = msgspec.msgpack.Encoder().encode


class _Job:
    """What the writer remembers of a job, so that it need not ask the database."""

    __slots__ = ("failures", "log_entries", "number", "span")

    def __init__(self, number: int, span: int) -> None:
        self.number = number
        self.span = span
        self.failures = 0  # failure records in result rows, as far as known
        self.log_entries: int | None = None


class _Statements:
    """The text of every statement, in the database's own dialect. Parameters are positional."""

    def __init__(self, dialect: Dialect) -> None:
        insert_into: Any = import_module(f"sqlalchemy.dialects.{dialect.name}").insert  # the other one is 2 MB

        def insert(table: Table) -> str:
            return _compile(insert_into(table).on_conflict_do_nothing(), dialect, *table.columns.keys())

        def remove(table: Table, column: str) -> str:
            return _compile(delete(table).where(table.c[column] == bindparam("key")), dialect, "key")

        def change(*columns: str) -> str:
            values: dict[str, Any] = {column: bindparam(column) for column in columns}
            statement = update(jobs).where(jobs.c.number == bindparam("key")).values(values)
            return _compile(statement, dialect, *columns, "key")

        jobs = schema.jobs
        self.insert_job = insert(jobs)
        self.insert_input = insert(schema.inputs)
        self.insert_result = insert(schema.results)
        self.insert_lease = insert(schema.leases)
        self.insert_log = insert(schema.logs)
        self.insert_token = insert(schema.tokens)
        self.insert_job_blob = insert(schema.job_blobs)
        self.insert_session_blob = insert(schema.session_blobs)
        self.seal_job = change("size", "input_ended")
        self.save_settled = change("settled_seq", "settled", "failures", "failed")
        self.widen_span = change("span")
        self.end_job = change("state", "ended_at")
        self.end_lease = remove(schema.leases, "id")
        self.end_leases = remove(schema.leases, "job")
        self.end_checkpoints = remove(schema.checkpoints, "job")
        self.insert_checkpoint = insert(schema.checkpoints)
        c = schema.checkpoints.c
        of_task = delete(schema.checkpoints).where(c.job == bindparam("key"), c.index == bindparam("at"))
        self.drop_checkpoint = _compile(of_task, dialect, "key", "at")
        self.delete_token = remove(schema.tokens, "id")
        self.delete_session = remove(schema.session_blobs, "session")
        self.delete_job = [*(remove(table, "job") for table in schema.OF_A_JOB), remove(jobs, "number")]
        self.find_job = _compile(
            select(jobs.c.number, jobs.c.span).where(jobs.c.id == bindparam("key")), dialect, "key"
        )
        entries = select(func.max(schema.logs.c.entry)).where(schema.logs.c.job == bindparam("key"))
        self.last_log = _compile(entries, dialect, "key")


def _compile(statement: ClauseElement, dialect: Dialect, *parameters: str) -> str:
    """Return the statement's text; `parameters` are the names that rows give values for, in the order of the rows."""
    compiled: Any = statement.compile(
        dialect=dialect, column_keys=[name for name in parameters if name != "key"] or None
    )
    text = str(compiled)
    assert [*compiled.positiontup] == [*parameters], f"{text} takes {compiled.positiontup}, not {parameters}"
    return text


class _Rows:
    """What is to be sent, by statement."""

    def __init__(self) -> None:
        self.jobs: list[Row] = []
        self.inputs: list[Row] = []
        self.results: list[Row] = []
        self.spans: dict[int, Row] = {}  # of updates, only the last of a job is sent
        self.settled: dict[int, Row] = {}
        self.sizes: dict[int, Row] = {}
        self.ended_leases: list[Row] = []
        self.leases: dict[LeaseId, Row] = {}
        self.dropped_checkpoints: dict[Row, None] = {}
        self.checkpoints: dict[Row, Row] = {}  # of a task, only the last
        self.logs: list[Row] = []
        self.tokens: list[Row] = []
        self.job_blobs: list[Row] = []
        self.session_blobs: list[Row] = []


class Writer:
    """The one that writes. Not thread-safe; `State.commit` is called by one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        driver: Any = connection.connection.driver_connection
        self._driver = driver
        self._cursor = driver.cursor()
        self._jobs: dict[JobId, _Job] = {}
        jobs, results = schema.jobs.c, schema.results.c
        last_seq = func.coalesce(select(func.max(results.seq)).scalar_subquery(), 0)
        covered = func.coalesce(select(func.max(jobs.settled_seq)).scalar_subquery(), 0)
        last_number = func.coalesce(select(func.max(jobs.number)).scalar_subquery(), 0)
        seq, covered_seq, number = connection.execute(select(last_seq, covered, last_number)).one()
        connection.commit()
        self._seq = max(seq, covered_seq)
        self._number = number
        self._sql = _Statements(connection.dialect)
        self._rows = _Rows()
        self._apply: dict[type[Change], Callable[[Any], None]] = {
            AddJob: self._add_job,
            AddInputs: self._add_inputs,
            SealJob: self._seal_job,
            AddResults: self._add_results,
            SaveSettled: self._save_settled,
            EndJob: self._end_job,
            DeleteJob: self._delete_job,
            AddLease: self._add_lease,
            EndLease: self._end_lease,
            SaveCheckpoint: self._save_checkpoint,
            DropCheckpoint: self._drop_checkpoint,
            AddLogs: self._add_logs,
            AddToken: self._add_token,
            RevokeToken: self._revoke_token,
            HoldBlob: self._hold_blob,
            DropSession: self._drop_session,
        }

    def commit(self, changes: Sequence[Change]) -> None:
        """Apply the changes as one transaction; raises the driver's error with nothing applied."""
        apply = self._apply
        try:
            for change in changes:
                apply[type(change)](change)
            self._send()
            self._driver.commit()
        except BaseException:
            self._rows = _Rows()
            self._jobs.clear()
            with contextlib.suppress(Exception):  # of a connection that is lost; it refuses later commits by itself
                self._driver.rollback()
            raise

    def _send(self) -> None:
        """Send what was collected, in an order in which no statement needs a later one."""
        rows, sql = self._rows, self._sql
        self._rows = _Rows()
        run = self._cursor.executemany
        for statement, group in (
            (sql.insert_job, rows.jobs),
            (sql.insert_input, rows.inputs),
            (sql.insert_result, rows.results),
            (sql.widen_span, rows.spans),
            (sql.save_settled, rows.settled),
            (sql.seal_job, rows.sizes),
            (sql.end_lease, rows.ended_leases),  # before the insertion: `_end_lease` took those that came before it out
            (sql.insert_lease, rows.leases),
            (sql.drop_checkpoint, [*rows.dropped_checkpoints]),  # what takes its place comes after
            (sql.insert_checkpoint, rows.checkpoints),
            (sql.insert_log, rows.logs),
            (sql.insert_token, rows.tokens),
            (sql.insert_job_blob, rows.job_blobs),
            (sql.insert_session_blob, rows.session_blobs),
        ):
            if group:
                run(statement, [*group.values()] if isinstance(group, dict) else group)

    def _job(self, job_id: JobId) -> _Job | None:
        job = self._jobs.get(job_id)
        if job is None:
            self._cursor.execute(self._sql.find_job, (job_id,))
            row = self._cursor.fetchone()
            if row is not None:
                job = self._jobs[job_id] = _Job(*row)
        return job

    def _add_job(self, change: AddJob) -> None:
        spec = change.spec
        if self._job(spec.id) is not None:
            return
        self._number += 1
        number = self._number
        job = self._jobs[spec.id] = _Job(number, 0)
        job.log_entries = 0
        name = spec.name.encode() if spec.name is not None else None
        self._rows.jobs.append((
            number, spec.id, name, spec.session, spec.created_at, None, False, None, None, 0, 0,
            _encode(spec), pack_ranges(()), None, None,
        ))  # fmt: skip
        self._rows.job_blobs += [(digest, number) for digest in set(spec.blobs)]

    def _add_inputs(self, change: AddInputs) -> None:
        page = change.page
        job = self._jobs.get(page.job) or self._job(page.job)
        if job is None:
            return
        more = None
        if page.refs or page.kept is not None or page.counts is not None:
            more = _encode((page.refs, page.kept, page.counts))
            self._rows.job_blobs += [(digest, job.number) for digest in page.refs]
        if page.blob is not None:
            self._rows.job_blobs.append((page.blob, job.number))
        self._rows.inputs.append((job.number, page.start, page.stop, page.blob, more, page.data))

    def _seal_job(self, change: SealJob) -> None:
        job = self._job(change.job)
        if job is not None:
            self._rows.sizes[job.number] = (change.size, change.input_ended, job.number)

    def _add_results(self, change: AddResults) -> None:
        job = self._jobs.get(change.job) or self._job(change.job)
        pages = change.pages
        if job is None or not pages:
            return
        start, stop, size = pages[0].page.start, pages[0].page.stop, 0
        failures: list[Failure] = []
        for stored in pages:
            page = stored.page
            start, stop = min(start, page.start), max(stop, page.stop)
            size += page_bytes(page)
            if page.failures:
                failures += counted_failures(stored)
            self._rows.job_blobs += [(digest, job.number) for digest in page.blobs]
        counts = pages[0].counts if len(pages) == 1 else merge_ranges((), [stored.counts for stored in pages])
        if stop - start > job.span:
            job.span = 1 << (stop - start - 1).bit_length()
            self._rows.spans[job.number] = (job.span, job.number)
        kept = failures[: max(FIRST_FAILURES - job.failures, 0)]
        job.failures += len(kept)
        self._seq += 1
        self._rows.results.append((
            self._seq, job.number, start, stop, counts[0] if counts else -1, len(failures), size,
            pack_ranges(counts), _encode(kept) if kept else None, _encode(pages),
        ))  # fmt: skip

    def _save_settled(self, change: SaveSettled) -> None:
        job = self._job(change.job)
        if job is None:
            return
        first = change.first_failures[:FIRST_FAILURES]
        job.failures = len(first)
        failures, failed = (_encode(first), pack_ranges(change.failed)) if change.failed else (None, None)
        self._rows.settled[job.number] = (self._seq, pack_ranges(change.settled), failures, failed, job.number)

    def _end_job(self, change: EndJob) -> None:
        job = self._job(change.job)
        if job is not None:
            self._send()
            self._cursor.execute(self._sql.end_job, (change.state, change.ended_at, job.number))
            self._cursor.execute(self._sql.end_leases, (job.number,))
            self._cursor.execute(self._sql.end_checkpoints, (job.number,))
            del self._jobs[change.job]  # what comes late looks it up again

    def _delete_job(self, change: DeleteJob) -> None:
        job = self._job(change.job)
        if job is not None:
            self._send()
            for statement in self._sql.delete_job:
                self._cursor.execute(statement, (job.number,))
            del self._jobs[change.job]

    def _add_lease(self, change: AddLease) -> None:
        lease = change.lease
        job = self._jobs.get(lease.job) or self._job(lease.job)
        if job is not None and lease.id not in self._rows.leases:
            self._rows.leases[lease.id] = (lease.id, job.number, lease.start, lease.stop, change.node)

    def _end_lease(self, change: EndLease) -> None:
        if self._rows.leases.pop(change.lease, None) is None:  # else it came and went in this group
            self._rows.ended_leases.append((change.lease,))

    def _save_checkpoint(self, change: SaveCheckpoint) -> None:
        job = self._job(change.job)
        if job is not None:
            key = (job.number, change.index)
            self._rows.dropped_checkpoints[key] = None
            self._rows.checkpoints[key] = (*key, change.digest)

    def _drop_checkpoint(self, change: DropCheckpoint) -> None:
        job = self._job(change.job)
        if job is not None:
            self._rows.dropped_checkpoints[job.number, change.index] = None
            self._rows.checkpoints.pop((job.number, change.index), None)

    def _add_logs(self, change: AddLogs) -> None:
        job = self._job(change.job)
        if job is None:
            return
        if job.log_entries is None:
            self._cursor.execute(self._sql.last_log, (job.number,))
            last = self._cursor.fetchone()[0]
            job.log_entries = 0 if last is None else last + 1
        for number, entry in enumerate(change.entries, job.log_entries):
            self._rows.logs.append((job.number, number, entry.index, entry.node.encode(), entry.text.encode()))
        job.log_entries += len(change.entries)

    def _add_token(self, change: AddToken) -> None:
        self._rows.tokens.append((change.token.id, _encode(change.token)))

    def _revoke_token(self, change: RevokeToken) -> None:
        self._send()
        self._cursor.execute(self._sql.delete_token, (change.token_id,))

    def _hold_blob(self, change: HoldBlob) -> None:
        self._rows.session_blobs.append((change.digest, change.session))

    def _drop_session(self, change: DropSession) -> None:
        self._send()
        self._cursor.execute(self._sql.delete_session, (change.session,))
