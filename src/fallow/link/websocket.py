"""Links over WebSocket: `dial` for the end that connects; the hub's end is in `served.py`.

No compression: pages are compressed where that pays, by their makers.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State

from fallow.link.codec import MAX_MESSAGE_BYTES, FrameDecoder
from fallow.link.frames import ToClient, ToNode
from fallow.link.link import OnClosed, OnFrame
from fallow.link.queueing import QueueingLink
from fallow.log import Logger
from fallow.model.errors import BadRequest, Denied, Forbidden, Unavailable

Kind = Literal["client", "node"]

DIAL_TIMEOUT_S = 10.0
"""How long opening a connection may take, TLS included."""
PING_S = 20.0
"""The dialling end pings this often: keeps NAT mappings alive (30 s in the strictest home routers) and finds dead peers."""
CLOSE_TIMEOUT_S = 2.0

_to_dialler = {"client": FrameDecoder(ToClient), "node": FrameDecoder(ToNode)}
_log = Logger("fallow.link")


class _Connection(ClientConnection):
    """Hands each message over as soon as it is parsed, instead of waking a task that waits for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_message: Callable[[bytes], None] | None = None
        self.on_writable: Callable[[], None] = _nothing
        self._waiting: list[bytes] = []
        self._parts: list[bytes] = []

    def listen(self, on_message: Callable[[bytes], None]) -> None:
        """Hand over what has come already and all that follows."""
        self.on_message = on_message
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            on_message(message)

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        self._parts.append(bytes(event.data))
        if event.fin:
            message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts = []
            if self.on_message is None:
                self._waiting.append(message)
            else:
                self.on_message(message)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.on_writable()


def _nothing() -> None:
    pass


class DialledLink(QueueingLink):
    """The connecting end."""

    def __init__(self, connection: _Connection, kind: Kind, peer: str) -> None:
        super().__init__(peer, _to_dialler[kind])
        self._connection = connection
        self._ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        connection.on_writable = self._wake
        connection.connection_lost_waiter.add_done_callback(lambda _: self._end("the other end closed the connection"))
        self._task = asyncio.create_task(self._run())

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        super().start(on_frame, on_closed)
        self._connection.listen(self._receive)
        self._wake()

    def _receive(self, message: bytes) -> None:
        if self._ending.done():
            return
        try:
            self._take(message)
        except BadRequest as error:
            self._end(str(error))
        except Exception:
            _log.exception("a frame could not be handled")
            self._end("a frame could not be handled")

    def _end(self, reason: str) -> None:
        if not self._ending.done():
            self._ending.set_result(reason)

    def _flush(self) -> None:
        connection = self._connection
        # a full buffer is written to again when it has drained, and what is queued goes before the end
        while not connection.paused and connection.state is State.OPEN:
            message = self._next_message()
            if message is None:
                if self._closing is not None:
                    self._end(self._closing)
                return
            connection.protocol.send_binary(message)
            connection.send_data()

    async def _run(self) -> None:
        reason = "closed"
        try:
            reason = await self._ending
        finally:
            self._closing = self._closing or "closed"
            self._room.set()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._connection.close(), CLOSE_TIMEOUT_S)
            if self._on_closed is not None:
                self._closed(self._connection.close_reason or reason)

    async def closed(self) -> None:
        """Wait until the connection is gone and `on_closed` has been called."""
        await asyncio.shield(self._task)


async def dial(url: str, secret: str, kind: Kind, *, tls: ssl.SSLContext | None = None) -> DialledLink:
    """Connect to a hub at `url` ("http://host:port" or "https://…").

    Raises Denied (or Forbidden) if the hub refuses the token, BadRequest if the URL is none, Unavailable if no hub
    answers there now (trying again may help).
    """
    base = url.rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise BadRequest(f"{url!r} is not a hub's address; write it as http://host:7070 or https://host")
    target = "ws" + base.removeprefix("http") + f"/link/{kind}"
    try:
        connection = await connect(
            target,
            additional_headers={"Authorization": f"Bearer {secret}"},
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            open_timeout=DIAL_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            write_limit=1 << 20,
            user_agent_header=None,
            ssl=tls,
            create_connection=_Connection,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        if status == 401:
            raise Denied(f"the hub at {url} refused the token; check $FALLOW_TOKEN or --token-file") from None
        if status == 403:
            raise Forbidden(f"the token is valid at {url}, but not for a {kind}") from None
        raise Unavailable(f"{url} answered with HTTP {status}; is it a Fallow hub?") from error
    except InvalidURI as error:
        raise BadRequest(f"{url!r} is not a hub's address; write it as http://host:7070 or https://host") from error
    except (OSError, TimeoutError, WebSocketException) as error:
        raise Unavailable(
            f"no hub answers at {url}: {error or type(error).__name__}; is it running there, and can this computer reach it?"
        ) from error
    assert isinstance(connection, _Connection)
    return DialledLink(connection, kind, base)
