"""Every kind of state, each opened where it can be reopened; a private PostgreSQL cluster; makers of jobs and pages."""

import os
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

import psycopg
import pytest

from fallow.model.failure import Failure
from fallow.model.job import JobSpec, Pages
from fallow.model.page import InputPage, ResultPage, StoredPage
from fallow.state.memory import MemoryState
from fallow.state.sql import SqlState

sys.path.append(str(Path(__file__).parents[2]))
from ports import lasting_port


class Make:
    """Makers of what changes hold."""

    def job_id(self, number):
        return f"{number:032x}"

    def digest(self, number):
        return f"{number:064x}"

    def spec(self, number=1, **fields):
        fields = {"inputs": Pages(), "stages": ("map",), "function": self.digest(1000 + number)} | fields
        return JobSpec(id=self.job_id(number), function_name="f", created_at=float(number), **fields)

    def inputs(self, number, start, stop, data=b"in", **fields):
        return InputPage(self.job_id(number), start, stop, data, **fields)

    def stored(self, start, stop, counts=None, data=b"out", **fields):
        return StoredPage(ResultPage(start, stop, data, **fields), counts if counts is not None else (start, stop))

    def failure(self, index, **fields):
        return Failure(index=index, kind="raised", type_name="ValueError", message=f"bad {index}", **fields)


@pytest.fixture
def make():
    return Make()


class Opened:
    """An open state, and how to open it again as the next process would."""

    def __init__(self, kind, build):
        self.kind = kind
        self.build = build
        self.state = build()
        self.state.recover()

    def recovered(self):
        """Reopen where the state outlives its process; read what a restart needs."""
        if self.state.is_durable:
            self.state.close()
            self.state = self.build()
        return self.state.recover()


@pytest.fixture(
    params=[
        "memory",
        "spilling",
        "sqlite",
        pytest.param("postgresql", marks=[pytest.mark.service("postgresql"), pytest.mark.slow]),
    ]
)
def opened(request, tmp_path):
    """A `State` of every kind in turn. "spilling" is memory that puts all it can into files."""
    if request.param == "memory":
        build = MemoryState
    elif request.param == "spilling":
        build = lambda: MemoryState(tmp_path, limit_bytes=-1)
    elif request.param == "sqlite":
        build = lambda: SqlState(tmp_path / "state")
    else:
        url = request.getfixturevalue("postgresql_url")
        build = lambda: SqlState(url)
    opened = Opened(request.param, build)
    yield opened
    opened.state.close()


_schemas = count()


@pytest.fixture
def postgresql_url(postgresql):
    """The URL of an empty schema of its own."""
    name = f"test_{next(_schemas)}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{postgresql}?options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a private cluster that lives as long as the test session."""
    folder = Path(tempfile.mkdtemp(prefix="fallow-pg-"))
    binaries = _postgresql_binaries()
    as_user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    port = lasting_port()
    data = folder / "data"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = [*as_user, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]

    def run(*command):
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    try:
        run(*as_user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "fallow", "-E", "UTF8", "--no-sync")
        run(*control, "-o", options, "start")
        try:
            yield f"postgresql://fallow@127.0.0.1:{port}/postgres"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _postgresql_binaries():
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
