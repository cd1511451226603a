"""What only the durable state does: locks, versions, migrations, a full disk, many rows."""

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sqlalchemy
from sqlalchemy import event

from fallow.model.changes import AddInputs, AddJob, AddResults, DeleteJob, HoldBlob, SaveCheckpoint, SaveSettled
from fallow.model.errors import BadRequest, StateError, StateInUse, StateTooNew
from fallow.state import schema
from fallow.state.database import FILE_NAME, prepare
from fallow.state.sql import SqlState

HOLD = """
import sys
from fallow.state.sql import SqlState
state = SqlState(sys.argv[1])
state.recover()
print("open", flush=True)
sys.stdin.read()
state.close()
"""


@pytest.fixture
def state(tmp_path):
    state = SqlState(tmp_path / "state")
    state.recover()
    yield state
    state.close()


def in_another_process(state_name):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, state_name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_folder_in_use_by_another_process_is_refused(tmp_path):
    with in_another_process(str(tmp_path)) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StateInUse, match=rf"{tmp_path}.*process {holder.pid}"):
            SqlState(tmp_path).recover()
        holder.kill()
        holder.wait()
        after = SqlState(str(tmp_path))  # a killed process holds nothing
        assert after.recover().epoch == 2
        after.close()


def test_a_folder_in_use_by_this_process_is_refused(state, tmp_path):
    with pytest.raises(StateInUse, match=str(os.getpid())):
        SqlState(tmp_path / "state").recover()
    state.close()
    again = SqlState(tmp_path / "state")
    assert again.recover().epoch == 2
    again.close()


@pytest.mark.slow
@pytest.mark.service("postgresql")
def test_a_database_in_use_by_another_process_is_refused(postgresql_url):
    with in_another_process(postgresql_url) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StateInUse, match=rf"in use by fallow {holder.pid} on"):
            SqlState(postgresql_url).recover()
        holder.stdin.close()
        holder.wait()
        after = SqlState(postgresql_url)
        assert after.recover().epoch == 2
        after.close()


@pytest.mark.slow
@pytest.mark.service("postgresql")
def test_a_database_whose_last_user_is_just_leaving_is_waited_for(postgresql_url, monkeypatch):
    import psycopg

    monkeypatch.setattr("fallow.state.database.LOCK_WAIT_S", 60.0)
    with psycopg.connect(postgresql_url, autocommit=True) as leaving:
        leaving.execute("SELECT pg_advisory_lock(hashtextextended('fallow ' || current_schema(), 0))")
        threading.Timer(0.2, leaving.close).start()
        state = SqlState(postgresql_url)
        assert state.recover().epoch == 1
        state.close()


@pytest.mark.slow
@pytest.mark.service("postgresql")
def test_a_lost_connection_fails_the_commit_and_recover_connects_anew(postgresql_url, make):
    import psycopg

    state = SqlState(postgresql_url)
    state.recover()
    state.commit([AddJob(make.spec(1))])
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s",
            (f"fallow {os.getpid()} %",),
        )
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            state.commit([AddJob(make.spec(2))])
    assert [job.spec.id for job in state.recover().jobs] == [make.job_id(1)]
    state.commit([AddJob(make.spec(2))])
    assert len(state.recover().jobs) == 2
    state.close()


def test_recovering_again_gives_the_same_state(state, make):
    state.commit([AddJob(make.spec())])
    assert state.recover().epoch == 2
    state.commit([AddInputs(make.inputs(1, 0, 5))])
    assert state.recover().jobs[0].accepted == 5


def test_a_state_that_is_not_open_says_so(tmp_path, make):
    state = SqlState(tmp_path)
    for call in (lambda: state.commit([]), lambda: state.find_job(make.job_id(1))):
        with pytest.raises(StateError, match="not open"):
            call()
    state.close()


def test_a_state_that_is_closed_while_it_opens_is_closed_afterwards(tmp_path, monkeypatch):
    state = SqlState(tmp_path)
    begun, go_on, closed = threading.Event(), threading.Event(), []

    def slow(writer, name):
        begun.set()
        assert go_on.wait(60)
        assert not closed, "closed under the hands of who opens it"
        return prepare(writer, name)

    monkeypatch.setattr("fallow.state.sql.prepare", slow)
    with ThreadPoolExecutor(2) as threads:
        opening = threads.submit(state.recover)
        assert begun.wait(60)
        closing = threads.submit(lambda: (state.close(), closed.append(True)))
        with suppress(TimeoutError):
            closing.result(0.05)  # time enough to close, if nothing held it
        go_on.set()
        assert opening.exception(60) is None or isinstance(opening.exception(), StateError)
        closing.result(60)
    with pytest.raises(StateError, match="not open"):
        state.commit([])


def test_a_url_of_another_database_is_refused():
    with pytest.raises(BadRequest, match="postgresql://"):
        SqlState("mysql://host/database")


def test_an_unreachable_database_is_named_without_its_password():
    state = SqlState("postgresql://user:secret@127.0.0.1:1/grid")
    with pytest.raises(StateError, match=r"127.0.0.1:1/grid") as caught:
        state.recover()
    assert "secret" not in str(caught.value)


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="can't use the state folder"):
        SqlState(tmp_path / "file").recover()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"not a database " * 1000)
    state = SqlState(tmp_path)
    with pytest.raises(StateError, match="not a database"):
        state.recover()
    assert (tmp_path / FILE_NAME).read_bytes() == b"not a database " * 1000
    with pytest.raises(StateError, match="not a database"):  # and the folder is not held any more
        SqlState(tmp_path).recover()


def test_the_folder_is_private(state, tmp_path):
    if os.name != "nt":
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_every_commit_waits_for_the_disk(tmp_path):
    settings = []
    listen = lambda connection, _: settings.append(connection)
    event.listen(sqlalchemy.Engine, "connect", listen)
    try:
        state = SqlState(tmp_path)
        state.recover()
    finally:
        event.remove(sqlalchemy.Engine, "connect", listen)
    assert settings[0].execute("PRAGMA synchronous").fetchone() == (2,)
    assert settings[0].execute("PRAGMA journal_mode").fetchone() == ("wal",)
    state.close()


def test_a_state_of_a_newer_version_is_refused(tmp_path):
    SqlState(tmp_path).close()
    state = SqlState(tmp_path)
    state.recover()
    state.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'version'", (schema.VERSION + 1,))
    connection.close()
    with pytest.raises(StateTooNew, match=rf"version {schema.VERSION + 1}.*up to {schema.VERSION}: upgrade Fallow"):
        SqlState(tmp_path).recover()


def age(execute, version=0):
    """Make a state of an older version of a current one."""
    execute("DROP TABLE checkpoints")
    if version < 2:
        execute("ALTER TABLE jobs DROP COLUMN failed")
        execute("ALTER TABLE jobs ADD COLUMN failed BIGINT NOT NULL DEFAULT 0")
    if version == 0:
        execute("ALTER TABLE jobs DROP COLUMN span")
    execute(f"UPDATE meta SET value = {version} WHERE key = 'version'")


def check_migrated(state, make):
    recovered = state.recover()
    assert recovered.epoch == 2
    assert [(job.spec, job.settled) for job in recovered.jobs] == [(make.spec(1), (5, 900)), (make.spec(2), ())]
    assert [job.failed for job in recovered.jobs] == [(7, 9, 800, 801), ()]
    pages, _ = state.result_pages(make.job_id(1), [(899, 900)], limit_bytes=10**6)
    assert [stored.page.start for stored in pages] == [10]
    assert recovered.checkpoints == ()
    state.commit([AddResults(make.job_id(2), (make.stored(0, 5),)), SaveCheckpoint(make.job_id(2), 7, make.digest(1))])
    recovered = state.recover()
    assert recovered.jobs[1].settled == (0, 5)
    assert recovered.checkpoints == ((make.job_id(2), 7, make.digest(1)),)


def fill_for_migration(state, make):
    state.recover()
    state.commit([AddJob(make.spec(1)), AddJob(make.spec(2))])
    late = make.stored(10, 900, counts=(10, 850, 851, 900), failures=(make.failure(800), make.failure(850)))
    early = make.stored(5, 10, failures=(make.failure(8), make.failure(7)))
    job = make.job_id(1)
    state.commit([AddResults(job, (late,)), AddResults(job, (early, make.stored(850, 851)))])
    state.commit([SaveSettled(job, (5, 900), (7, 9, 800, 801), (make.failure(8),))])
    state.close()


def test_a_state_of_an_older_version_is_migrated(tmp_path, make):
    state = SqlState(tmp_path)
    fill_for_migration(state, make)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        age(connection.execute)
    connection.close()
    check_migrated(state, make)
    state.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_state_of_a_later_version_is_migrated_from_there(tmp_path, make, version):
    state = SqlState(tmp_path)
    fill_for_migration(state, make)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        age(connection.execute, version)
    connection.close()
    check_migrated(state, make)
    state.close()


@pytest.mark.slow
@pytest.mark.service("postgresql")
def test_a_database_of_an_older_version_is_migrated(postgresql_url, make):
    import psycopg

    state = SqlState(postgresql_url)
    fill_for_migration(state, make)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        age(connection.execute)
    check_migrated(state, make)
    state.close()


@pytest.mark.slow
def test_opening_a_current_state_imports_no_alembic(tmp_path):
    code = (
        "import sys; from fallow.state.sql import SqlState; state = SqlState(sys.argv[1]);"
        " state.recover(); state.close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == 0


def test_a_full_disk_refuses_the_whole_group_and_nothing_else(tmp_path, make):
    connections = []
    listen = lambda connection, _: connections.append(connection)
    event.listen(sqlalchemy.Engine, "connect", listen)
    try:
        state = SqlState(tmp_path)
        state.recover()
    finally:
        event.remove(sqlalchemy.Engine, "connect", listen)
    job = make.job_id(1)
    state.commit([AddJob(make.spec(1))])
    (pages,) = connections[0].execute("PRAGMA page_count").fetchone()
    connections[0].execute(f"PRAGMA max_page_count = {pages + 20}").close()
    with pytest.raises(OSError, match=str(tmp_path)) as caught:
        state.commit(
            [AddInputs(make.inputs(1, 0, 5)), AddJob(make.spec(2)), AddInputs(make.inputs(1, 5, 9, b"x" * 10**6))]
        )
    assert caught.value.errno == errno.ENOSPC
    assert state.input_pages(job, 0, 100) == []
    state.commit([AddInputs(make.inputs(1, 0, 4)), HoldBlob(make.digest(1), "s")])
    connections[0].execute(f"PRAGMA max_page_count = {pages + 10_000}").close()
    state.commit([AddInputs(make.inputs(1, 4, 9, b"x" * 10**6)), AddJob(make.spec(3))])
    assert [(each.spec.id, each.accepted) for each in state.recover().jobs] == [(job, 9), (make.job_id(3), 0)]
    state.close()


def test_a_group_that_fails_in_the_middle_leaves_nothing(state, make):
    too_large = 2**70
    with pytest.raises(OverflowError):
        state.commit(
            [
                AddJob(make.spec(1)),
                DeleteJob(make.job_id(1)),
                AddJob(make.spec(2)),
                AddInputs(make.inputs(2, 0, too_large)),
            ]
        )
    assert state.recover().jobs == ()
    state.commit([AddJob(make.spec(2)), AddInputs(make.inputs(2, 0, 3))])
    assert state.recover().jobs[0].accepted == 3


@pytest.mark.slow
def test_many_small_rows_come_in_order(state, make):
    job = make.job_id(1)
    starts = [(index * 7919) % 2000 for index in range(2000)]
    state.commit([AddJob(make.spec()), *(AddResults(job, (make.stored(start, start + 1),)) for start in starts)])
    read, after = [], 0
    while after is not None:
        some, after = state.result_pages(job, [(100, 1900)], after=after, limit_bytes=50_000)
        read += some
    assert [stored.page.start for stored in read] == list(range(100, 1900))


def test_snapshots_go_on_after_the_last_row_was_deleted(state, make):
    state.commit([AddJob(make.spec(1)), AddJob(make.spec(2)), AddResults(make.job_id(1), (make.stored(0, 1),))])
    state.commit([AddResults(make.job_id(2), (make.stored(0, 5),)), SaveSettled(make.job_id(1), (0, 1), (), ())])
    state.commit([DeleteJob(make.job_id(2))])
    state.recover()  # numbers of rows go on above the snapshot, although the rows are gone
    state.commit([AddResults(make.job_id(1), (make.stored(1, 3),))])
    assert state.recover().jobs[0].settled == (0, 3)


def test_more_digests_than_one_statement_takes(state, make):
    digests = [make.digest(number) for number in range(2000)]
    state.commit([HoldBlob(digest, "s") for digest in digests[:1500]])
    assert state.unreferenced_blobs(digests) == digests[1500:]
