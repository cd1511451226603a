"""No sandbox: a process group of its own, under the agent's user. Tasks can do what the agent can."""

from pathlib import Path

from fallow.model.containment import Containment
from fallow.model.levels import Level
from fallow.node.channel import Channel, ChannelOwner, open_channel
from fallow.node.sandbox import Launch


class ProcessSandbox:
    """See `Sandbox`."""

    level: Level = "process"
    limits = False

    async def obstacle(self) -> str | None:
        return None

    async def prepare(self, containment: Containment, archive: Path | None) -> Containment:
        return containment

    def start(self, launch: Launch, owner: ChannelOwner) -> Channel:
        channel = open_channel(launch.channel, owner)
        channel.start([*launch.prefix, *launch.command], launch.environment, launch.work_folder)
        return channel

    def close(self) -> None:
        pass
