"""What a job's page picks of what there is."""

from fallow.hub.web.job_page import _telling
from fallow.model.lease import RunningView


def test_of_two_attempts_of_a_task_the_one_that_is_further_tells():
    first = RunningView(index=1, node="a", running_s=9.0, fraction=0.2)
    second = RunningView(index=1, node="b", running_s=1.0, fraction=0.5)
    words = RunningView(index=0, node="c", running_s=1.0, message="words")
    silent = RunningView(index=2, node="d", running_s=1.0)
    assert _telling([second, first, silent, words]) == [words, second]
