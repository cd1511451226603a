"""The two databases behind `SqlState`: how each is opened, held by one process, and told from a full disk.

Owns the connections. Knows the schema's version, but nothing of what is in the tables.
"""

import contextlib
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DatabaseError

from fallow.model.errors import BadRequest, StateError, StateInUse, StateTooNew
from fallow.state import schema
from fallow.state.folder import StateFolder, sync_folder

FILE_NAME = "fallow.sqlite"
"""Of the database in a state folder."""
LOCK_WAIT_S = 3.0
"""How long PostgreSQL may take to notice that the last hub has gone, or that this one has closed an earlier connection."""
LOCK_POLL_S = 0.05

_SQLITE_SETUP = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # every commit waits for the disk
    "PRAGMA secure_delete=OFF",  # Debian's default would write zeros over every deleted page
    "PRAGMA journal_size_limit=67108864",  # 64 MiB: a write-ahead log that grew does not stay that big
    "PRAGMA busy_timeout=10000",
)


class Database(Protocol):
    """One database, held by this process from `open` to `close`."""

    name: str
    """For messages; never holds a password."""

    def open(self) -> tuple[Engine, Connection]:
        """Take hold of the database and connect; returns the engine for readers and the writer's own connection.

        Called again, it connects anew: after a failure a connection may be lost. Raises StateInUse or StateError.
        """
        ...

    def is_full(self, error: Exception) -> bool:
        """Return whether a failed statement says that there is no room left."""
        ...

    def close(self) -> None: ...


def database(url_or_path: str | Path) -> Database:
    """Return the database that a URL (postgresql://…) or a state folder's path names; raises BadRequest for other URLs."""
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        return SqliteDatabase(Path(url_or_path))
    url = make_url(url_or_path)
    if url.get_backend_name() != "postgresql":
        raise BadRequest(
            f"state {url.render_as_string()}: give a folder's path, or a URL such as postgresql://user@host/database"
        )
    return PostgresDatabase(url)


class SqliteDatabase:
    """An SQLite file in a folder of our own, with a write-ahead log."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = StateFolder(folder)
        self._connections = _Connections()

    def open(self) -> tuple[Engine, Connection]:
        self._folder.open()
        file = self._folder.path / FILE_NAME
        engine = create_engine(URL.create("sqlite", database=str(file)))
        event.listen(engine, "connect", _set_up_sqlite)
        writer = self._connections.open(engine, f"the database {file}")
        # Each time: a process that made the file may have died before its name was durable.
        sync_folder(self._folder.path)
        with contextlib.suppress(PermissionError):  # of one that is not ours, nor was made by us
            sync_folder(self._folder.path.parent)
        return engine, writer

    def is_full(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL

    def close(self) -> None:
        self._connections.close()
        self._folder.close()


class PostgresDatabase:
    """A PostgreSQL database, held through an advisory lock of the writer's session."""

    def __init__(self, url: URL) -> None:
        self.name = url.render_as_string()
        self._url = url.set(drivername="postgresql+psycopg")
        self._connections = _Connections()

    def open(self) -> tuple[Engine, Connection]:
        engine = create_engine(
            self._url,
            paramstyle="format",  # positional, so that rows can be plain tuples on both databases
            connect_args={"application_name": f"fallow {os.getpid()} on {socket.gethostname()}"[:63]},
        )
        writer = self._connections.open(engine, f"the database {self.name}")
        self._hold(writer)
        # Without it, each statement of a reader would see another state; SQLite's readers never do.
        return engine.execution_options(isolation_level="REPEATABLE READ"), writer

    def is_full(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) == "53100"  # disk_full

    def close(self) -> None:
        self._connections.close()

    def _hold(self, writer: Connection) -> None:
        """Take the advisory lock of this schema: one hub per schema. It ends with the session, soon after its connection."""
        key = writer.exec_driver_sql("SELECT hashtextextended('fallow ' || current_schema(), 0)").scalar_one()
        deadline = time.monotonic() + LOCK_WAIT_S
        while not writer.exec_driver_sql("SELECT pg_try_advisory_lock(%s)", (key,)).scalar_one():
            if time.monotonic() < deadline:
                time.sleep(LOCK_POLL_S)
                continue
            holder = writer.exec_driver_sql(
                "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory'"
                " AND granted AND (classid::bigint << 32 | objid::bigint) = %s",
                (key,),
            ).scalar()
            raise StateInUse(f"the database {self.name} is in use by {holder or 'another hub'}: stop that one first")
        # Where somebody turned this off for the database, what was acknowledged could be lost.
        writer.exec_driver_sql("SET synchronous_commit = on")
        writer.commit()


class _Connections:
    """An engine and the writer's connection out of its pool."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._writer: Connection | None = None

    def open(self, engine: Engine, name: str) -> Connection:
        """Connect, with the earlier connections closed; raises StateError if that can't be done."""
        self.close()
        self._engine = engine
        try:
            self._writer = engine.connect()
            inspect(self._writer).has_table("meta")  # SQLite notices only now what is no database
            self._writer.rollback()
        except DatabaseError as error:
            raise StateError(f"can't open {name}: {error.orig}") from error
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    for statement in _SQLITE_SETUP:
        connection.execute(statement).close()


@contextlib.contextmanager
def transaction(writer: Connection) -> Iterator[None]:
    """Hold one transaction that takes statements of the schema too, which sqlite3 would commit one by one."""
    if writer.dialect.name == "sqlite":
        writer.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        writer.rollback()
        raise
    writer.commit()


def prepare(writer: Connection, name: str) -> tuple[int, int]:
    """Bring the schema to `schema.VERSION` and count this opening; returns the epoch and the state's id, durable then.

    Raises StateTooNew if a newer Fallow wrote the state.
    """
    with transaction(writer):
        if not inspect(writer).has_table("meta"):
            schema.tables.create_all(writer)
            writer.execute(
                insert(schema.meta), [{"key": "version", "value": schema.VERSION}, {"key": "epoch", "value": 0}]
            )
        found = _meta(writer, "version")
        if found > schema.VERSION:
            raise StateTooNew(
                f"the state in {name} has version {found}, written by a newer Fallow; this one reads up to "
                f"{schema.VERSION}: upgrade Fallow, or choose another state"
            )
        if found < schema.VERSION:
            _migrate(writer, found)
        writer.execute(update(schema.meta).where(schema.meta.c.key == "epoch").values(value=schema.meta.c.value + 1))
        if writer.scalar(select(schema.meta.c.value).where(schema.meta.c.key == "id")) is None:
            writer.execute(insert(schema.meta), [{"key": "id", "value": secrets.randbits(63)}])
        return _meta(writer, "epoch"), _meta(writer, "id")


def _migrate(writer: Connection, found: int) -> None:
    """Take the schema from version `found` to the current one, step by step, in the caller's transaction."""
    # Only an old state needs Alembic. Its operations are used, not its own table of revisions: our versions are a line.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    with Operations.context(MigrationContext.configure(writer, opts={"transactional_ddl": False})):
        for version in range(found + 1, schema.VERSION + 1):
            step: Any = import_module(f"fallow.state.migrations.v{version}")
            step.upgrade()
    writer.execute(update(schema.meta).where(schema.meta.c.key == "version").values(value=schema.VERSION))


def _meta(writer: Connection, key: str) -> int:
    return int(writer.execute(select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar_one())
