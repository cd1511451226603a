"""A container engine: the seam between slots in containers and the program that runs containers.

An engine knows images and containers and nothing of slots. Its calls block, come from any thread, and may come at the same time. One
implementation is `fallow.node.engines.docker`; all pass one conformance suite (tests/integration/node/containers).
How to add one of your own: docs/extending.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from fallow.model.containment import Limits

ENTRY_POINTS = "fallow.container_engines"
"""Entry points of installed packages that are engines: a callable without arguments each. They are tried before ours."""


class EngineFailed(OSError):
    """What the container engine said when it could not do something."""


@dataclass(frozen=True)
class Mount:
    """A file or folder of the computer, at the same path inside."""

    path: Path
    is_writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Order:
    """A container that is to run."""

    image: str
    """As `Engine.find` or `Engine.load` has it."""
    command: Sequence[str]
    """Program and arguments; a program without a slash is looked for on the PATH of the image."""
    folder: Path
    """Where it works; one of the mounts."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside the image's own variables."""
    mounts: Sequence[Mount] = ()
    user: tuple[int, int] | None = None
    """User and group inside; the engine replaces them where it maps users itself."""
    network: bool = False
    """Whether it reaches the network; else it has a loopback interface only."""
    limits: Limits = field(default_factory=Limits)
    """Memory, processors and processes; files are watched from outside."""
    label: str = ""
    """Whose it is, for `Engine.sweep`."""


class Engine(Protocol):
    """One container engine. Containers can write to what is mounted as writable and to /tmp only, which is in memory, have no
    privileges, and can't get any. They end when their first process ends, with all others.
    """

    def describe(self) -> str:
        """Return the engine's name and version. Raises EngineFailed if it does not answer."""
        ...

    def find(self, name: str) -> str:
        """Return the id of an image, a digest, and pull it first if it is not here. Raises EngineFailed."""
        ...

    def load(self, archive: Path) -> str:
        """Take an image from a tar file, of `docker save` or a plain root filesystem, and return its id. What was taken once is
        found again. Raises EngineFailed.
        """
        ...

    def create(self, order: Order) -> str:
        """Make a container that does not run yet; return its id. Raises EngineFailed."""
        ...

    def start(self, container: str) -> None:
        """Start it. Raises EngineFailed, as where the image has no such program."""
        ...

    def wait(self, container: str) -> int:
        """Wait for its end; return the exit code of its first process. Raises EngineFailed."""
        ...

    def output(self, container: str) -> str:
        """Return the end of what its first process wrote to stdout and stderr, at most some kilobytes."""
        ...

    def kill(self, container: str) -> None:
        """End it; nothing if it has ended."""
        ...

    def remove(self, container: str) -> None:
        """Forget it, and end it if need be; nothing if it is not there."""
        ...

    def sweep(self, label: str) -> int:
        """Remove all containers of that label, which an agent that was killed has left; return how many there were."""
        ...

    def close(self) -> None:
        """Close the connection to it; a later call opens one again."""
        ...


def open_engine() -> Engine:
    """Return the engine to use: that of an installed package, or ours for Docker and Podman. It may turn out not to answer."""
    for entry in entry_points(group=ENTRY_POINTS):
        make: Callable[[], Engine] = entry.load()
        return make()
    from fallow.node.engines.docker import DockerEngine

    return DockerEngine()
