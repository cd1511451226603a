"""Full disks: new work is refused clearly and taken again once there is room; what was accepted is intact."""

import time

import pytest

from fallow import HubFull

pytestmark = pytest.mark.slow

LARGE_BYTES = 1_200_000
RESERVE_BYTES = 10_000_000


def large(x):
    time.sleep(0.2)
    return bytes([x]) * LARGE_BYTES


def slow_square(x):
    time.sleep(0.02)
    return x * x


def test_a_full_hub_refuses_new_work_and_finishes_what_it_accepted(programs, grid_of, small_disk, wait_until):
    hub = programs.hub("--state", small_disk.path / "hub", "--reserve", str(RESERVE_BYTES), "--port", "0")
    grid = grid_of(hub.url)
    accepted = grid.map(large, range(4), name="accepted")
    small_disk.fill(RESERVE_BYTES * 8 // 10)
    answer = wait_until(lambda: (found := post(hub)).status_code != 201 and found)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "hub_full")
    with pytest.raises(HubFull):
        grid.map(slow_square, range(3), name="refused")
    with pytest.raises(HubFull):
        grid.put(bytes(LARGE_BYTES))
    with pytest.raises(HubFull):
        grid.submit(slow_square, 3).result(60)
    answer = hub.http.post("/api/v1/blobs", content=bytes(LARGE_BYTES))
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "hub_full")
    programs.node(hub, name="one")
    assert accepted.result(60) == [bytes([x]) * LARGE_BYTES for x in range(4)]
    small_disk.clear()
    wait_until(lambda: post(hub).status_code == 201)
    assert grid.map(slow_square, range(3), name="taken").result(60) == [0, 1, 4]
    assert len(grid.put(bytes(LARGE_BYTES)).digest) == 64


def post(hub):
    return hub.http.post("/api/v1/jobs", json={"function": "math:sqrt", "items": [4.0]})


def test_inputs_of_an_accepted_job_wait_for_room(programs, grid_of, small_disk, wait_until):
    hub = programs.hub("--state", small_disk.path / "hub", "--reserve", str(RESERVE_BYTES), "--port", "0")
    grid = grid_of(hub.url)
    programs.node(hub, name="one")
    started = []

    def items():
        for index in range(5):
            yield bytes([index]) * LARGE_BYTES  # a page of its own, as a blob
            started.append(index)

    small_disk.fill(RESERVE_BYTES + 2 * LARGE_BYTES)
    job = grid.map(len, items(), name="streamed")
    wait_until(lambda: len(started) and post(hub).status_code == 507)
    small_disk.clear()
    assert job.result(60) == [LARGE_BYTES] * 5


def test_a_disk_without_any_room_loses_nothing(programs, grid_of, small_disk, wait_until):
    hub = programs.hub("--state", small_disk.path / "hub", "--reserve", "1MB", "--port", "0")
    programs.node(hub, name="one")
    grid = grid_of(hub.url)
    job = grid.map(slow_square, range(400), name="through")
    wait_until(lambda: job.progress.settled > 50)
    full_until = time.monotonic() + 3

    def fill():
        small_disk.fill(0)
        return time.monotonic() > full_until

    wait_until(fill)
    small_disk.clear()
    assert job.result(60) == [x * x for x in range(400)]
    wait_until(lambda: post(hub).status_code == 201)


def test_a_put_into_a_disk_without_room_is_refused_and_leaves_nothing_behind(programs, grid_of, small_disk, wait_until):
    hub = programs.hub("--state", small_disk.path / "hub", "--reserve", "1MB", "--port", "0")
    grid = grid_of(hub.url)
    wait_until(lambda: grid._core.session.blobs.incoming)  # it shares the hub's files
    small_disk.fill(LARGE_BYTES // 2)
    with pytest.raises(HubFull):
        grid.put(bytes(LARGE_BYTES))
    assert not list(grid._core.session.blobs.incoming.iterdir())
    small_disk.clear()
    wait_until(lambda: post(hub).status_code == 201)
    assert len(grid.put(bytes(LARGE_BYTES)).digest) == 64


@pytest.mark.long
def test_a_node_with_a_full_disk_takes_no_work_and_says_why(programs, grid_of, small_disk, wait_until):
    hub = programs.hub()
    programs.node(hub, "--state", small_disk.path / "node", "--reserve", str(RESERVE_BYTES), name="one")
    grid = grid_of(hub.url)
    assert grid.map(slow_square, range(10), name="before").result(60) == [x * x for x in range(10)]
    small_disk.fill(RESERVE_BYTES // 2)
    (node,) = wait_until(lambda: [each for each in hub.get("/nodes")["nodes"] if not each["accepting"]])
    assert "disk full" in node["reason"]
    job = grid.map(slow_square, range(10), name="waits")
    assert "disk full" in " ".join(wait_until(job.explain))
    assert job.progress.leased == 0
    small_disk.clear()
    assert job.result(60) == [x * x for x in range(10)]
