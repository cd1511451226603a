"""Jobs of programs from JSON: what makes no sense is refused, and their pages link their files."""

import pytest

RESULT = {
    "exit_code": 0,
    "seconds": 0.5,
    "node": "bench-3",
    "parameters": {"x": 1},
    "stdout": {"size": 5, "text": "<b>hi"},
    "stderr": {"size": 0, "text": ""},
    "outputs": {"out/a b.html": {"size": 3, "text": "<i>"}},
}


def create(web, items, **program):
    return web.post("/api/v1/jobs", json={"program": {"command": "calc", **program}, "items": items})


def test_output_files_are_listed_read_and_linked(web):
    web.add_node(lambda parameters: RESULT)
    answer = create(web, [{"x": 1}], outputs=["out"])
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["kinds"], job["codec"], job["function"]) == (["run"], "json", "run(calc)")
    web.wait_done(job["id"])
    listed = web.get(f"/api/v1/jobs/{job['id']}/outputs/0").json()
    assert [(file["name"], file["size"]) for file in listed["files"]] == [
        ("out/a b.html", 3), ("stdout", 5), ("stderr", 0),
    ]  # fmt: skip
    read = web.get(listed["files"][0]["url"])
    assert read.text == "<i>"
    assert read.headers["content-type"] == "application/octet-stream"
    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.html"
    page = web.get(f"/jobs/{job['id']}", token="", headers=web.sign_in()).text
    assert listed["files"][0]["url"] in page
    assert "x=1" in page


def test_what_is_not_there_is_told(web):
    web.add_node(lambda parameters: RESULT if parameters["x"] else {"odd": 1})
    job = create(web, [{"x": 1}, {"x": 0}]).json()["id"]
    web.wait_done(job)
    assert web.is_refusal(web.get(f"/api/v1/jobs/{job}/outputs/0/none"), 404, "not_found")
    assert web.is_refusal(web.get(f"/api/v1/jobs/{job}/outputs/1"), 404, "not_found")
    assert web.is_refusal(web.get(f"/api/v1/jobs/{job}/outputs/7"), 404, "not_found")
    values = web.job([1])
    assert web.is_refusal(web.get(f"/api/v1/jobs/{values['id']}/outputs/0"), 400, "bad_request")


def test_nobody_reads_another_users_files(web):
    web.add_node(lambda parameters: RESULT)
    job = create(web, [{"x": 1}]).json()["id"]
    web.wait_done(job)
    other = web.token("user")
    assert web.is_refusal(web.get(f"/api/v1/jobs/{job}/outputs/0/stdout", token=other), 404, "job_not_found")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"program": {"command": "calc {y}"}, "items": [{"x": 1}]}, "there is no parameter y"),
        ({"program": {"command": "calc"}, "items": [1]}, "item 0 is no object"),
        ({"program": {"command": "calc"}, "items": [{"x": 1}, {"y": 1}]}, "item 1 has other parameters"),
        ({"program": {"command": "calc"}, "items": [{"x": [1]}]}, "neither a text nor a number"),
        ({"program": {"command": "calc", "outputs": ["../x"]}, "items": [{}]}, "lies outside"),
        ({"program": {"command": "calc", "inputs": [{"path": "x"}]}, "items": [{}]}, "one of text, data and digest"),
        ({"program": {"command": "calc"}, "function": "math:sqrt", "items": [{}]}, "a function or a program"),
        ({"items": [{}]}, "a function or a program"),
        ({"program": {"command": "calc", "colour": 1}, "items": [{}]}, "colour"),
    ],
)
def test_programs_from_json_that_make_no_sense_are_refused(web, body, said):
    answer = web.post("/api/v1/jobs", json=body)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


def test_a_blob_that_is_not_there_is_named(web):
    program = {"command": "calc", "inputs": [{"path": "x", "digest": "0" * 64}]}
    answer = web.post("/api/v1/jobs", json={"program": program, "items": [{}]})
    assert answer.status_code == 404
    assert "there is no blob" in answer.json()["error"]["message"]


def test_how_it_is_contained_is_part_of_the_request(web):
    answer = web.post(
        "/api/v1/jobs",
        json={
            "program": {"command": "calc"},
            "items": [{}],
            "network": False,
            "limits": {"memory": "200MB"},
        },
    )
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert job["requires"] == {"sandbox": "bubblewrap"}
    assert web.hub.book.specs[job["id"]].containment.limits.memory_bytes == 200_000_000
    for wrong in ({"sandbox": "steel"}, {"limits": {"colour": 1}}, {"container": "a b"}):
        refused = web.post("/api/v1/jobs", json={"program": {"command": "calc"}, "items": [{}], **wrong})
        assert refused.status_code == 400, refused.text


def test_an_image_may_be_an_uploaded_blob(web):
    digest = web.post("/api/v1/blobs", content=b"a tar file").json()["digest"]
    program = {"command": "calc", "environ": {"SEED": 7, "FAST": True}}
    request = {"program": program, "items": [{}], "container": digest, "speculate": False}
    job = web.post("/api/v1/jobs", json=request).json()
    spec = web.hub.book.specs[job["id"]]
    assert (spec.containment.image, spec.containment.image_archive, spec.speculate) == (None, digest, False)
    assert job["requires"] == {"sandbox": "container"}
    refused = web.post("/api/v1/jobs", json=request | {"container": "0" * 64})
    assert refused.status_code == 404
    assert "lacks blob" in refused.json()["error"]["message"]


def test_of_several_executables_each_is_a_blob_for_its_platform(web):
    tools = {name: {"path": "calc", "text": f"tool of {name}"} for name in ("linux-x86_64", "macos-arm64")}
    answer = web.post(
        "/api/v1/jobs", json={"program": {"command": "{executable}", "executables": tools}, "items": [{}]}
    )
    spec = web.hub.book.specs[answer.json()["id"]]
    assert set(spec.executables) == set(tools)
    assert len(spec.blobs) == 3
    assert [spec.executables["linux-x86_64"]] == [
        each for each in spec.blobs_on("linux-x86_64") if each != spec.function
    ]
    assert spec.blobs_on("plan9-mips") == (spec.function,)
