"""A hub as a process: starting, refusing to, draining, and its links and streams over real sockets."""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import sqlite3
import threading

import httpx
import pytest
from programs_for_tests import ADMIN, JOIN, wait_until

from fallow.link.websocket import dial
from fallow.model.errors import Denied, Forbidden

pytestmark = pytest.mark.slow


def test_first_start_prints_each_token_and_later_ones_none(programs):
    first = programs.hub(FALLOW_ADMIN_TOKEN="", FALLOW_JOIN_TOKEN="")
    lines = first.said().splitlines()
    admin = next(line.split()[-1] for line in lines if "admin token" in line)
    join = next(line.split()[-1] for line in lines if "join token" in line)
    assert admin.startswith("flw_")
    assert f"FALLOW_TOKEN={join} fallow node {first.url}" in first.said()
    assert first.http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {admin}"}).json()["role"] == "admin"
    assert first.stop() == 0
    second = programs.hub(FALLOW_ADMIN_TOKEN="", FALLOW_JOIN_TOKEN="")
    assert "flw_" not in second.said()
    assert second.http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {admin}"}).status_code == 200


def test_given_tokens_are_used_and_not_printed(programs):
    hub = programs.hub()
    assert hub.get("/whoami")["role"] == "admin"
    assert ADMIN not in hub.said()
    assert JOIN not in hub.said()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_state_stays(programs, number):
    hub = programs.hub()
    job = hub.job(name="kept")
    assert hub.stop(number) == 0
    again = programs.hub()
    assert again.get("/jobs/kept")["id"] == job["id"]
    assert again.get("/jobs/kept")["accepted"] == 3


def test_draining_ends_open_streams(programs):
    hub = programs.hub()
    with hub.http.stream("GET", "/api/v1/events", timeout=20) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        hub.process.send_signal(signal.SIGTERM)
        assert list(lines) == [""]
    assert hub.wait() == 0


def test_a_port_in_use_is_named(programs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, said = programs.run("hub", "--port", port, "--state", programs.folder / "state")
    assert code == 1
    assert f"port {port} of 127.0.0.1 is in use" in said
    assert "--port" in said
    assert said.count("\n") == 1


def test_a_state_folder_in_use_is_named(programs):
    programs.hub(name="shared")
    code, _, said = programs.run("hub", "--port", "0", "--state", programs.folder / "shared")
    assert code == 1
    assert str(programs.folder / "shared") in said
    assert "stop that one" in said
    assert said.count("\n") == 1, said


def test_a_state_folder_of_a_newer_version_is_named(programs):
    assert programs.hub(name="newer").stop() == 0
    with contextlib.closing(sqlite3.connect(programs.folder / "newer" / "fallow.sqlite")) as database:
        database.execute("update meta set value = '9999' where key = 'version'")
        database.commit()
    code, _, said = programs.run("hub", "--port", "0", "--state", programs.folder / "newer")
    assert code == 1
    assert str(programs.folder / "newer") in said
    assert "written by a newer Fallow" in said
    assert "upgrade Fallow" in said
    assert said.count("\n") == 1, said


@pytest.mark.parametrize("database", ["nonsense://x", "postgresql://nobody@127.0.0.1:1/x"])
def test_a_database_that_is_not_there_is_named(programs, database):
    code, _, said = programs.run("hub", "--port", "0", "--database", database, "--state", programs.folder / "state")
    assert code == 1
    assert database in said
    assert said.count("\n") == 1, said


def test_blobs_lie_in_the_object_store_that_is_asked_for(programs):
    store = programs.folder / "store"
    store.mkdir()
    data = bytes(3_000_000)
    hub = programs.hub("--port", "0", "--blobs", store.as_uri())
    digest = hub.http.post("/api/v1/blobs", content=data).json()["digest"]
    assert [path.name for path in store.rglob("*") if path.is_file()] == [digest]
    assert hub.stop() == 0
    shutil.rmtree(programs.folder / "hub" / "blobs")
    again = programs.hub("--port", "0", "--blobs", store.as_uri())
    assert again.http.get(f"/api/v1/blobs/{digest}").content == data


def test_an_object_store_that_is_none_is_named(programs):
    code, _, said = programs.run("hub", "--port", "0", "--blobs", "nonsense://x", "--state", programs.folder / "state")
    assert code == 1
    assert "can't use the object store nonsense://x" in said
    assert said.count("\n") == 1, said


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours(programs, host):
    code, _, said = programs.run("hub", "--port", "0", "--host", host, "--state", programs.folder / "state")
    assert code == 1
    assert f"can't listen on {host}" in said


def test_links_need_a_token_of_the_right_role(programs):
    hub = programs.hub()
    made = hub.http.post("/api/v1/tokens", json={"role": "user", "name": "anna"}).json()["secret"]

    async def open_link(secret, kind):
        link = await dial(hub.url, secret, kind)
        closed = asyncio.Event()
        link.start(lambda _: None, lambda _: closed.set())
        link.close()
        await asyncio.wait_for(closed.wait(), 10)

    for secret, kind in ((ADMIN, "client"), (ADMIN, "node"), (made, "client"), (JOIN, "node")):
        asyncio.run(open_link(secret, kind))
    for secret, kind in ((made, "node"), (JOIN, "client")):
        with pytest.raises(Forbidden):
            asyncio.run(open_link(secret, kind))
    with pytest.raises(Denied):
        asyncio.run(open_link("flw_wrong", "client"))
    assert hub.http.get("/link/client").status_code == 404


def test_what_is_no_link_is_refused_and_the_hub_goes_on(programs):
    from websockets.sync.client import connect

    hub = programs.hub()
    target = hub.url.replace("http", "ws") + "/link/client"
    headers = {"Authorization": f"Bearer {ADMIN}"}
    for message in (b"\xc1", b"", b"\x91" * 5000, "text", b"x" * (2 << 20)):
        with contextlib.suppress(OSError), connect(target, additional_headers=headers, proxy=None) as socket_:
            with contextlib.suppress(Exception):
                socket_.send(message)
                while True:
                    socket_.recv(timeout=10)
    assert hub.http.get("/healthz").text == "ok"


def test_events_stream_and_resume(programs):
    hub = programs.hub()
    heard = []

    def listen(url, headers):
        with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=30) as stream:
            for line in stream.iter_lines():
                heard.append(line)
                if line.startswith("data:") and "last" in line:
                    return

    headers = {"Authorization": f"Bearer {ADMIN}"}
    url = f"{hub.url}/api/v1/events"
    listener = threading.Thread(target=listen, args=(url, headers))
    listener.start()
    wait_until(lambda: heard, "the stream to open")
    hub.job(name="first")
    hub.job(name="last")
    listener.join(30)
    data = [json.loads(line.removeprefix("data: ")) for line in heard if line.startswith("data:")]
    names = [each["event"].get("name") for each in data if each["event"]["type"] == "job_created"]
    assert names == ["first", "last"]
    ids = [line.removeprefix("id: ") for line in heard if line.startswith("id:")]
    del heard[:]
    listen(url, {**headers, "Last-Event-ID": ids[0]})
    assert [line.removeprefix("id: ") for line in heard if line.startswith("id:")] == ids[1:]


def test_bodies_over_the_limit_are_refused_over_http(programs):
    hub = programs.hub()
    answer = hub.http.post("/api/v1/blobs", content=b"x" * (61 << 20))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert hub.http.get("/healthz").text == "ok"


def test_tokens_are_in_no_log(programs):
    hub = programs.hub("--port", "0", "--verbose")
    hub.job()
    for header in ({"Authorization": "Bearer flw_wrong-but-secret"}, {}):
        hub.http.get("/api/v1/jobs", headers=header)
    hub.http.post("/sign-in", data={"token": ADMIN}, headers={"Sec-Fetch-Site": "same-origin"})
    hub.http.get("/nothing")
    assert hub.stop() == 0
    for secret in (ADMIN, JOIN, "flw_wrong"):
        assert secret not in hub.said()
