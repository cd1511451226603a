"""Failures that a node finds by itself, rather than its slots."""

from collections.abc import Iterator

from fallow.model.failure import Failure
from fallow.model.page import ResultPage

FULL_LOGS = 4
"""Tasks of a lease whose failure holds the whole log of an environment that can't be built …"""
SHORT_LOG = 300
"""… and the characters of it that the others hold."""


def failed_page(start: int, stop: int, type_name: str, message: str, node: str) -> ResultPage:
    """Return the results of tasks that all failed of the same."""
    failures = tuple(
        Failure(index=index, kind="raised", type_name=type_name, message=message, node=node)
        for index in range(start, stop)
    )
    return ResultPage(start, stop, kept=(), failures=failures)


def lacking(start: int, stop: int, reason: str, node: str) -> Iterator[Failure]:
    """Yield failures of tasks that this node lacks something for: others may have it."""
    for index in range(start, stop):
        message = reason if index - start < FULL_LOGS else f"…{reason[-SHORT_LOG:]}"
        yield Failure(index=index, kind="environment", message=message, node=node, is_of_node=True)
