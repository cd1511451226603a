"""The kernel refuses what lies outside: Landlock, a filter of system calls, and no privileges, old or new. The slot does it to itself before any user code runs
(`fallow.slot.confine`), so it costs no process.

Files outside can't be opened, and from Linux 6.12 on no process outside be signalled and no abstract socket be reached.
Other sockets than unix sockets are refused unless the network is asked for. But tasks see the computer's processes, may
ask for the names and sizes of files, and connect to unix sockets that their user may use.
"""

import json
import sys
from pathlib import Path

from fallow.model.containment import Containment
from fallow.model.levels import Level
from fallow.node import environment
from fallow.node.channel import Channel, ChannelOwner, open_channel
from fallow.node.sandbox import Launch
from fallow.node.sandboxes import paths
from fallow.slot import confine

UNSEEN_BYTES = 1 << 30
"""What a file may grow over the limit of disk space before the system itself stops it: by then it should have been seen."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class ConfinedSandbox:
    """See `Sandbox`."""

    level: Level = "confined"
    limits = False

    async def obstacle(self) -> str | None:
        if sys.platform != "linux":
            return "it needs Linux"
        if confine.landlock_version() < 1:
            return "this kernel has no Landlock (Linux 5.13 or later, built and started with it)"
        return None

    async def prepare(self, containment: Containment, archive: Path | None) -> Containment:
        return containment

    def start(self, launch: Launch, owner: ChannelOwner) -> Channel:
        for name in environment.PRIVATE_FOLDERS:
            (launch.folder / name).mkdir(exist_ok=True)
        readable = [
            *paths.SYSTEM,
            *(f"/etc/{name}" for name in paths.SETTINGS),
            paths.PROCESSORS,
            "/proc",
            *map(str, paths.of_interpreter(launch.command[0])),
            *map(str, launch.readable),
        ]
        disk = launch.containment.limits.disk_bytes
        rules = {
            "read": readable,
            "write": [*DEVICES, str(launch.folder)],
            "network": bool(launch.containment.network),
            "file_bytes": None if disk is None else disk + UNSEEN_BYTES,
        }
        variables = environment.of_sandbox(launch.environment, launch.folder, launch.folder / "tmp")
        channel = open_channel(launch.channel, owner)
        channel.start(
            [*launch.prefix, *launch.command], variables | {confine.VARIABLE: json.dumps(rules)}, launch.folder
        )
        return channel

    def close(self) -> None:
        pass
