"""Runs that are cut short: every task is run or given back, exactly once."""

import sys
import threading

import pytest

from fallow.slot.turn import Turn


def test_nothing_is_given_back_of_a_run_that_has_ended():
    turn = Turn()
    assert turn.begin(1, 10, 20)
    left = turn.enter(10, range(10))
    assert list(left) == list(range(10))
    assert turn.leave() == 20
    assert turn.end() == 20
    assert turn.cut(1) == (1, 20)


@pytest.mark.parametrize("items", [list(range(10)), tuple(range(10)), range(10), range(1 << 70, (1 << 70) + 10)])
def test_what_has_not_begun_is_given_back(items):
    turn = Turn()
    turn.begin(1, 10, 20)
    left = turn.enter(10, items)
    assert [next(left) for _ in range(3)] == list(items[:3])
    assert turn.cut(1) == (1, 13)
    assert list(left) == []
    assert turn.leave() == 13
    assert turn.enter(15, items) is None
    assert turn.end() == 13
    assert len(items) == 10, "the page keeps its items: it may be run again"


def test_runs_that_were_given_back_do_not_begin():
    turn = Turn()
    assert turn.cut(2) == (0, 0)
    assert not turn.begin(1, 0, 10)
    assert not turn.begin(2, 10, 20)
    assert turn.begin(3, 20, 30)


def test_a_cut_that_comes_late_takes_nothing_from_a_later_run():
    turn = Turn()
    turn.begin(1, 0, 10)
    turn.end()
    turn.begin(2, 10, 20)
    left = turn.enter(10, range(10))
    assert turn.cut(1) == (2, 20)
    assert len(list(left)) == 10


def test_while_the_function_is_loaded_all_but_the_first_task_are_given_back():
    turn = Turn()
    turn.begin(1, 10, 20)
    assert turn.cut(1) == (1, 11)
    assert list(turn.enter(10, "abcdefghij")) == ["a"]
    assert turn.leave() == 11
    assert turn.end() == 11


def test_between_two_pieces_the_later_one_is_given_back():
    turn = Turn()
    turn.begin(1, 0, 30)
    list(turn.enter(0, range(10)))
    turn.leave()
    assert turn.cut(1) == (1, 10)
    assert turn.enter(20, range(10)) is None
    assert turn.end() == 10


def test_what_runs_python_code_to_iterate_is_left_alone():
    class Lazy:
        def __len__(self):
            return 3

        def __iter__(self):
            yield from "abc"

    turn = Turn()
    turn.begin(1, 0, 3)
    left = turn.enter(0, Lazy())
    assert turn.cut(1) == (1, 3)
    assert list(left) == ["a", "b", "c"]


@pytest.mark.slow
def test_cuts_from_another_thread_lose_and_double_nothing():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(1, 300):
            turn = Turn()
            turn.begin(number, 0, 2000)
            given = []
            cutter = threading.Thread(target=lambda turn=turn, n=number, given=given: given.append(turn.cut(n)))
            ran = []
            cutter.start()
            for first in range(0, 2000, 500):
                left = turn.enter(first, range(first, first + 500))
                if left is None:
                    break
                for x in left:
                    ran.append(x)  # noqa: PERF402 -- a loop in Python, as tasks are run
                turn.leave()
            stop = turn.end()
            cutter.join()
            assert ran == list(range(stop))
            assert given == [(number, stop)]
    finally:
        sys.setswitchinterval(before)
