"""Building environments: what a builder must do, and which ones this node has.

A builder turns a lock into a folder with an interpreter. It need not care about caching, concurrency, crashes or sizes: all of
these are `Environments`' business. How to add one of your own: docs/environments.md.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import psutil

from fallow.model.environment import EnvironmentLock
from fallow.model.errors import EnvironmentFailed
from fallow.model.ids import Digest

ENTRY_POINTS = "fallow.environment_builders"
"""Entry points of installed packages that are builders: a callable without arguments each, under the builder's name."""
LOG_BYTES = 12 * 1024
"""What is kept of a failed build's output: its end, as that says what went wrong. It has to fit into a failure."""
PACKAGES = "packages"
"""Folder beside those of environments where builders may keep what they have downloaded. It is emptied when it grows too large."""
RUNNING = "builder.pid"
"""File in a build's folder that names the process at work there, so that the agent after a killed one can end it."""
BUILD_TIMEOUT_S = 3600.0
"""A build that takes longer hangs."""
END_TIMEOUT_S = 10.0
"""How long a killed process may take to go."""


class BuildKilled(EnvironmentFailed):
    """A program of the build was ended by a signal, as by somebody who frees memory: nothing is wrong with the lock."""


class Builder(Protocol):
    """One way to build environments."""

    name: str
    """The word in `EnvironmentLock.builder`."""

    def obstacle(self) -> str | None:
        """Return why it can't work on this computer, for people; None if it can."""
        ...

    async def build(self, lock: EnvironmentLock, wheels: Mapping[Digest, Path], folder: Path) -> Path:
        """Build into `folder`, which is empty, and return the path of the interpreter in it.

        wheels: where the blobs of `lock.wheels` lie. Must verify whatever it downloads against the lock, must run no code of the
        packages, and must end what it has started when it is cancelled. Raises EnvironmentFailed, with the log.
        """
        ...


def find_builders(own: Sequence[Builder]) -> dict[str, Builder]:
    """Return all builders by name: our own, and those of installed packages."""
    found = {builder.name: builder for builder in own}
    for entry in entry_points(group=ENTRY_POINTS):
        make: Callable[[], Builder] = entry.load()
        found[entry.name] = make()
    return found


async def run_step(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, *, may_fail: bool = False
) -> str:
    """Run one program of a build, in `folder`; return what it printed. Ended, with all that it started, on cancellation.

    Raises EnvironmentFailed with the end of its output if it fails, unless it may, or takes over BUILD_TIMEOUT_S; BuildKilled if a
    signal ended it.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            cwd=folder,
            start_new_session=os.name == "posix",
        )
    except OSError as error:
        raise EnvironmentFailed(f"{command[0]} can't be run: {error}") from error
    assert process.stdout is not None
    kept = b""
    try:
        _note(process.pid, folder / RUNNING)
        async with asyncio.timeout(BUILD_TIMEOUT_S):
            while data := await process.stdout.read(1 << 16):
                kept = (kept + data)[-LOG_BYTES:]
            code = await process.wait()
    except TimeoutError as error:
        raise EnvironmentFailed(f"took over {BUILD_TIMEOUT_S:.0f} s\n{_text(kept)}") from error
    finally:
        if process.returncode is None:
            _end(process)
            await process.wait()
        with contextlib.suppress(OSError):
            (folder / RUNNING).unlink(missing_ok=True)
    if code < 0:
        raise BuildKilled(f"{_text(kept)}\n{Path(command[0]).name} was ended by signal {-code}".lstrip())
    if code and not may_fail:
        raise EnvironmentFailed(_text(kept) or f"{command[0]} ended with exit code {code}")
    return _text(kept)


def end_left(folder: Path) -> None:
    """End what a killed agent's build has left running in a folder: it would go on filling it."""
    try:
        pid, started = (folder / RUNNING).read_text().split()
        process = psutil.Process(int(pid))
        if str(process.create_time()) == started:
            os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
            process.wait(END_TIMEOUT_S)
    except (OSError, ValueError, psutil.Error):
        return  # it has ended


def _note(pid: int, file: Path) -> None:
    with contextlib.suppress(OSError, psutil.Error):
        file.write_text(f"{pid} {psutil.Process(pid).create_time()}")


def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()
