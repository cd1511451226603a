"""A grid in memory whose temporary disk is full: nothing that it accepted is lost, and it goes on once there is room."""

import tempfile

import pytest

from fallow import Grid
from fallow.client import embedded
from fallow.hub.core.opening import open_hub

pytestmark = pytest.mark.slow

PAGE_BYTES = 500_000
"""Of a result: an inline page, which goes to a file once memory is full."""
TASKS = 30


def large(x):
    return bytes([x]) * PAGE_BYTES


def test_results_wait_for_room_in_files_and_those_in_files_stay(monkeypatch, small_disk, wait_until):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk.path))
    monkeypatch.setattr(embedded, "RESERVE_BYTES", 0)
    monkeypatch.setattr(embedded, "open_hub", lambda settings: opened.append(open_hub(settings)) or opened[0])
    opened = []
    with Grid(slots=2) as grid:
        (hub,) = opened
        hub.state._limit_bytes = PAGE_BYTES
        before = grid.map(large, range(4))
        assert before.result(60) == [large(x) for x in range(4)]
        small_disk.fill(3 * PAGE_BYTES)
        job = grid.map(large, range(TASKS))
        job._demand()
        wait_until(lambda: hub.epoch > 1)  # a group was refused, and the state opened again
        small_disk.clear()
        expected = [large(x) for x in range(TASKS)]
        assert job.result(60) == expected
        assert job.wait(60)
        assert job.result(60) == expected, "read again, from files"
        assert before.result(60) == expected[:4]
