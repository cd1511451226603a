"""Containers: each slot has one of its own, made from any image with a Python or, if none is asked for, from nothing but the
system's programs and the agent's interpreter, read-only.

What a slot shares with its agent lies at the same paths inside: its own folder, which alone can be written to, and read-only the
slot program, and what it was given of blobs and sources. Nothing of the agent's environment goes in.
"""

import asyncio
import contextlib
import io
import os
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from fallow.model.containment import Containment
from fallow.model.errors import EnvironmentFailed
from fallow.model.levels import Level
from fallow.node.accounts import Accounts
from fallow.node.channel import Channel, ChannelOwner
from fallow.node.channels.contained import ContainedChannel
from fallow.node.engine import Engine, EngineFailed, Mount, Order, open_engine
from fallow.node.environment import THREAD_VARIABLES
from fallow.node.limits import OWN_PROCESSES
from fallow.node.sandbox import Launch
from fallow.node.sandboxes import paths

NOBODY = 65534
"""User and group inside if the agent is root."""
OLDEST = (3, 11)
"""Of the slot program's Python."""
TELL_VERSION = "import sys; print(*sys.version_info[:2])"
OF_ENGINE = {"hosts", "resolv.conf"}
"""What an engine puts into /etc itself."""
THREADS = 4
"""For images: others wait while so many are being fetched."""


class ContainerSandbox:
    """See `Sandbox`."""

    level: Level = "container"
    limits = True

    def __init__(self, home: Path, engine: Engine | None = None) -> None:
        """home: the agent's folder. engine: None for the usual one."""
        self._label = sha256(os.fsencode(home.absolute())).hexdigest()[:16]
        self._engine = engine
        self._threads = asyncio.Semaphore(THREADS)
        self._opening = threading.Lock()
        self._is_swept = False
        self._bare = ""
        """The image that is empty."""
        self._fetching: dict[str, asyncio.Lock] = {}
        self._programs: dict[tuple[str, str | None], str] = {}
        """The interpreters of images, by the version that was asked for."""

    async def obstacle(self) -> str | None:
        if sys.platform != "linux":
            return "containers need an agent that runs on Linux"
        try:
            await self._in_thread(self._open)
        except EngineFailed as error:
            return str(error)
        return None

    async def prepare(self, containment: Containment, archive: Path | None) -> Containment:
        key = containment.image or containment.image_archive
        if key is None:
            return containment
        async with self._fetching.setdefault(key, asyncio.Lock()):
            try:
                await self._in_thread(self._open)
                engine = self._usual_engine()
                image = await self._in_thread(partial(engine.load, archive) if archive else partial(engine.find, key))
                if (image, containment.python) not in self._programs:
                    work = partial(self._find_python, image, containment.python)
                    self._programs[image, containment.python] = await self._in_thread(work)
            except EngineFailed as error:
                raise EnvironmentFailed(str(error)) from error
        return msgspec.structs.replace(containment, image=image, image_archive=None)

    def start(self, launch: Launch, owner: ChannelOwner) -> Channel:
        containment = launch.containment
        image, command = containment.image, list(launch.command)
        mounts = [Mount(launch.folder, is_writable=True)]
        mounts += [Mount(path) for path in launch.readable if path.exists()]
        if image is None:
            mounts += [Mount(path) for path in _system(command[0])]
        else:
            command[0] = self._programs[image, containment.python]
        user = _user()
        _hand_over(launch.folder, user)
        limits = containment.limits
        if limits.processes is not None:
            limits = msgspec.structs.replace(limits, processes=limits.processes + OWN_PROCESSES)
        order = Order(
            image=image or "",
            command=command,
            folder=launch.folder,
            mounts=mounts,
            user=user,
            network=bool(containment.network),
            limits=limits,
            label=self._label,
        )
        variables = {name: value for name, value in launch.environment.items() if name in THREAD_VARIABLES}
        channel = ContainedChannel(owner, self._usual_engine(), order, launch.accounts or Accounts(), self._create)
        channel.start(command, {**variables, "HOME": "/tmp"}, launch.folder)  # noqa: S108 - it is the container's own
        return channel

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Do what blocks. The thread ends with the program, however long a registry takes: no executor's would."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def tell(result: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_result(result) if error is None else done.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as problem:
                error = problem
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(tell, result, error)

        async with self._threads:
            threading.Thread(target=run, name="fallow-image", daemon=True).start()
            return await done

    # --- in threads ---

    def _usual_engine(self) -> Engine:
        if self._engine is None:
            self._engine = open_engine()
        return self._engine

    def _open(self) -> None:
        """Find the engine, and clean up after an agent that was killed: once, before there are containers of ours."""
        engine = self._usual_engine()
        engine.describe()
        with self._opening:
            if not self._is_swept:
                engine.sweep(self._label)
                with tempfile.NamedTemporaryFile(suffix=".tar") as file:
                    file.write(_empty_image())
                    file.flush()
                    self._bare = engine.load(Path(file.name))
                self._is_swept = True

    def _create(self, order: Order) -> str:
        """Make a slot's container; of the empty image where none is named, which may be the first that is asked of the engine."""
        if not order.image:
            if not self._bare:
                self._open()
            order = replace(order, image=self._bare)
        return self._usual_engine().create(order)

    def _find_python(self, image: str, python: str | None) -> str:
        """Return the program in an image that is a Python of that minor version."""
        engine = self._usual_engine()
        names = ["python3", "python"] if python is None else [f"python{python}", "python3", "python"]
        found: list[str] = []
        words = ""
        for name in names:
            order = Order(
                image=image, command=[name, "-c", TELL_VERSION], folder=Path("/"), user=_user(), label=self._label
            )
            container = engine.create(order)
            try:
                engine.start(container)
                code = engine.wait(container)
                said = engine.output(container).split()
            except EngineFailed as error:
                words = str(error)
                continue
            finally:
                engine.remove(container)
            if code == 0 and len(said) == 2 and all(word.isdigit() for word in said):
                version = ".".join(said)
                if version == python or (python is None and (int(said[0]), int(said[1])) >= OLDEST):
                    return name
                found.append(version)
        needed = f"Python {python}" if python is not None else "Python 3.11 or newer"
        has = f"has Python {', '.join(dict.fromkeys(found))}" if found else f"has none: {words}"
        raise EnvironmentFailed(f"the image has to have {needed} on its PATH to run tasks, but {has}")


def _user() -> tuple[int, int]:
    return (os.getuid(), os.getgid()) if os.getuid() else (NOBODY, NOBODY)


def _hand_over(folder: Path, user: tuple[int, int]) -> None:
    """Give a slot's folder to the user inside."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *user, follow_symlinks=False)


def _system(python: str) -> Sequence[Path]:
    """Return what of the computer a slot sees that has no image."""
    settings = [Path("/etc") / name for name in paths.SETTINGS if name not in OF_ENGINE]
    return [path for path in (*map(Path, paths.SYSTEM), *settings, *paths.of_interpreter(python)) if path.exists()]


def _empty_image() -> bytes:
    """Build the tar file of a root filesystem with nothing in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        folder = tarfile.TarInfo("usr")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    return data.getvalue()
