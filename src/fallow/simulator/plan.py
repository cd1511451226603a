"""What is to be simulated: the fleet, its work, its faults."""

from typing import Literal

import msgspec

from fallow.model.requirements import Requirements


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, and how often. Intervals are means of exponential times, in seconds; 0: never."""

    agent_killed_s: float = 0.0
    """Per node: the agent dies with all that runs; it starts again a little later, its spool intact."""
    node_gone_s: float = 0.0
    """Per node: it vanishes without a word and comes back minutes later with nothing."""
    node_leaves_s: float = 0.0
    """Per node: it gives back what it has not started, finishes the rest, and goes; it joins again later."""
    link_cut_s: float = 0.0
    """Per node: the connection breaks; both ends notice, and the node dials again."""
    link_mute_s: float = 0.0
    """Per node: for a while nothing gets through in one direction, and nobody is told."""
    slowdown_s: float = 0.0
    """Per node: it becomes up to 20 times slower for a while."""
    hub_killed_s: float = 0.0
    """The hub dies, half of the times between two effects, loses what was not committed, and starts again."""
    lost: float = 0.0
    """Part of the frames that are lost."""
    doubled: float = 0.0
    delayed: float = 0.0
    """Part of the frames that arrive up to 2 s late, behind later ones."""
    raising: float = 0.0
    """Part of the attempts that raise an exception."""
    crashing: float = 0.0
    """Part of the attempts whose slot dies."""
    killers: int = 0
    """Tasks that take their node down whenever they run."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One job."""

    tasks: int
    durations: str = "pareto"
    median_s: float = 1.0
    at_s: float = 0.0
    """When it is submitted."""
    page: int = 4096
    """Inputs per page."""
    page_gap_s: float = 0.0
    """Time between pages."""
    priority: int = 0
    requirements: Requirements = Requirements()
    retries: int = 0
    speculate: bool = True
    reduces: bool = False
    counting: bool = False
    """Inputs are a range: no pages."""
    follows: int | None = None
    """Number of the job whose results are its inputs."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole simulation; the same plan gives the same run."""

    work: tuple[Work, ...]
    seed: int = 0
    nodes: int = 100
    slots: int = 1
    slowest: float = 1.0
    fastest: float = 1.0
    """Speeds of the nodes lie evenly between these."""
    score_error: float = 0.0
    """A node's published score is off by up to this part of its speed."""
    join_over_s: float = 0.0
    """Nodes join one after another over this time."""
    latency_s: float = 0.001
    """One way."""
    commit_s: float = 0.004
    """From a change to its commit."""
    faults: Faults = Faults()
    calm_after_s: float = float("inf")
    """No new faults from then on."""
    limit_s: float = 1e7
    """A run that takes longer is stuck."""
    state: Literal["memory", "sql"] = "memory"
    """What the hub commits to. "sql": SQLite in a temporary folder, in memory where the system has such folders."""
    check_every: int | None = None
    """Check the scheduler in full after every so many events. None: after each for up to 20 nodes, else every 10,000."""
