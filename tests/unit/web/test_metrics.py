"""`GET /metrics`, read by Prometheus' own parser."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fallow.cli.reference import rest_reference
from fallow.hub.web.metrics import ABOUT, BlobSizes

WEB_NODE_SLOTS = 4


@pytest.fixture
def scrape(web):
    def scrape(token=None):
        answer = web.get("/metrics", token=token)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = list(text_string_to_metric_families(answer.text))
        assert all(family.documentation for family in families)
        return {
            f"{sample.name}{{{sample.labels['state']}}}" if sample.labels else sample.name: sample.value
            for family in families
            for sample in family.samples
        }

    return scrape


def test_an_idle_hub(scrape):
    found = scrape()
    for name in ("fallow_jobs{waiting}", "fallow_jobs{running}", "fallow_tasks{pending}", "fallow_tasks{leased}"):
        assert found[name] == 0
    assert found["fallow_nodes{connected}"] == found["fallow_slots{free}"] == found["fallow_blob_bytes"] == 0
    assert found["fallow_tasks_done_total"] == found["fallow_leases_granted_total"] == 0
    assert found["fallow_free_bytes"] > 0


def test_waiting_and_settled_work_is_counted(web, scrape):
    def sometimes(x):
        if x < 0:
            raise ValueError(x)
        return x

    web.job([1, 2, 3], requires={"memory": "64TB"}, name="big")
    found = scrape()
    assert (found["fallow_jobs{waiting}"], found["fallow_tasks{pending}"]) == (1, 3)
    web.add_node(sometimes)
    web.wait_done(web.job([1, 2, -3, 4, -5])["id"])
    found = scrape()
    assert (found["fallow_tasks_done_total"], found["fallow_tasks_failed_total"]) == (3, 2)
    assert (found["fallow_jobs{waiting}"], found["fallow_jobs{running}"], found["fallow_tasks{pending}"]) == (1, 0, 3)
    assert (found["fallow_nodes{connected}"], found["fallow_nodes{away}"]) == (1, 0)
    assert (found["fallow_slots{busy}"], found["fallow_slots{free}"]) == (0, WEB_NODE_SLOTS)
    assert found["fallow_jobs_created_total"] == 2
    assert found["fallow_leases_granted_total"] >= 1
    assert found["fallow_commit_seconds_count"] >= 2
    assert found["fallow_commit_seconds_sum"] > 0


def test_work_at_a_node_is_counted_and_what_is_settled_never_goes_back(web, scrape):
    node = web.add_node()
    held = []
    node.compute = held.append
    job = web.job([1, 2, 3, 4])
    found = scrape()
    assert (found["fallow_jobs{running}"], found["fallow_tasks_done_total"]) == (1, 0)
    assert found["fallow_tasks{leased}"] == sum(lease.stop - lease.start for lease in held) > 0
    assert found["fallow_tasks{leased}"] + found["fallow_tasks{pending}"] == 4
    assert found["fallow_slots{busy}"] > 0
    del node.compute
    for lease in held:
        node.compute(lease)
    web.wait_done(job["id"])
    assert scrape()["fallow_tasks_done_total"] == 4
    assert web.call("DELETE", f"/api/v1/jobs/{job['id']}").status_code == 204
    found = scrape()
    assert (found["fallow_tasks_done_total"], found["fallow_tasks{leased}"]) == (4, 0)


def test_the_size_of_blobs_is_looked_up_once_a_minute(web):
    looked = []
    local_bytes = web.hub.blobs.local_bytes
    web.hub.blobs.local_bytes = lambda: looked.append(1) or local_bytes()
    assert web.post("/api/v1/blobs", content=b"x" * 1000).status_code == 201
    sizes = BlobSizes()
    assert [web.run(sizes.read(web.hub)) for _ in range(3)] == [1000] * 3
    assert looked == [1]


def test_a_users_token_is_enough(web, scrape):
    assert scrape(web.token("user"))["fallow_jobs{waiting}"] == 0


def test_every_figure_is_in_the_reference(scrape):
    ours = {name.partition("{")[0] for name in scrape() if name.startswith("fallow_")}
    assert {name.removesuffix("_count").removesuffix("_sum") for name in ours} == set(ABOUT)
    page = rest_reference()
    assert "## `GET /metrics`" in page
    for name in ABOUT:
        assert f"| `{name}` | " in page
