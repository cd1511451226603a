"""A channel to a slot in a container: its pipes are connections that it makes to a socket in its folder (fallow.slot.contained).

One thread per slot orders the container, waits for its end and removes it; all else is on the event loop, as for slots
whose pipes are watched. A container ends when its keeper's connection does, so also with its agent.
"""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fallow.log import Logger
from fallow.node.accounts import Accounts
from fallow.node.channel import ChannelOwner
from fallow.node.channels.watched import WatchedChannel
from fallow.node.engine import Engine, EngineFailed, Order
from fallow.slot.protocol import CONNECTIONS, CONTAINED, STATE

SOCKET = "agent"
"""Name of the socket in the slot's folder."""
ASK_S = 0.1
"""What the keeper may take for an answer, for which the loop waits."""
CLOSE_WAIT_S = 10.0
CONNECT_S = 60.0
"""A container that has started connects within this, on the busiest computer."""

_log = Logger("fallow.node")


class ContainedChannel(WatchedChannel):
    """See `Channel`."""

    def __init__(
        self, owner: ChannelOwner, engine: Engine, order: Order, accounts: Accounts, create: Callable[[Order], str]
    ) -> None:
        """order: all but the command. accounts: gets to know what the container uses. create: makes it, in a thread; raises
        EngineFailed.
        """
        super().__init__(owner)
        self._create = create
        self._engine = engine
        self._order = order
        self._accounts = accounts
        self._listener: socket.socket
        self._connections: list[socket.socket] = []
        self._report: socket.socket | None = None
        self._reporting = threading.Lock()
        self._killed = threading.Event()
        self._container: str | None = None
        self._thread: threading.Thread
        self._patience: asyncio.TimerHandle | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None) -> None:
        assert folder is not None
        self._loop = asyncio.get_running_loop()
        self._listener = listen(folder)
        self._loop.add_reader(self._listener.fileno(), self._accept)
        command = [*command, f"{CONTAINED}{folder / SOCKET}"]
        order = replace(self._order, command=command, folder=folder, environment=environment)
        self._thread = threading.Thread(target=self._live, args=(order,), name="fallow-container", daemon=True)
        self._thread.start()

    def kill(self) -> None:
        if self._is_closed or self._killed.is_set():
            return
        self._killed.set()
        self._hang_up()  # the keeper ends, and with it all others, long before the engine has heard of it
        threading.Thread(target=self._kill_container, name="fallow-container-kill", daemon=True).start()

    def close(self) -> None:
        if self._is_closed:
            return
        self.kill()
        self._thread.join(CLOSE_WAIT_S)
        self._release()

    # --- the connections ---

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._connections) < CONNECTIONS:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._connections.append(connection)
        if len(self._connections) == CONNECTIONS and not self._killed.is_set():
            self._stop_listening()
            self._pipe, noise, control, self._report = self._connections
            self._connections = []
            self._noise, self._control = noise.detach(), control.detach()
            self._loop.add_reader(self._pipe.fileno(), self._readable)
            self._loop.add_reader(self._noise, self.drain_noise)
            self._accounts.ask = self._ask

    def _stop_listening(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def _ask(self) -> None:
        """Ask the keeper what the container uses. From any thread."""
        with self._reporting, contextlib.suppress(OSError):
            if self._report is not None:
                self._report.settimeout(ASK_S)
                self._report.send(b"?")
                self._hear(self._report.recv(STATE.size))

    def _hear(self, told: bytes) -> tuple[int, int] | None:
        """Note what the keeper says; return the slot's end and peak memory if it has ended."""
        if len(told) != STATE.size:
            return None
        has_ended, status, peak, memory_kills, refusals = STATE.unpack(told)
        self._accounts.note(peak, memory_kills, refusals)
        return (status, peak) if has_ended else None

    def _hang_up(self) -> None:
        with self._reporting:
            if self._report is not None:
                self._report.close()
                self._report = None

    def _started(self) -> None:
        if self._noise < 0 and not self._is_closed:
            self._patience = self._loop.call_later(CONNECT_S, self.kill)

    def _ended(self, code: int, problem: str) -> None:
        """The container has ended, or could not start. code: of its first process."""
        if self._is_closed:
            return
        end = (-signal.SIGKILL if self._killed.is_set() else code, 0)
        if self._noise >= 0:
            if self._report is not None:
                with contextlib.suppress(OSError):
                    self._report.settimeout(ASK_S)
                    while told := self._report.recv(STATE.size):
                        end = self._hear(told) or end
            while self._readable():
                pass
            self.drain_noise()
        elif problem:
            self._owner.channel_noise(problem.encode())
        self._release()
        self._owner.channel_ended(*end)

    def _release(self) -> None:
        self._is_closed = True
        self._stop_listening()
        for connection in self._connections:
            connection.close()
        self._hang_up()
        if self._noise >= 0:
            self._loop.remove_writer(self._pipe.fileno())
            self._loop.remove_reader(self._pipe.fileno())
            self._loop.remove_reader(self._noise)
            self._pipe.close()
            os.close(self._noise)
            os.close(self._control)

    # --- in threads ---

    def _live(self, order: Order) -> None:
        code, problem = 1, ""
        try:
            container = self._container = self._create(order)
            if not self._killed.is_set():
                self._engine.start(container)
                if self._killed.is_set():
                    self._engine.kill(container)
                self._post(self._started)
                code = self._engine.wait(container)
                if self._noise < 0 and not self._killed.is_set():
                    problem = self._engine.output(container) or f"its first process ended with exit code {code}"
        except EngineFailed as error:
            problem = str(error)
        self._post(self._ended, code, problem)
        self._remove()

    def _remove(self) -> None:
        try:
            if self._container is not None:
                self._engine.remove(self._container)
        except EngineFailed as error:
            _log.warning("a container is left over", container=self._container, error=str(error))

    def _kill_container(self) -> None:
        if self._container is not None:
            with contextlib.suppress(EngineFailed):  # it is gone, or the engine is
                self._engine.kill(self._container)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *arguments)


def listen(folder: Path) -> socket.socket:
    """Return a socket in a folder whose path may be longer than that of a socket may be."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        (folder / SOCKET).unlink(missing_ok=True)
        place = os.open(folder, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{place}/{SOCKET}")
        finally:
            os.close(place)
        (folder / SOCKET).chmod(0o777)  # its folder says who may come here
        listener.listen(CONNECTIONS)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
