"""The one error shape, walked over every route."""

import re

import pytest

from fallow.hub.web.openapi import api_router
from fallow.hub.web.settings import WebSettings

ROUTES = [
    ("GET", "/api/v1/jobs"),
    ("POST", "/api/v1/jobs"),
    ("GET", "/api/v1/jobs/x"),
    ("DELETE", "/api/v1/jobs/x"),
    ("POST", "/api/v1/jobs/x/cancel"),
    ("GET", "/api/v1/jobs/x/results"),
    ("GET", "/api/v1/jobs/x/logs"),
    ("GET", "/api/v1/jobs/x/explain"),
    ("GET", "/api/v1/jobs/x/running"),
    ("GET", "/api/v1/jobs/x/outputs/0"),
    ("GET", "/api/v1/jobs/x/outputs/0/x"),
    ("GET", "/api/v1/nodes"),
    ("POST", "/api/v1/blobs"),
    ("GET", "/api/v1/blobs/x"),
    ("PUT", "/api/v1/blobs/x"),
    ("GET", "/api/v1/packages/simple/x"),
    ("GET", "/api/v1/packages/files/x/x"),
    ("GET", "/api/v1/tokens"),
    ("POST", "/api/v1/tokens"),
    ("DELETE", "/api/v1/tokens/x"),
    ("GET", "/api/v1/whoami"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/live"),
    ("GET", "/metrics"),
    ("GET", "/jobs/x/live"),
    ("POST", "/jobs/x/cancel"),
]


@pytest.fixture
def web(shared_web):
    """What is refused leaves nothing behind."""
    return shared_web


def test_the_list_above_is_complete(web):
    found = {
        (method, re.sub(r"{\w+}", "x", route.path_format.replace("{index}", "0")))
        for route in web.app.litestar.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS" and route.path.startswith("/api/v1")
    }
    assert found == {route for route in ROUTES if route[1].startswith("/api/v1")}
    assert api_router().path == "/api/v1"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token(web, method, path):
    answer = web.call(method, path, token="")
    assert web.is_refusal(answer, 401, "denied")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_with_a_wrong_token(web, method, path):
    answer = web.call(method, path, token="flw_wrong-wrong-wrong")
    assert web.is_refusal(answer, 401, "denied")
    assert "flw_wrong" not in answer.text
    assert "send a valid one as `Authorization: Bearer TOKEN`" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "packages" not in route[1]])
def test_with_a_nodes_token(web, method, path):
    assert web.is_refusal(web.call(method, path, token=web.join), 403, "forbidden")


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "tokens" in route[1]])
def test_admins_routes_with_a_users_token(web, method, path):
    assert web.is_refusal(web.call(method, path, token=web.token("user")), 403, "forbidden")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_with_a_method_that_is_not_possible(web, method, path):
    answer = web.call("PATCH", path)
    assert web.is_refusal(answer, 405, "method_not_allowed")
    assert method in answer.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/v1/nothing", "/api/v1/jobs/x/nothing", "/static/nothing.css", "/static/../app.py"]
)
def test_unknown_paths(web, path):
    assert web.is_refusal(web.get(path), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "/jobs/x" in route[1]])
def test_unknown_jobs(web, method, path):
    answer = web.call(method, path)
    assert web.is_refusal(answer, 404, "job_not_found")
    assert answer.json()["error"]["message"] == "there is no job 'x'; `fallow jobs` lists yours"


def test_bodies_over_the_limit(make_web):
    web = make_web(WebSettings(body_bytes=1000, blob_bytes=1000))
    for method, path in (("POST", "/api/v1/jobs"), ("POST", "/api/v1/tokens"), ("POST", "/api/v1/blobs")):
        answer = web.call(method, path, content=b"x" * 1001, headers={"Content-Type": "application/json"})
        assert web.is_refusal(answer, 413, "too_large")
        assert "1000 bytes; the Python client" in answer.json()["error"]["message"]


def test_streamed_bodies_over_the_limit(make_web):
    web = make_web(WebSettings(body_bytes=1000, blob_bytes=1000))

    async def endless():
        for _ in range(100):
            yield b"x" * 100

    for path in ("/api/v1/jobs", "/api/v1/blobs"):
        answer = web.post(path, content=endless(), headers={"Content-Type": "application/json"})
        assert web.is_refusal(answer, 413, "too_large")


def test_a_fault_of_the_hub_shows_a_number_and_nothing_else(web, monkeypatch, caplog):
    def broken():
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(web.hub, "nodes", broken)
    answer = web.get("/api/v1/nodes")
    assert web.is_refusal(answer, 500, "internal")
    assert "secret" not in answer.text
    logged = caplog.text
    assert answer.json()["error"]["message"].rsplit(" ", 1)[-1] in logged
    assert "the secret inside" in logged


def test_wrong_media_types(web):
    answer = web.post("/api/v1/jobs", content=b"function=a", headers={"Content-Type": "text/plain"})
    assert answer.status_code in {400, 415}
    assert web.is_refusal(answer, answer.status_code, answer.json()["error"]["code"])


def test_healthz_says_ok_and_nothing_else(web):
    answer = web.get("/healthz", token="")
    assert (answer.status_code, answer.text) == (200, "ok")
