import io

import pytest
from rich.console import Console

from fallow.demo.roster import Row
from fallow.demo.screen import Screen

NODE = Row("node-1", connected=True, finished=3, leases=1, tasks=4)


@pytest.fixture
def output():
    return io.StringIO()


def test_plain_output_gets_a_line_at_each_quarter(output):
    with Screen(Console(file=output, force_terminal=False)) as screen:
        screen.say("here we go")
        for done in range(101):
            screen.progress("grid", done, 100, 2.0, [NODE])
    lines = output.getvalue().splitlines()
    assert "here we go" in lines[0]
    assert len(lines) == 1 + 4
    assert "25 of 100 tasks, 12.5 tasks/s (node-1 3 done, 4 leased)" in lines[1]


def test_the_next_part_begins_with_its_own_quarters(output):
    with Screen(Console(file=output, force_terminal=False)) as screen:
        for _ in range(2):
            screen.progress("grid", 4, 4, 1.0)
            screen.clear()
    assert len(output.getvalue().splitlines()) == 2


def test_a_terminal_shows_every_node(output):
    with Screen(Console(file=output, force_terminal=True, width=100)) as screen:
        screen.progress("grid", 1, 4, 1.0, [NODE, Row("node-2")])
        screen.say("an event")
    shown = output.getvalue()
    for text in ("1 of 4 tasks", "node-1", "connected", "node-2", "gone", "an event"):
        assert text in shown


def test_no_tasks_are_no_division_by_zero(output):
    with Screen(Console(file=output, force_terminal=False)) as screen:
        screen.progress("grid", 0, 0, 0.0)
