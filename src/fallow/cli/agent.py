"""Running a node's agent for `fallow node`: settings from options, signals, exit codes."""

import asyncio
from pathlib import Path

from fallow.cli.config import make_folder, require_hub, state_path
from fallow.cli.logs import log_to_stderr
from fallow.cli.loop import on_signals, run_loop
from fallow.link.link import Link
from fallow.link.websocket import dial
from fallow.model.errors import BadRequest
from fallow.model.levels import at_least, parse_level
from fallow.model.requirements import parse_size
from fallow.node.agent import Agent
from fallow.node.machine import host_name, total_memory, usable_cores
from fallow.node.settings import NodeSettings
from fallow.packages.reaching import HubPackages

NAME_LENGTH = 100


def run_node(
    *,
    hub: str | None,
    token_file: str | None,
    slots: int | None,
    cores: int | None,
    memory: str | None,
    reserve: str,
    environments: str,
    name: str | None,
    tags: str,
    sandbox: str | None,
    min_sandbox: str,
    state: str | None,
    verbose: bool,
) -> int:
    """Run a node until it is stopped; return the exit code. Raises FallowError if it can't go on."""
    lent = cores or usable_cores()
    url, token = require_hub(hub, Path(token_file) if token_file else None)
    settings = NodeSettings(
        folder=Path(state) if state else state_path("node"),
        name=_check_name(name or host_name()),
        slots=slots or lent,
        cores=lent,
        memory_bytes=parse_size(memory, "--memory") if memory is not None else total_memory(),
        tags=_read_tags(tags),
        reserve_bytes=parse_size(reserve, "--reserve"),
        environments_bytes=parse_size(environments, "--environments"),
        hub_packages=HubPackages(url, token),
        sandbox=None if sandbox is None else parse_level(sandbox, "--sandbox"),
        min_sandbox=parse_level(min_sandbox, "--min-sandbox"),
        is_alone=True,
    )
    if settings.sandbox is not None and not at_least(settings.sandbox, settings.min_sandbox):
        raise BadRequest(f"--sandbox {settings.sandbox} is weaker than --min-sandbox {settings.min_sandbox}")
    make_folder(settings.folder)
    log_to_stderr(verbose=verbose)
    return run_loop(_run(settings, url, token))


def _check_name(name: str) -> str:
    if not (0 < len(name) <= NAME_LENGTH and name.isprintable()):
        raise BadRequest(f"--name {name!r} is not a printable text of 1 to {NAME_LENGTH} characters")
    return name


def _read_tags(text: str) -> tuple[str, ...]:
    tags = sorted({tag.strip() for tag in text.split(",")} - {""})
    for tag in tags:
        if len(tag) > NAME_LENGTH or not tag.isprintable() or " " in tag:
            raise BadRequest(f"--tags: {tag!r} is not a word")
    return tuple(tags)


async def _run(settings: NodeSettings, url: str, token: str) -> int:
    has_connected = False

    async def connect() -> Link:
        nonlocal has_connected
        link = await dial(url, token, "node")
        if not has_connected:
            has_connected = True
            lent = f"{settings.slots} slots on {settings.cores} cores"
            print(f"{settings.name} has joined {url} with {lent}; Ctrl-C stops it", flush=True)
        return link

    agent = Agent(settings, connect)
    running = asyncio.create_task(agent.run())
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        if not stopping:
            stopping.append(asyncio.create_task(agent.stop()))

    with on_signals(stop):
        await running
        await asyncio.gather(*stopping)
    return 0
