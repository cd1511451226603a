"""A hub as a process: starting, refusing to, draining, and its links and streams over real sockets."""

import asyncio
import contextlib
import gc
import json
import shutil
import signal
import socket
import sqlite3
import sys
import threading

import httpx
import pytest
from programs_for_tests import ADMIN, JOIN, wait_until
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.sync.client import connect
from websockets.uri import parse_uri

from fallow.hub.core.opening import open_hub
from fallow.hub.core.settings import HubSettings
from fallow.hub.web.server import serve
from fallow.link.codec import encode_frame, join_frames
from fallow.link.frames import PROTOCOL_VERSION, Ask, ClientHello
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
    with hub.http.stream("GET", "/api/v1/events", timeout=60) as stream:
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
    assert {path.name for path in store.rglob("*") if path.is_file()} == {digest, "owner"}
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
        await asyncio.wait_for(closed.wait(), 60)

    for secret, kind in ((ADMIN, "client"), (ADMIN, "node"), (made, "client"), (JOIN, "node")):
        asyncio.run(open_link(secret, kind))
    for secret, kind in ((made, "node"), (JOIN, "client")):
        with pytest.raises(Forbidden):
            asyncio.run(open_link(secret, kind))
    with pytest.raises(Denied):
        asyncio.run(open_link("flw_wrong", "client"))
    assert hub.http.get("/link/client").status_code == 404


def test_what_is_no_link_is_refused_and_the_hub_goes_on(programs):
    hub = programs.hub()
    programs.node(hub)
    target = hub.url.replace("http", "ws") + "/link/client"
    headers = {"Authorization": f"Bearer {ADMIN}"}
    for message, code, reason in (
        (b"\xc1", 1000, "not a Fallow message"),
        (b"", 1000, "not a Fallow message"),
        (b"\x91" * 5000, 1000, "not a Fallow message"),
        ("text", 1000, "not a Fallow message"),
        (b"x" * (2 << 20), 1009, "2097152 bytes"),
        (b"x" * (16 << 20), 1009, "16777216 bytes"),
    ):
        with connect(target, additional_headers=headers, proxy=None) as socket_:
            with pytest.raises(ConnectionClosed) as closed:
                socket_.send(message)
                socket_.recv(timeout=60)
        assert closed.value.rcvd.code == code
        assert reason in closed.value.rcvd.reason
    assert hub.wait_done(hub.job()["id"])["settled"] == 3


def test_links_are_not_compressed(programs):
    target = programs.hub().url.replace("http", "ws") + "/link/client"
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with connect(target, additional_headers=headers, proxy=None, compression="deflate") as socket_:
        assert "permessage-deflate" in socket_.request.headers["Sec-WebSocket-Extensions"]
        assert socket_.response.headers.get("Sec-WebSocket-Extensions") is None


class FastClock(asyncio.SelectorEventLoop):
    """A loop whose time can jump."""

    ahead_s = 0.0

    def time(self):
        return super().time() + self.ahead_s


@pytest.fixture
def interpreter():
    """Serving in this process changes how it switches threads and looks for cycles."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_the_hub_pings_nobody(tmp_path, interpreter):
    """Whoever dialled does, once for both ends."""
    protocol = ClientProtocol(parse_uri("ws://hub/link/client"), max_size=None)
    got = []

    async def main():
        loop = asyncio.get_running_loop()
        made = open_hub(HubSettings(folder=tmp_path, database="memory", admin_secret=ADMIN, reserve_bytes=0))
        ready = loop.create_future()
        serving = asyncio.create_task(serve(made, "127.0.0.1", 0, ready.set_result))
        reader, writer = await asyncio.open_connection("127.0.0.1", int((await ready).rpartition(":")[2]))

        def flush():
            for data in protocol.data_to_send():
                writer.write(data)

        def say(frame):
            protocol.send_binary(join_frames([encode_frame(frame)]))
            flush()

        async def hear(is_so):
            while not any(map(is_so, got)):
                data = await asyncio.wait_for(reader.read(1 << 16), 3600)
                assert data, "the hub closed the connection"
                protocol.receive_data(data)
                got.extend(protocol.events_received())
                flush()

        request = protocol.connect()
        request.headers["Authorization"] = f"Bearer {ADMIN}"
        protocol.send_request(request)
        flush()
        await hear(lambda event: isinstance(event, Response) and event.status_code == 101)
        say(ClientHello(PROTOCOL_VERSION, "5" * 32, "3.11"))
        await hear(lambda event: isinstance(event, Frame))
        got.clear()
        loop.ahead_s += 600  # everything that the server has set a timer for is due
        say(Ask(1, "job", "unknown"))
        await hear(lambda event: isinstance(event, Frame) and b"unknown" in bytes(event.data))
        signal.raise_signal(signal.SIGTERM)
        assert await serving == 0
        writer.close()
        await writer.wait_closed()

    with asyncio.Runner(loop_factory=FastClock) as runner:
        runner.run(main())
    assert {event.opcode for event in got} == {Opcode.BINARY}


def test_tokens_are_in_no_url(programs):
    """What is in a URL ends in logs, histories and referrers: nothing of ours puts a token there, and none there counts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        asked = []

        def answer():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(65536).decode())
                    connection.sendall(b"HTTP/1.1 401 Denied\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(Denied):
            asyncio.run(dial(url, ADMIN, "client"))
        programs.run("jobs", FALLOW_HUB=url, FALLOW_TOKEN=ADMIN)
        answering.join(60)
    for request in asked:
        line, _, rest = request.partition("\r\n")
        assert ADMIN not in line
        assert f"Bearer {ADMIN}" in rest
    assert len(asked) == 2
    hub = programs.hub()
    for name in ("token", "access_token", "authorization"):
        for path in ("/api/v1/jobs", "/live", "/api/v1/events"):
            assert httpx.get(f"{hub.url}{path}?{name}={ADMIN}", trust_env=False).status_code == 401
        target = hub.url.replace("http", "ws") + f"/link/client?{name}={ADMIN}"
        with pytest.raises(InvalidStatus), connect(target, proxy=None):
            pass
    assert hub.stop() == 0
    assert ADMIN not in hub.said()


def test_events_stream_and_resume(programs):
    hub = programs.hub()
    heard = []

    def listen(url, headers):
        with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=60) as stream:
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
    listener.join(60)
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
