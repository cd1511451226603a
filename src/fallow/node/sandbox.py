"""What keeps a slot from the computer that it runs on: the seam between a slot's start and the level that contains it.

A sandbox gets a `Launch`, which says what is to run and what of the computer it may see, and returns the started channel.
It knows nothing of jobs or tasks. One implementation per level in `fallow.node.sandboxes`; all pass the same conformance
suite (tests/integration/node/sandboxes).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from fallow.model.containment import Containment
from fallow.model.levels import Level
from fallow.node.accounts import Accounts
from fallow.node.channel import Channel, ChannelKind, ChannelOwner

ENTRY_POINTS = "fallow.sandboxes"
"""Entry points of installed packages that are sandboxes: under the name of a level, which they take over, a callable that gets
the agent's folder.
"""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The start of one slot. All paths are absolute and are the same inside and outside of the sandbox."""

    command: Sequence[str]
    """The slot program as it would be started without a sandbox, but for its last argument, the control pipe."""
    environment: Mapping[str, str]
    """Its variables: the owner's without the grid's secrets. A sandbox drops what is the owner's alone (`public`)."""
    folder: Path
    """The slot's own, which exists: the only one that it may write to. Removed after the slot's end."""
    home: Path
    """The agent's folder: nothing in it may be seen but `folder` and what is `readable`."""
    containment: Containment
    """Network, limits and image. Limits are enforced outside (`fallow.node.limits`) unless `Sandbox.limits` is true."""
    readable: Sequence[Path] = ()
    """Files and folders that it may read beside the system's: the slot program, and one in which the agent puts blobs and
    sources for it while it runs. Those that are not there are left out. What the interpreter reads is another matter: see
    `fallow.node.sandboxes.paths`."""
    prefix: Sequence[str] = ()
    """What to put before whatever is started, so that it runs under the agent's limits."""
    accounts: Accounts | None = None
    """Where a sandbox that enforces limits itself tells what the slot uses."""
    work_folder: Path | None = None
    """Where it works if it is not contained; else it works in `folder`."""
    channel: ChannelKind = "threaded"
    """How pipes are served, where there are pipes."""


class Sandbox(Protocol):
    """One level on one node."""

    level: Level
    limits: bool
    """Whether it enforces memory, processes and CPU itself, as a container engine does."""

    async def obstacle(self) -> str | None:
        """Return why it can't work here, None if it may. A quick look; the proof is a task that runs in it."""
        ...

    async def prepare(self, containment: Containment, archive: Path | None) -> Containment:
        """Get what slots of this containment need before `start`, a container's image, and return the containment that
        `start` is to have: one that names the image by its digest. archive: the image, if the job brings it along.

        Raises EnvironmentFailed (fallow.model.errors) if it can't be had.
        """
        ...

    def start(self, launch: Launch, owner: ChannelOwner) -> Channel:
        """Start a slot; returns at once. Raises OSError if it can't be started.

        When its process ends, for whatever reason, everything that its tasks have started ends too. `channel_ended` gives
        the slot's own exit status, as `Popen.returncode` does, whatever processes the sandbox puts around it.
        """
        ...

    def close(self) -> None:
        """The agent stops; all slots have ended."""
        ...


def open_sandbox(level: Level, home: Path) -> Sandbox:
    """Return the sandbox of a level, of an installed package or ours; whether it works is another question. home: the agent's
    folder.
    """
    if level == "process":
        from fallow.node.sandboxes.process import ProcessSandbox

        return ProcessSandbox()
    for entry in entry_points(group=ENTRY_POINTS, name=level):
        make: Callable[[Path], Sandbox] = entry.load()
        return make(home)
    if level == "container":
        from fallow.node.sandboxes.container import ContainerSandbox

        return ContainerSandbox(home)
    if level == "confined":
        from fallow.node.sandboxes.confined import ConfinedSandbox

        return ConfinedSandbox()
    from fallow.node.sandboxes.bubblewrap import BubblewrapSandbox

    return BubblewrapSandbox()
