"""Namespaces of their own, by the program bwrap: no other process, no network unless asked, a read-only system, nothing of
the owner's.

The slot is process 2 of its sandbox, below bwrap's own process 1: when it ends, process 1 does, and with that the kernel ends
everything in there, double forks and all. Here bwrap may tie itself to its parent (`--die-with-parent`): slots are started
by the thread of the agent's event loop, which does not end before they do. So they end with the agent even if a task keeps
the slot from noticing.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from fallow.model.containment import Containment
from fallow.model.levels import Level
from fallow.node import environment
from fallow.node.channel import Channel, ChannelOwner, open_channel
from fallow.node.sandbox import Launch
from fallow.node.sandboxes import paths

SIGNALS = range(129, 193)
"""Exit codes by which bwrap tells that the slot was ended by a signal, of 128 less."""


class BubblewrapSandbox:
    """See `Sandbox`."""

    level: Level = "bubblewrap"
    limits = False

    async def obstacle(self) -> str | None:
        if sys.platform != "linux":
            return "it needs Linux"
        if shutil.which("bwrap") is None:
            return "the program bwrap is not installed (Debian: apt-get install bubblewrap)"
        return None

    async def prepare(self, containment: Containment, archive: Path | None) -> Containment:
        return containment

    def start(self, launch: Launch, owner: ChannelOwner) -> Channel:
        program = shutil.which("bwrap")
        if program is None:
            raise OSError("the program bwrap is not installed")
        for name in environment.PRIVATE_FOLDERS:
            (launch.folder / name).mkdir(exist_ok=True)
        channel = open_channel(launch.channel, _Inside(owner))
        variables = environment.of_sandbox(launch.environment, launch.folder, Path("/tmp"))  # noqa: S108 - a private one
        channel.start([*launch.prefix, program, *_options(launch), "--", *launch.command], variables, None)
        return channel

    def close(self) -> None:
        pass


def _options(launch: Launch) -> Iterator[str]:
    folder, home = str(launch.folder), str(launch.home)
    yield from (
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--cap-drop",
        "ALL",
        "--new-session",
        "--die-with-parent",
    )
    if launch.containment.network:
        yield "--share-net"
    for name in paths.SYSTEM:
        yield from _show(Path(name))
    for name in paths.SETTINGS:
        yield from _show(Path("/etc", name), follow=True)
    yield from _show(Path(paths.PROCESSORS))
    yield from ("--proc", "/proc", "--dev", "/dev", "--dir", "/home", "--dir", "/root", "--dir", "/run")
    yield from ("--bind", f"{folder}/tmp", "/tmp", "--symlink", "/tmp", "/var/tmp")  # noqa: S108 - a private one
    yield from ("--bind", f"{folder}/shm", "/dev/shm")  # noqa: S108
    yield from ("--tmpfs", home)  # whatever it lies in
    for path in (*paths.of_interpreter(launch.command[0]), *launch.readable):  # these may lie in /tmp
        yield from _show(path)
    yield from ("--bind", folder, folder, "--remount-ro", home, "--remount-ro", "/dev", "--remount-ro", "/")
    yield from ("--remount-ro", "/proc")  # what root owns in it root could write, even without capabilities
    yield from ("--chdir", folder)


def _show(path: Path, *, follow: bool = False) -> Iterator[str]:
    """Show a file or folder where it lies. follow: what it links to, there."""
    if not path.exists():
        return
    if path.is_symlink() and not follow:
        yield from ("--symlink", str(path.readlink()), str(path))
    else:
        yield from ("--ro-bind", str(path.resolve()) if follow else str(path), str(path))


class _Inside:
    """Passes on what a channel tells, with the slot's own exit status. The peak that it tells is that of bwrap."""

    def __init__(self, owner: ChannelOwner) -> None:
        self._owner = owner

    def channel_data(self, data: bytes) -> None:
        self._owner.channel_data(data)

    def channel_noise(self, text: bytes) -> None:
        self._owner.channel_noise(text)

    def channel_ended(self, status: int, peak_memory_bytes: int) -> None:
        self._owner.channel_ended(128 - status if status in SIGNALS else status, 0)
