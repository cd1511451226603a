"""A node with a sandbox, and hostile tasks for it; the test is its hub.

A level joins the suite by one entry in `LEVELS`: the fields of a job that runs in it.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fallow.model.containment import Containment, parse_limits
from fallow.model.requirements import Requirements

hostile_tasks = SimpleNamespace(__name__="__main__")
exec(Path(__file__).with_name("hostile.py").read_text(), vars(hostile_tasks))  # so that they travel by value

LEVELS = [
    pytest.param("bubblewrap", marks=pytest.mark.service("bubblewrap")),
    pytest.param("container", marks=pytest.mark.service("dockerd")),
]
"""Levels that keep a task from everything outside."""


class Contained:
    """Runs single tasks in a sandbox on a real agent."""

    def __init__(self, hub, level, address):
        """address: of this computer, where a task with a network reaches it."""
        self.hub = hub
        self.level = level
        self.made_up = {"/etc/hostname"} if level == "container" else set()
        """Files that a sandbox makes for the task: what they hold is not the computer's."""
        self.address = address

    def node(self, **fields):
        """Run an agent for the block."""
        return self.hub.node(sandbox=self.level, **fields)

    def job(self, function, *arguments, limits=None, network=None, **fields):
        return self.hub.job(
            ["call"],
            [function],
            calls=[(arguments, {})],
            requirements=Requirements(sandbox=self.level),
            containment=Containment(network=network, limits=parse_limits(limits)),
            **fields,
        )

    async def run(self, function, *arguments, **fields):
        """Return what a task returns, or its failure."""
        job = self.job(function, *arguments, **fields)
        await self.hub.run(job, 1)
        failures = self.hub.failures(job)
        if failures:
            print(failures[0])  # which says why a test fails
            return failures[0]
        return self.hub.values(job)[0]


@pytest.fixture
def hostile():
    return hostile_tasks


@pytest.fixture(params=LEVELS)
def level(request):
    return request.param


@pytest.fixture
def contained(request, hub, level):
    address = "127.0.0.1"
    if level == "container":
        request.getfixturevalue("docker")
        address = request.getfixturevalue("daemon").address
    return Contained(hub, level, address)
