import json
import re

import pytest

from fallow.hub.web.app import STATIC
from fallow.hub.web.openapi import openapi_document

BROWSER = {"Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize(("path", "to"), [("/", "/sign-in"), ("/api", "/sign-in?next=/api")])
def test_pages_lead_to_sign_in(web, path, to):
    answer = web.get(path, token="")
    assert (answer.status_code, answer.headers["location"]) == (303, to)


def test_signing_in_and_out(web):
    answer = web.post("/sign-in", token="", data={"token": f" {web.admin}\n", "next": "/api"}, headers=BROWSER)
    assert (answer.status_code, answer.headers["location"]) == (303, "/api")
    cookie = answer.headers["set-cookie"]
    assert web.admin not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    session = {"Cookie": cookie.partition(";")[0]}
    web.client.cookies.clear()
    assert web.get("/", token="", headers=session).status_code == 200
    assert web.post("/sign-out", token="", headers={**session, **BROWSER}).status_code == 303
    web.client.cookies.clear()
    assert web.get("/", token="", headers=session).status_code == 303


@pytest.mark.parametrize("to", ["https://evil.test", "//evil.test", "/api/../x", ""])
def test_signing_in_leads_nowhere_else(web, to):
    answer = web.post("/sign-in", token="", data={"token": web.admin, "next": to}, headers=BROWSER)
    assert answer.headers["location"] == "/"


def test_wrong_tokens_are_told_and_not_repeated(web):
    answer = web.post("/sign-in", token="", data={"token": "flw_wrong"}, headers=BROWSER)
    assert answer.status_code == 401
    assert "doesn&#39;t know this token" in answer.text
    assert "flw_wrong" not in answer.text
    assert "set-cookie" not in answer.headers
    answer = web.post("/sign-in", token="", data={"token": web.join}, headers=BROWSER)
    assert answer.status_code == 403
    assert "for nodes" in answer.text


def test_other_sites_can_sign_nobody_in_or_out(web):
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert web.post("/sign-in", token="", data={"token": web.admin}, headers=foreign).status_code == 403
    assert web.post("/sign-out", token="", headers=foreign).status_code == 403


def test_names_are_escaped(web):
    web.job([1], name="<script>alert(1)</script>")
    web.add_node(name='<img src=x onerror="x">')
    page = web.get("/", token="", headers=web.sign_in()).text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_overview_of_an_empty_grid_says_what_to_do(web):
    page = web.get("/", token="", headers=web.sign_in()).text
    assert "fallow node http://hub.test" in page
    assert "from fallow import Grid" in page
    assert web.join not in page
    assert web.admin not in page


def test_pages_use_only_what_the_policy_allows(web):
    web.job([1], name="sweep")
    web.add_node()
    browser = web.sign_in()
    for path in ("/", "/api"):
        answer = web.get(path, token="", headers=browser)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=|https?://(?!hub\.test)", answer.text)
        for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
            found = web.get(asset, token="")
            assert found.status_code == 200, asset
            assert "max-age" in found.headers["cache-control"]


def test_vendored_files_come_with_their_licences_and_call_nobody():
    for folder in ("swagger-ui", "htmx"):
        assert (STATIC / folder / "LICENSE").stat().st_size > 100
    hosts = re.compile("|".join(["npm" + "js", "unp" + "kg", "jsdeli" + "vr", "cdn" + "js", "googlea" + "pis"]))
    for path in STATIC.rglob("*"):
        if path.is_file():
            assert not hosts.search(path.read_text(encoding="utf-8")), path


def test_openapi_document(web):
    answer = web.get("/api/v1/openapi.json", token="", headers=web.sign_in())
    document = answer.json()
    assert document == json.loads(openapi_document())
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]["/api/v1/jobs/{job}"]) == {"get", "delete"}
    body = document["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = document["components"]["schemas"][body["$ref"].rsplit("/", 1)[-1]]
    assert {"function", "items", "name", "requires", "timeout"} <= set(schema["properties"])
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation["summary"], path
            assert operation["description"], path
