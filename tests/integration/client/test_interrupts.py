"""Ctrl-C while a call is being submitted, at any line: what follows gets its own results."""

import linecache
import sys
import threading

import pytest
from tests.programs import wait_until

from fallow import Grid

FILES = ("client/stream.py", "client/future.py", "client/direct.py", "node/lending.py", "node/channels/watched.py")
LINES = 120
"""More than one submit has in these files."""


def double(x):
    return 2 * x


@pytest.fixture(scope="module")
def grid():
    with Grid(slots=2) as grid:
        yield grid


def holds_no_signal(frame):
    """Whether a signal is never handled at this line: Python looks for signals after calls, so not between the end of a `with`
    block and the release of its lock, where a trace function is called all the same.
    """
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(("with ", "try:"))


def submit_interrupted(grid, after, *args):
    """Submit with a KeyboardInterrupt before the line of this number; return whether it came."""
    left = after

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.replace("\\", "/").endswith(FILES):
            return None
        if event == "line" and not holds_no_signal(frame):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        grid.submit(*args)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def interrupted_everywhere(submit):
    """Interrupt at one line after the other until a submit has gone through."""
    for after in range(LINES):
        if not submit(after):
            assert after > 10
            return
    raise AssertionError("a submit has more lines than thought")


def test_a_lone_call(grid):
    def submit(after):
        for n in range(3):
            assert grid.submit(double, n).result(60) == 2 * n
        was_interrupted = submit_interrupted(grid, after, double, 100)
        assert grid.submit(double, 3).result(60) == 6
        return was_interrupted

    interrupted_everywhere(submit)


def test_one_among_many(grid):
    def submit(after):
        first = [grid.submit(double, n) for n in range(5)]
        was_interrupted = submit_interrupted(grid, after, double, 100)
        rest = [grid.submit(double, n) for n in range(5, 10)]
        assert [each.result(60) for each in first + rest] == list(range(0, 20, 2))
        return was_interrupted

    interrupted_everywhere(submit)


def test_the_first_of_a_function(grid):
    def submit(after):
        def triple(x):
            return 3 * x

        was_interrupted = submit_interrupted(grid, after, triple, 100)
        assert [grid.submit(triple, n).result(60) for n in range(3)] == [0, 3, 6]
        return was_interrupted

    interrupted_everywhere(submit)


def test_nothing_stays_of_them(grid):
    assert threading.active_count() < 30
    slots = list(grid._core.direct.pool)

    def are_idle():
        held = [list(slot.batches) for slot in slots]
        return all(not batches or batches[0].is_lent for batches in held)

    wait_until(are_idle, "the calls that nobody waited for")
