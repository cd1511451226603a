"""A slot's process with its pipes: the seam between what slots say and how an operating system carries it.

Two implementations: `watched` (the event loop watches the descriptors; Linux) and `threaded` (threads serve them; any
system). Which one is used is `fallow.node.platform.CHANNEL`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

ChannelKind = Literal["watched", "threaded"]


class ChannelOwner(Protocol):
    """Who is told what comes. All calls come on the event loop's thread."""

    def channel_data(self, data: bytes) -> None:
        """Some bytes of the slot's messages."""
        ...

    def channel_noise(self, text: bytes) -> None:
        """What was written to fd 1 and 2, by tasks' children or C code."""
        ...

    def channel_ended(self, status: int, peak_memory_bytes: int) -> None:
        """The process has ended, with this `Popen.returncode`, and everything that it had written was told. Called once,
        but not after `close`.
        """
        ...


class Channel(Protocol):
    """One process."""

    pid: int

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> None:
        """Start the command, with one argument more that names the control pipe. folder: where it works.

        Raises OSError if it can't be started.
        """
        ...

    def write(self, data: bytes) -> None:
        """Send messages; never blocks. From any thread."""
        ...

    def write_control(self, message: bytes) -> None:
        """Send one message of a header on the control pipe; it is dropped if the pipe is full."""
        ...

    def drain_noise(self) -> None:
        """Tell at once what has come of noise, so that it comes before what is to be handled now."""
        ...

    def kill(self) -> None:
        """End the process and everything that it started. `channel_ended` follows."""
        ...

    def close(self) -> None:
        """The same without telling the owner; returns when the process is gone."""
        ...


def open_channel(kind: ChannelKind, owner: ChannelOwner) -> Channel:
    """Return a channel that is not started yet."""
    if kind == "watched":
        from fallow.node.channels.watched import WatchedChannel

        return WatchedChannel(owner)
    from fallow.node.channels.threaded import ThreadedChannel

    return ThreadedChannel(owner)
