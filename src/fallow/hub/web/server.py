"""Serving a hub over HTTP: one socket, one event loop, a drain at SIGTERM or SIGINT."""

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn

from fallow.hub.core.hub import Hub
from fallow.hub.web.app import WebApp
from fallow.hub.web.links import link_protocol
from fallow.hub.web.settings import WebSettings
from fallow.model.errors import BadRequest

SWITCH_INTERVAL_S = 0.0002
"""How long the journal's thread may keep the interpreter from the event loop. The default of 5 ms would be ten times
what a frame's whole way through the hub takes."""
GARBAGE = (10_000, 20, 20)
"""How many new objects, and rounds over younger ones, come before the interpreter looks for cycles. The hub makes next to
none, and the default of 700 objects cost a fifth of its time under load."""
DRAIN_S = 5.0
"""How long requests that are under way may take to end once the hub was told to stop."""
BACKLOG = 2048
"""Connections that may wait to be accepted: a lab of nodes that reconnect at once after a restart."""


class _Server(uvicorn.Server):
    """Leaves the signals to `serve`: the hub has to stop after the server, and the exit code is ours."""

    on_started: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_started()


def listen(host: str, port: int) -> socket.socket:
    """Open the socket; raises BadRequest that names the port and what to do. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise BadRequest(_refusal(host, port, error)) from error
    listener.setblocking(False)
    return listener


def _refusal(host: str, port: int, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {port} of {host} is in use (by another hub?); choose another with --port"
    if number == errno.EACCES:
        return f"port {port} is for administrators only; choose one above 1023 with --port"
    if isinstance(error, OverflowError):
        return f"{port} is no port number; --port takes 0 to 65535"
    return f"can't listen on {host}, port {port}: {error}; see --host and --port"


def address_of(listener: socket.socket) -> str:
    """Write where the socket listens as a URL; "every address" is written as this computer's own."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    hub: Hub,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    *,
    settings: WebSettings = WebSettings(),
) -> int:
    """Start the hub and serve it until SIGTERM or SIGINT; return the process's exit code.

    on_ready: called with the address once requests are answered. Raises FallowError if starting failed.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with listen(host, port) as listener:  # first: a port in use must not cost a start of the hub
        await hub.start()
        gc.freeze()  # what is loaded now stays
        gc.set_threshold(*GARBAGE)
        try:
            await _serve(hub, WebApp(hub, settings), listener, on_ready)
        finally:
            await hub.stop()
    return 0


async def _serve(hub: Hub, app: WebApp, listener: socket.socket, on_ready: Callable[[str], None]) -> None:
    address = address_of(listener)
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            ws=link_protocol(hub),
            timeout_graceful_shutdown=int(DRAIN_S),
        )
    )
    server.on_started = lambda: on_ready(address)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)

    def stop() -> None:
        if server.should_exit:
            server.force_exit = True  # asked twice: do not wait for requests
        server.should_exit = True
        app.close()

    with _signals(stop):
        try:
            await server.serve(sockets=[listener])
        finally:
            app.close()


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere, whoever runs us there stops us
        for number in numbers:
            try:
                loop.add_signal_handler(number, stop)
            except NotImplementedError:  # Windows
                previous[number] = signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        for number in numbers:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.remove_signal_handler(number)
        for number, handler in previous.items():
            signal.signal(number, handler)
