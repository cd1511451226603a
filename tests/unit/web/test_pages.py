import json
import re

import pytest

from fallow.hub.web.app import STATIC
from fallow.hub.web.openapi import openapi_document

BROWSER = {"Sec-Fetch-Site": "same-origin"}


JOB = "0" * 32


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/", "/sign-in"),
        ("/api", "/sign-in?next=/api"),
        (f"/jobs/{JOB}", f"/sign-in?next=/jobs/{JOB}"),
        (f"/nodes/{JOB}", f"/sign-in?next=/nodes/{JOB}"),
        ("/jobs/x%0d%0aSet-Cookie:a=b", "/sign-in"),
    ],
)
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


@pytest.mark.parametrize("to", ["https://evil.test", "//evil.test", "/api/../x", "/jobs/x", f"/jobs/{JOB}/../x", ""])
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


def test_signing_in_leads_back_to_a_job(web):
    answer = web.post("/sign-in", token="", data={"token": web.admin, "next": f"/jobs/{JOB}"}, headers=BROWSER)
    assert answer.headers["location"] == f"/jobs/{JOB}"


def test_a_job_page_shows_what_is_known_of_the_job(web):
    def fail_on_two(x):
        if x == 2:
            raise ValueError("<b>not two</b>")
        return x

    web.add_node(fail_on_two, name="<i>node</i>")
    job = web.job([1, 2, 3], name="<u>sweep</u>", requires={"memory": "1GB", "tags": ["lab"]}, priority=4, timeout=60)
    web.wait_done(job["id"])
    browser = web.sign_in()
    page = web.get(f"/jobs/{job['id']}", token="", headers=browser).text
    for word in ("&lt;u&gt;sweep", "done", "3 of 3", "ValueError: &lt;b&gt;not two", "Task 1", "from 0", "math:sqrt"):
        assert word in page, word
    for fact in ("memory 1 GB, tags lab", "first admin", job["id"], "60 s a task"):
        assert f"<dd>{fact}</dd>" in page, fact
    assert not re.search("<b>|<i>|<u>", page)
    assert "Cancel job" not in page
    assert "hx-sse:connect" in page
    assert f'href="/jobs/{job["id"]}"' in web.get("/", token="", headers=browser).text


def test_a_node_has_a_page_with_its_sandboxes_and_notes(web):
    web.add_node(
        name="<i>node</i>",
        sandboxes=("process", "bubblewrap"),
        notes={"limits": "by <b>watching</b>", "sandbox confined": "this kernel has no Landlock"},
    )
    browser = web.sign_in()
    (node,) = web.get("/api/v1/nodes").json()["nodes"]
    assert node["sandboxes"] == ["process", "bubblewrap"]
    assert node["notes"]["sandbox confined"] == "this kernel has no Landlock"
    assert f'href="/nodes/{node["id"]}"' in web.get("/", token="", headers=browser).text
    page = web.get(f"/nodes/{node['id']}", token="", headers=browser).text
    notes = dict(re.findall(r"<strong>(.*?)</strong></p><p class=\"words\">(.*?)</p>", page))
    assert notes == {
        "Sandbox container": "does not work",
        "Sandbox bubblewrap": "works",
        "Sandbox confined": "this kernel has no Landlock",
        "Sandbox process": "works",
        "Limits": "by &lt;b&gt;watching&lt;/b&gt;",
    }
    assert not re.search("<b>|<i>", page)
    gone = web.get(f"/nodes/{JOB}", token="", headers=browser)
    assert (gone.status_code, "There is no such node" in gone.text) == (404, True)


def test_a_job_page_says_what_a_waiting_job_waits_for(web):
    web.add_node()
    job = web.job([1], requires={"memory": "64TB"})
    page = web.get(f"/jobs/{job['id']}", token="", headers=web.sign_in()).text
    assert "<li>needs 64 TB; the largest node has 8 GB</li>" in page
    assert "No task has printed anything." in page


def test_a_job_is_cancelled_from_its_own_page_only(web):
    job = web.job([1])
    browser = web.sign_in()
    path = f"/jobs/{job['id']}/cancel"
    assert web.post(path, token="", headers={**browser, "Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert web.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "waiting"
    answer = web.post(path, token="", headers={**browser, **BROWSER})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job['id']}")
    assert web.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_jobs_of_others_and_jobs_that_are_gone_have_no_page(web):
    job = web.job([1])
    user = web.sign_in(web.token("user"))
    for ref in (job["id"], "nothing"):
        answer = web.get(f"/jobs/{ref}", token="", headers=user)
        assert answer.status_code == 404
        assert "There is no such job" in answer.text
        assert "hx-sse:connect" not in answer.text
        assert web.post(f"/jobs/{ref}/cancel", token="", headers={**user, **BROWSER}).status_code == 404
    assert web.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "waiting"


def test_overview_of_an_empty_grid_says_what_to_do(web):
    page = web.get("/", token="", headers=web.sign_in()).text
    assert "fallow node http://hub.test" in page
    assert "from fallow import Grid" in page
    assert web.join not in page
    assert web.admin not in page


def test_pages_use_only_what_the_policy_allows(web):
    job = web.job([1], name="sweep")
    web.add_node()
    browser = web.sign_in()
    for path in ("/", "/api", f"/jobs/{job['id']}"):
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
