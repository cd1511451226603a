"""What programs that run for long don't hold in memory: each process's modules, as of its end."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

NOBODYS = {"IPython", "alembic", "numpy", "obstore", "pip", "pkg_resources", "pydantic", "pydantic_core",
           "pygments", "pytest", "rich", "setuptools", "structlog", "typer", "unittest"}  # fmt: skip
HUBS = {"jinja2", "litestar", "prometheus_client", "sqlalchemy", "uvicorn"}
NODES = {"cloudpickle", "psutil"}
AT_ITS_END = """
import atexit, os, sys
atexit.register(lambda: open(os.path.join({folder!r}, f"modules-{{os.getpid()}}"), "w").write("\\n".join(sys.modules)))
"""
CLIENT = "import sys; from fallow import Grid\nwith Grid(sys.argv[1]) as grid: assert grid.submit(pow, 2, 10).result() == 1024"


@pytest.fixture
def watched(programs):
    """The programs, with variables by which each writes down its modules when it ends, and a function that reads them."""
    (programs.folder / "sitecustomize.py").write_text(AT_ITS_END.format(folder=str(programs.folder)))
    path = os.pathsep.join([str(programs.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return programs, {"PYTHONPATH": path}, lambda pid: set((programs.folder / f"modules-{pid}").read_text().split())


def packages(modules):
    return {name.partition(".")[0] for name in modules}


def test_hub_node_and_client_load_what_they_need(watched):
    programs, variables, modules_of = watched
    hub = programs.hub(**variables)
    node = programs.node(hub, **variables)
    environment = programs.environment(FALLOW_TOKEN="flw_admin-for-tests-0123456789", **variables)
    with subprocess.Popen([sys.executable, "-c", CLIENT, hub.url], env=environment) as client:
        assert client.wait(60) == 0
    hub.get("/jobs")
    assert node.stop() == 0
    assert hub.stop() == 0

    found = modules_of(hub.process.pid)
    assert {"litestar", "sqlalchemy", "fallow.hub.core.hub"} <= found
    assert not packages(found) & (NOBODYS | NODES | {"jinja2", "prometheus_client", "httpx"})
    assert not {"sqlalchemy.dialects.postgresql", "sqlalchemy.orm", "fallow.node", "fallow.client.grid"} & found

    found = modules_of(node.process.pid)
    assert {"psutil", "fallow.node.agent"} <= found
    assert not packages(found) & (NOBODYS | HUBS | {"click", "httpx", "litestar", "sqlite3"})
    assert not {"fallow.hub", "fallow.scheduler", "fallow.state", "fallow.client.grid"} & found

    found = modules_of(client.pid)
    assert {"websockets", "fallow.client.grid"} <= found
    assert not packages(found) & (NOBODYS | HUBS | {"click", "httpx", "sqlite3"})
    assert not {"fallow.hub", "fallow.node", "fallow.scheduler", "fallow.state", "fallow.cli"} & found


def test_pages_and_figures_load_theirs_when_asked(watched):
    programs, variables, modules_of = watched
    hub = programs.hub(**variables)
    assert hub.http.get("/metrics").status_code == 200
    assert hub.http.get("/sign-in").status_code == 200
    assert hub.stop() == 0
    assert {"jinja2", "prometheus_client"} <= modules_of(hub.process.pid)
