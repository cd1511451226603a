import json

import msgspec
import pytest

from fallow.link.frames import Beat
from fallow.model.ids import JobId
from fallow.model.job import JobSpec, Pages
from fallow.model.lease import RunningTask
from fallow.model.page import InputPage


def sqrt(value):
    return value**0.5


def test_job_runs_from_creation_to_results(web):
    web.add_node(sqrt)
    job = web.job([1, 4, 9], name="roots")
    assert (job["function"], job["size"], job["codec"]) == ("math:sqrt", 3, "json")
    done = web.wait_done("roots")
    assert (done["id"], done["settled"], done["failed"]) == (job["id"], 3, 0)
    body = web.get("/api/v1/jobs/roots/results").json()
    assert body == {
        "results": [{"index": 0, "value": 1.0}, {"index": 1, "value": 2.0}, {"index": 2, "value": 3.0}],
        "next": None,
        "state": "done",
    }


def test_failed_tasks_have_an_error_in_place_of_a_value(web):
    web.add_node(lambda x: 1 // x)
    job = web.job([1, 0, 1])
    done = web.wait_done(job["id"])
    assert done["failed"] == 1
    assert done["failures"][0]["index"] == 1
    results = web.get(f"/api/v1/jobs/{job['id']}/results").json()["results"]
    assert [result["index"] for result in results] == [0, 1, 2]
    assert results[1]["error"]["type"] == "ZeroDivisionError"
    assert "value" not in results[1]


def test_results_stream_as_json_lines(web):
    web.add_node(sqrt)
    job = web.job([1, 4, 9])
    web.wait_done(job["id"])
    answer = web.get(f"/api/v1/jobs/{job['id']}/results?start=1", headers={"Accept": "application/jsonl"})
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"index": 1, "value": 2.0},
        {"index": 2, "value": 3.0},
    ]


def test_numbers_pass_through_unchanged(web):
    text = '{"function": "a:b", "items": [12345678901234567890123, 1.10, {"b": 1, "a": 2}]}'
    job = web.post("/api/v1/jobs", content=text, headers={"Content-Type": "application/json"}).json()
    [page] = web.run(web.hub.desk.input_pages(job["id"], 0, 3))
    assert page.data == b'[12345678901234567890123,1.10,{"b": 1, "a": 2}]'


def test_a_large_job_is_cut_into_pages_and_read_in_steps(web):
    web.add_node(lambda x: x)
    items = ["x" * 1000 + str(i) for i in range(3000)]
    job = web.job(items)
    assert len(web.run(web.hub.desk.input_pages(job["id"], 0, 3000))) > 3
    web.wait_done(job["id"])
    values, start, calls = [], 0, 0
    while start is not None:
        body = web.get(f"/api/v1/jobs/{job['id']}/results?start={start}").json()
        values += [result["value"] for result in body["results"]]
        start, calls = body["next"], calls + 1
    assert values == items
    assert calls > 1


def test_an_item_over_the_page_limit_becomes_a_blob(web):
    job = web.job(["y" * 2_000_000, 1])
    first, second = web.run(web.hub.desk.input_pages(job["id"], 0, 2))
    assert first.data is None
    assert web.get(f"/api/v1/blobs/{first.blob}").content == b'["' + b"y" * 2_000_000 + b'"]'
    assert second.data == b"[1]"


def test_a_job_without_items_is_done(web):
    job = web.job([])
    assert web.wait_done(job["id"])["size"] == 0


def test_creating_with_an_id_may_be_repeated(web):
    first = web.job([1, 2], id="0" * 31 + "7")
    second = web.job([1, 2], id="0" * 31 + "7")
    assert first["id"] == second["id"]
    assert len(web.get("/api/v1/jobs").json()["jobs"]) == 1


def test_taken_names(web):
    first = web.job([1], name="sweep")
    refused = web.post("/api/v1/jobs", json={"function": "a:b", "items": [], "name": "sweep"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_exists")
    assert web.job([1], name="sweep", if_exists="attach")["id"] == first["id"]
    assert web.job([1], name="sweep", if_exists="replace")["id"] != first["id"]


def test_options_are_kept(web):
    job = web.job([1], requires={"memory": "64GB", "tags": ["gpu"]}, priority=5, retries=2, max_retries=1, timeout=30)
    shown = web.get(f"/api/v1/jobs/{job['id']}").json()
    assert shown["requires"] == {"memory": 64_000_000_000, "tags": ["gpu"]}
    assert (shown["priority"], shown["retries"], shown["max_retries"], shown["timeout"]) == (5, 2, 1, 30.0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"function": "sqrt"}, "function"),
        ({"function": "math:sqrt; import os"}, "function"),
        ({"requires": {"memory": "lots"}}, "memory"),
        ({"requires": {"memory": "1" * 400 + "GB"}}, "memory"),
        ({"requires": {"colour": "red"}}, "colour"),
        ({"priority": 10**9}, "priority"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"name": ""}, "name"),
        ({"id": "7"}, "id"),
        ({"if_exists": "maybe"}, "if_exists"),
        ({"items": 3}, "items"),
        ({"itms": []}, "itms"),
    ],
)
def test_malformed_requests_are_refused_with_the_fields_name(web, change, named):
    answer = web.post("/api/v1/jobs", json={"function": "math:sqrt", "items": [1], **change})
    assert web.is_refusal(answer, 400, "bad_request")
    assert named in answer.json()["error"]["message"]
    assert web.get("/api/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"items": [1]}', b'{"function":"a:b","items":' + b"[" * 200_000]
)
def test_bodies_that_are_no_request(web, body):
    answer = web.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert web.is_refusal(answer, 400, "bad_request")


def test_names_with_slashes_and_spaces(web):
    job = web.job([1], name="lab 2/sweep%2F7")
    assert web.get("/api/v1/jobs/lab%202%2Fsweep%252F7").json()["id"] == job["id"]
    assert web.get("/api/v1/jobs/lab%202%2Fsweep%252F7/explain").status_code == 200


def test_cancel_and_delete(web):
    job = web.job([1, 2])
    assert web.post(f"/api/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert web.call("DELETE", f"/api/v1/jobs/{job['id']}").status_code == 204
    gone = web.get(f"/api/v1/jobs/{job['id']}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "job_not_found")


def test_explain_says_what_is_missing(web):
    web.add_node()
    job = web.job([1], requires={"memory": "64GB"})
    [reason, *_] = web.get(f"/api/v1/jobs/{job['id']}/explain").json()["reasons"]
    assert "64 GB" in reason
    assert "8 GB" in reason


def test_running_tasks_say_how_far_they_are(web):
    node = web.add_node()

    def compute(lease):
        running = [RunningTask(lease.id, index, 3.0 + index) for index in range(lease.start, lease.stop)]
        said = msgspec.structs.replace(running[0], fraction=0.25, message="<b>warm</b>")
        node.link.send(Beat((said, *running[1:]), (lease.id,)))

    node.compute = compute
    job = web.job([1, 2, 3], checkpoint_s=5)["id"]
    path = f"/api/v1/jobs/{job}/running"
    tasks = web.wait_for(path, lambda found: found["tasks"])["tasks"]
    assert tasks[0]["seconds"] >= 3.0
    assert {**tasks[0], "seconds": 3} == {
        "index": 0, "node": "bench-3", "seconds": 3, "fraction": 0.25, "message": "<b>warm</b>"
    }  # fmt: skip
    assert [task["fraction"] for task in tasks[1:]] == [None] * (len(tasks) - 1)
    page = web.get(f"/jobs/{job}", token="", headers=web.sign_in()).text
    assert "25.0 %" in page
    assert "&lt;b&gt;warm&lt;/b&gt;" in page
    assert page.count('class="running-task"') == 1
    web.post(f"/api/v1/jobs/{job}/cancel")
    assert web.get(path).json() == {"tasks": []}


@pytest.mark.parametrize("checkpoint_s", [0, -1, 1e9])
def test_checkpoints_have_bounds(web, checkpoint_s):
    answer = web.post("/api/v1/jobs", json={"function": "math:sqrt", "items": [1], "checkpoint_s": checkpoint_s})
    assert web.is_refusal(answer, 400, "bad_request")
    assert "checkpoint_s" in answer.json()["error"]["message"]


def test_logs(web):
    web.add_node()
    job = web.job([1, 2, 3])
    web.wait_done(job["id"])
    body = web.get(f"/api/v1/jobs/{job['id']}/logs").json()
    assert body["entries"][0] == {"index": 0, "text": "from 0\n", "node": "bench-3"}
    assert body["next"] is None
    path = f"/api/v1/jobs/{job['id']}/logs"
    assert web.get(f"{path}?after=-1").json()["entries"] == body["entries"][-1:]
    assert web.get(f"{path}?after={len(body['entries'])}").json() == {"entries": [], "next": None}
    for after in (-(10**30), 10**30):
        refused = web.get(f"{path}?after={after}")
        assert web.is_refusal(refused, 400, "bad_request")
        assert "after" in refused.json()["error"]["message"]


def test_users_see_their_own_jobs_only(web):
    anna, ben = web.token("user", "anna"), web.token("user", "ben")
    job = web.post("/api/v1/jobs", token=anna, json={"function": "a:b", "items": [1], "name": "hers"}).json()
    assert [each["id"] for each in web.get("/api/v1/jobs", token=anna).json()["jobs"]] == [job["id"]]
    assert web.get("/api/v1/jobs", token=ben).json()["jobs"] == []
    for ref in (job["id"], "hers"):
        for method, part in (
            ("GET", ""),
            ("GET", "/results"),
            ("GET", "/logs"),
            ("GET", "/explain"),
            ("GET", "/running"),
            ("POST", "/cancel"),
            ("DELETE", ""),
        ):
            assert web.call(method, f"/api/v1/jobs/{ref}{part}", token=ben).status_code == 404
    assert web.get(f"/api/v1/jobs/{job['id']}").status_code == 200  # the admin


def test_pickled_results_come_as_messagepack(web):
    web.add_node()
    digest, _ = web.run(web.hub.front.keep_blob(chunks(b"opaque"), web.hub.authenticate(web.admin)))
    spec = JobSpec(
        id=JobId("1" * 32),
        stages=("map",),
        function=digest,
        function_name="f",
        inputs=Pages(),
        name="pickled",
        codec="pickle",
    )
    token = web.hub.authenticate(web.admin)
    web.run(
        web.hub.front.create_job(spec, [InputPage(spec.id, 0, 2, b"[1,2]")], token)
    )  # the node takes any page for JSON
    web.wait_done("pickled")
    answer = web.get("/api/v1/jobs/pickled/results")
    assert answer.headers["content-type"] == "application/msgpack"
    body = msgspec.msgpack.decode(answer.content)
    assert b"".join(page["data"] for page in body["pages"]) in {b"[1, 2]", b"[1][2]"}
    assert body["state"] == "done"


async def chunks(data):
    yield data


def test_listing_is_bounded(web):
    for _ in range(3):
        web.job([])
    assert len(web.get("/api/v1/jobs?limit=2").json()["jobs"]) == 2
    refused = web.get("/api/v1/jobs?limit=100000")
    assert web.is_refusal(refused, 400, "bad_request")
    assert "limit" in refused.json()["error"]["message"]
