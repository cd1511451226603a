"""A real hub with its state in memory, its web app called without a socket, and a node that answers by hand."""

import asyncio
import contextlib
import json
import time

import httpx
import pytest

from fallow.hub.core.opening import open_hub
from fallow.hub.core.settings import HubSettings
from fallow.hub.web.app import WebApp
from fallow.hub.web.settings import WebSettings
from fallow.link.frames import PROTOCOL_VERSION, Done, Grant, NodeHello, PageSent, Presents, Printed
from fallow.link.memory import memory_pair
from fallow.model.changes import LogEntry
from fallow.model.failure import Failure
from fallow.model.node import NodeInfo
from fallow.model.page import ResultPage

DEADLINE_S = 60.0
ORIGIN = "http://hub.test"


class Node:
    """Joins a hub and computes JSON pages with a Python function; an exception becomes a failure."""

    def __init__(self, hub, token, function, name="bench-3", **more):
        self.function = function
        self.pages = {}
        self.number = 0
        self.link, other = memory_pair(asyncio.get_running_loop(), peer="test")
        hub.accept(other, token, "node")
        self.link.start(self.on_frame, lambda _: None)
        info = NodeInfo(
            name=name,
            cores=4,
            slots=4,
            memory_bytes=8_000_000_000,
            os="linux",
            arch="x86_64",
            pythons=("3.11",),
            tags=("lab",),
            **more,
        )
        self.link.send(NodeHello(PROTOCOL_VERSION, f"{abs(hash(name)):032x}"[:32], info))
        self.link.send(Presents(()))

    def on_frame(self, frame):
        if isinstance(frame, PageSent):
            self.keep(frame.pages)
        elif isinstance(frame, Grant):
            self.keep(frame.pages)
            self.compute(frame.lease)

    def keep(self, pages):
        for page in pages:
            self.pages.setdefault(page.job, []).append(page)

    def compute(self, lease):
        inputs = {}
        for page in self.pages[lease.job]:
            inputs.update(enumerate(json.loads(page.data), page.start))
        kept, values, failures = [], [], []
        for index in range(lease.start, lease.stop):
            try:
                values.append(self.function(inputs[index]))
                kept += [index, index + 1]
            except Exception as error:
                failures.append(Failure(index=index, kind="raised", type_name=type(error).__name__, message=str(error)))
        self.number += 1
        page = ResultPage(
            lease.start,
            lease.stop,
            json.dumps(values).encode(),
            kept=tuple(kept) if failures else None,
            failures=tuple(failures),
        )
        self.link.send(Printed(lease.job, (LogEntry(lease.start, f"from {lease.start}\n", "bench-3"),)))
        self.link.send(Done(self.number, lease.id, lease.job, (page,)))


class Web:
    """The app of one hub; calls run on its event loop, which stands still between them."""

    def __init__(self, runner, folder, settings, database):
        self.runner = runner
        self.hub = open_hub(HubSettings(folder=folder, database=database, reserve_bytes=0))
        self.run(self.hub.start())
        self.admin = self.hub.new_secrets["admin"]
        self.join = self.hub.new_secrets["node"]
        self.app = WebApp(self.hub, settings)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url=ORIGIN)

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def call(self, method, path, *, token=None, headers=None, **arguments):
        """token: None for the admin's, "" for none."""
        token = self.admin if token is None else token
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
        return self.run(self.client.request(method, path, headers=headers, **arguments))

    def get(self, path, **arguments):
        return self.call("GET", path, **arguments)

    def post(self, path, **arguments):
        return self.call("POST", path, **arguments)

    def token(self, role, name="someone"):
        return self.run(self.hub.create_token(role, name))[1]

    @staticmethod
    def is_refusal(answer, status, code):
        """Whether an answer has the one shape of errors; fails with what is wrong in it."""
        body = answer.json()
        assert (answer.status_code, body["error"]["code"]) == (status, code), answer.text
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message"}
        assert body["error"]["message"]
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        return True

    def add_node(self, function=lambda x: x, name="bench-3", **more):
        async def add():
            return Node(self.hub, self.hub.authenticate(self.join), function, name, **more)

        return self.run(add())

    def job(self, items, **options):
        answer = self.post("/api/v1/jobs", json={"function": "math:sqrt", "items": items, **options})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def wait_for(self, path, is_so, **arguments):
        deadline = time.monotonic() + DEADLINE_S
        while True:
            body = self.get(path, **arguments).json()
            if is_so(body):
                return body
            assert time.monotonic() < deadline, body
            self.run(asyncio.sleep(0.005))

    def wait_done(self, job):
        return self.wait_for(f"/api/v1/jobs/{job}", lambda body: body["state"] == "done")

    def sign_in(self, token=None):
        """Return headers of a browser that is signed in."""
        answer = self.call(
            "POST",
            "/sign-in",
            token="",
            data={"token": token or self.admin},
            headers={"Sec-Fetch-Site": "same-origin"},
        )
        self.client.cookies.clear()
        assert answer.status_code == 303, answer.text
        return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


@contextlib.contextmanager
def webs(folder):
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())

        def make(settings=WebSettings(), *, database="memory"):
            """database: None for SQLite in the folder."""
            web = Web(runner, folder, settings, database)
            stack.callback(lambda: runner.run(web.hub.stop()))
            stack.callback(lambda: runner.run(web.client.aclose()))
            return web

        yield make


@pytest.fixture
def make_web(tmp_path):
    with webs(tmp_path / "hub") as make:
        yield make


@pytest.fixture
def web(make_web):
    return make_web()


@pytest.fixture(scope="module")
def shared_web(tmp_path_factory):
    """For the tests of a module that leave the hub as it was."""
    with webs(tmp_path_factory.mktemp("shared") / "hub") as make:
        yield make()
