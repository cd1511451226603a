"""Links between nodes and the hub: latency, and what goes wrong on the way."""

from random import Random
from typing import TYPE_CHECKING, Any

from fallow.simulator.clock import Clock
from fallow.simulator.plan import Faults

if TYPE_CHECKING:
    from fallow.simulator.hub import SimHub
    from fallow.simulator.node import SimNode

LONGEST_DELAY_S = 2.0
"""Of frames that are held up."""


class SimLink:
    """One connection. Frames in flight are lost with it."""

    __slots__ = ("hub_is_mute", "is_open", "node", "node_is_mute")

    def __init__(self, node: "SimNode") -> None:
        self.node = node
        self.is_open = True
        self.hub_is_mute = False
        self.node_is_mute = False


class Network:
    """Carries frames, in order unless a fault delays one."""

    def __init__(self, clock: Clock, random: Random, latency_s: float, faults: Faults) -> None:
        self._clock = clock
        self._random = random
        self._latency_s = latency_s
        self._faults = faults
        self._is_faulty = bool(faults.lost or faults.doubled or faults.delayed)
        self.is_calm = False
        """No faults any more."""
        self.frames = 0

    def to_hub(self, link: SimLink, hub: "SimHub", frame: Any) -> None:
        if not link.node_is_mute:
            self._carry(_at_hub, link, hub, frame)

    def to_node(self, link: SimLink, frame: Any) -> None:
        if not link.hub_is_mute:
            self._carry(_at_node, link, None, frame)

    def _carry(self, deliver: Any, link: SimLink, hub: "SimHub | None", frame: Any) -> None:
        self.frames += 1
        if not self._is_faulty or self.is_calm:
            self._clock.post(self._latency_s, deliver, link, hub, frame)
            return
        random, faults = self._random, self._faults
        if random.random() < faults.lost:
            return
        for _ in range(2 if random.random() < faults.doubled else 1):
            late_s = random.uniform(0, LONGEST_DELAY_S) if random.random() < faults.delayed else 0.0
            self._clock.post(self._latency_s + late_s, deliver, link, hub, frame)


def _at_hub(link: SimLink, hub: "SimHub", frame: Any) -> None:
    if link.is_open:
        hub.on_frame(link, frame)


def _at_node(link: SimLink, hub: None, frame: Any) -> None:
    if link.is_open:
        link.node.on_frame(link, frame)
