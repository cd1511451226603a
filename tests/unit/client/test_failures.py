"""Failure records become the exceptions that users catch."""

import pytest

from fallow import (
    EnvironmentFailed,
    JobCancelled,
    ProgramFailed,
    TaskCrashed,
    TaskFailed,
    TaskLostNodes,
    TaskOverLimit,
    TaskTimeout,
)
from fallow.client.failures import exception_of
from fallow.model.failure import Failure


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("crashed", TaskCrashed),
        ("timeout", TaskTimeout),
        ("limit", TaskOverLimit),
        ("environment", EnvironmentFailed),
        ("program", ProgramFailed),
        ("lost_nodes", TaskLostNodes),
        ("cancelled", JobCancelled),
        ("raised", TaskFailed),
    ],
)
def test_each_kind_has_its_exception(kind, expected):
    error = exception_of(Failure(index=7, kind=kind, message="what happened", node="desk"))
    assert type(error) is expected
    assert "what happened" in str(error)
    assert error.__notes__ == ["task 7 on node desk"]


def test_a_failure_without_a_message_says_what_it_is():
    assert str(exception_of(Failure(index=0, kind="lost_nodes"))) == TaskLostNodes.__doc__
