"""Futures that are cancelled by the thousand, or before their calls have left."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from fallow.link.frames import CancelTasks

pytestmark = pytest.mark.slow


@contextmanager
def engine_held(grid):
    """Keep the grid's thread from doing anything meanwhile."""
    held, go_on = threading.Event(), threading.Event()
    grid._core.engine.post(lambda: (held.set(), go_on.wait(60)))
    assert held.wait(60)
    yield
    go_on.set()


def test_thousands_of_cancelled_calls_are_one_message(grid, monkeypatch):
    sent, session = [], grid._core.session
    send = session._send_surely
    monkeypatch.setattr(session, "_send_surely", lambda frame: (sent.append(frame), send(frame)))
    running = [grid.submit(time.sleep, 600) for _ in range(2)]
    calls = [grid.submit(pow, 2, number) for number in range(2000)]
    with engine_held(grid):
        for call in calls:
            call.cancel()
    for each in running:
        each.cancel()
    assert grid.submit(abs, -1).result(60) == 1
    told = [frame for frame in sent if isinstance(frame, CancelTasks)]
    assert sum(frame.ranges == (0, 2000) for frame in told) == 1
    assert len(told) <= 3


def test_a_call_that_is_cancelled_before_it_was_sent_never_runs(grid, tmp_path):
    with engine_held(grid):
        cancelled = grid.submit(Path.touch, tmp_path / "ran")
        after = grid.submit(Path.touch, tmp_path / "after")
        assert cancelled.cancel()
    after.result(60)
    assert [path.name for path in tmp_path.iterdir()] == ["after"]
