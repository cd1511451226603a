"""The tables of `SqlState`, the same for SQLite and PostgreSQL. Holds no code that runs statements.

Jobs have a number of their own here, because 32 hex digits in every row and index would cost more than the rest of
a small row. Columns that a restart reads stand before the pages' bytes, so that SQLite never touches those.
Text that users choose is stored as UTF-8 bytes: PostgreSQL's text can't hold a NUL.

Version 2 and later: add `migrations/v<n>.py`, raise VERSION, and keep `tables` at the newest form.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

VERSION = 3
"""Of the tables below; `meta` holds the one that the state was written with."""

tables = MetaData()

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER PRIMARY KEY is SQLite's own row id

meta = Table(
    "meta",
    tables,
    Column("key", Text, primary_key=True),  # "version" of the schema, "epoch" and "id" (see `Recovered`)
    Column("value", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    tables,
    Column("number", _NUMBER, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("name", LargeBinary),
    Column("session", Text),
    Column("created_at", Float(53), nullable=False),
    Column("size", BigInteger),  # NULL while open
    Column("input_ended", Boolean, nullable=False),
    Column("state", Text),  # NULL while unfinished
    Column("ended_at", Float(53)),
    Column("span", BigInteger, nullable=False),  # no result row of the job is wider; a power of two, or 0
    Column("settled_seq", BigInteger, nullable=False),  # the snapshot covers result rows up to this one
    Column("spec", LargeBinary, nullable=False),  # MessagePack of JobSpec
    Column("settled", LargeBinary, nullable=False),  # the snapshot; see `packing.pack_ranges`
    Column("failures", LargeBinary),  # MessagePack of the first failures, as of the snapshot
    Column("failed", LargeBinary),  # ranges of all failures, as of the snapshot, packed as `settled`; NULL: none
    Index("jobs_by_end", "ended_at", "number"),
    Index("jobs_by_name", "name"),
)

inputs = Table(
    "inputs",
    tables,
    Column("job", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Column("blob", Text),
    Column("more", LargeBinary),  # MessagePack of (refs, kept, counts), or NULL if all are at their defaults
    Column("data", LargeBinary),
    PrimaryKeyConstraint("job", "start"),
)

results = Table(
    "results",
    tables,
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),  # order of arrival, of all jobs together
    Column("job", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),  # lowest of the pages in the row
    Column("stop", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),  # lowest index that counts: no two rows of a job share it
    Column("failed", BigInteger, nullable=False),  # how many
    Column("bytes", BigInteger, nullable=False),
    Column("counts", LargeBinary, nullable=False),  # of all its pages; see `packing.pack_ranges`
    Column("failures", LargeBinary),  # MessagePack of those among the job's first 100
    Column("pages", LargeBinary, nullable=False),  # MessagePack of the StoredPages
    Index("results_by_seq", "job", "seq"),
    Index("results_by_start", "job", "start", "first", unique=True),
)

leases = Table(
    "leases",
    tables,
    Column("id", _NUMBER, primary_key=True, autoincrement=False),
    Column("job", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("stop", BigInteger, nullable=False),
    Column("node", Text, nullable=False),
    Index("leases_by_job", "job"),
)

checkpoints = Table(
    "checkpoints",
    tables,
    Column("job", BigInteger, nullable=False),
    Column("index", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    PrimaryKeyConstraint("job", "index"),
    Index("checkpoints_by_digest", "digest"),
)

logs = Table(
    "logs",
    tables,
    Column("job", BigInteger, nullable=False),
    Column("entry", BigInteger, nullable=False),  # 0, 1, 2, … in order of arrival
    Column("index", BigInteger, nullable=False),
    Column("node", LargeBinary, nullable=False),
    Column("text", LargeBinary, nullable=False),
    PrimaryKeyConstraint("job", "entry"),
)

tokens = Table(
    "tokens",
    tables,
    Column("id", Text, primary_key=True),
    Column("token", LargeBinary, nullable=False),  # MessagePack of Token
)

job_blobs = Table(
    "job_blobs",
    tables,
    Column("digest", Text, nullable=False),
    Column("job", BigInteger, nullable=False),
    PrimaryKeyConstraint("digest", "job"),
    Index("job_blobs_by_job", "job"),
)

session_blobs = Table(
    "session_blobs",
    tables,
    Column("digest", Text, nullable=False),
    Column("session", Text, nullable=False),
    PrimaryKeyConstraint("digest", "session"),
    Index("session_blobs_by_session", "session"),
)

OF_A_JOB = (inputs, results, leases, checkpoints, logs, job_blobs)
"""Tables whose `job` column holds a job's number."""
