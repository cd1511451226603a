"""Settings of a node's agent, parsed at the edge and passed down."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from fallow.model.levels import Level
from fallow.node import platform
from fallow.node.channel import ChannelKind
from fallow.packages.reaching import HubPackages


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """What one agent lends, and where it keeps its things."""

    folder: Path
    """The agent's own: node id, spool, cache of blobs, results on their way. Created if it is not there."""
    memory_folder: Path | None = None
    """A folder in memory, to be removed by whoever made it: large results lie there while it has room, those of slots without a sandbox or
    limits, as a control group would count them against the slot that wrote them."""
    hashes_results: bool = True
    """Name pages of large results by digest; else by a name that no other blob has, which takes no time: where they go to this
    process's own hub, which forgets them at its end."""
    name: str
    """For people."""
    slots: int = os.cpu_count() or 1
    """Tasks that run at a time."""
    cores: int = os.cpu_count() or 1
    """Cores lent; tasks reserve some of them."""
    memory_bytes: int
    """Memory lent; tasks reserve some of it."""
    tags: tuple[str, ...] = ()
    python: str = sys.executable
    """The interpreter that slots run in."""
    spool: bool = True
    """Keep unacknowledged results in files, so that a killed agent delivers them when it starts again. Embedded grids,
    whose hub ends with them, have no use for that."""
    probes: bool = True
    """Try, once it has joined, which sandboxes work beside the default one; else only when `Agent.probe` is called."""
    benchmark: bool = True
    """Measure the computer's speed once it has joined."""
    work_folder: Path | None = None
    """Working directory of slots; the agent's own if None."""
    cache_bytes: int = 10 << 30
    """Blobs kept on disk for later use."""
    environments_bytes: int = 20 << 30
    """Environments kept on disk; those that jobs need now are kept in any case."""
    shared_environments: Path | None = None
    """Where environments are kept for the next agent, too, if `folder` does not outlive this one. One agent at a time has it;
    others make do with their own folder."""
    hub_packages: HubPackages | None = None
    """Where packages come from when the computer's own index can't be reached."""
    channel: ChannelKind = platform.CHANNEL
    """How slots are connected; another than the system's best is for tests."""
    sandbox: Level | None = "process"
    """What tasks run in unless they ask for something stronger; None: the strongest that works without an image."""
    min_sandbox: Level = "process"
    """The owner lets no task run in anything weaker."""
    is_alone: bool = False
    """This process is the agent and nothing else: it may move to a control group of its own."""
    reserve_bytes: int = 256 << 20
    """Below this much free space in `folder` the node takes no new leases."""

    def __post_init__(self) -> None:
        """Make the folder's path absolute: it is the same in sandboxes, whatever folder they work in."""
        object.__setattr__(self, "folder", self.folder.absolute())
