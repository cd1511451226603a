"""Links over WebSocket: `dial` for the end that connects, `serve_websocket` for a bare ASGI route.

One message per write carries all control frames that are waiting; bulk frames (blob chunks) go only
when no control frame waits. No compression: pages are compressed where that pays, by their makers.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from fallow.link.codec import MAX_MESSAGE_BYTES, FrameDecoder, encode_frame, join_frames
from fallow.link.frames import ClientFrame, NodeFrame, ToClient, ToNode
from fallow.link.link import OnClosed, OnFrame
from fallow.model.errors import BadRequest, Denied, Forbidden, Unavailable

Kind = Literal["client", "node"]

DIAL_TIMEOUT_S = 10.0
"""How long opening a connection may take, TLS included."""
PING_S = 20.0
"""The dialling end pings this often: keeps NAT mappings alive (30 s in the strictest home routers) and finds dead peers."""
BULK_HIGH_WATER = 8
"""Bulk frames of 256 KiB that may wait in a link before `drained` holds their sender back: 2 MiB."""
CLOSE_TIMEOUT_S = 2.0

_to_dialler = {"client": FrameDecoder(ToClient), "node": FrameDecoder(ToNode)}
_to_hub = {"client": FrameDecoder(ClientFrame), "node": FrameDecoder(NodeFrame)}
_log = structlog.get_logger("fallow.link")


class _QueueingLink:
    """What both ends share: the queues, the writer task and delivery."""

    def __init__(self, peer: str, decoder: FrameDecoder) -> None:
        self.peer = peer
        self._decoder = decoder
        self._control: list[bytes] = []
        self._bulk: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._started = asyncio.Event()
        self._closing: str | None = None
        self._on_frame: OnFrame | None = None
        self._on_closed: OnClosed | None = None

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        self._on_frame, self._on_closed = on_frame, on_closed
        self._started.set()

    def send(self, frame: Any, *, bulk: bool = False) -> None:
        if self._closing is not None:
            return
        data = encode_frame(frame)
        if bulk:
            self._bulk.append(data)
            if len(self._bulk) >= BULK_HIGH_WATER:
                self._room.clear()
        else:
            self._control.append(data)
        self._wake.set()

    async def drained(self) -> None:
        await self._room.wait()

    def close(self, reason: str = "") -> None:
        if self._closing is None:
            self._closing = reason or "closed"
            self._wake.set()
            self._room.set()

    def _next_message(self) -> bytes | None:
        """Take what goes into the next message: waiting control frames, else one bulk frame, else None."""
        control = self._control
        if control:
            size = count = 0
            while count < len(control) and count < 65_535 and size + len(control[count]) <= MAX_MESSAGE_BYTES - 8:
                size += len(control[count])
                count += 1
            message = join_frames(control[:count])
            del control[:count]
            return message
        if self._bulk:
            data = self._bulk.popleft()
            if len(self._bulk) < BULK_HIGH_WATER:
                self._room.set()
            return join_frames([data])
        return None

    async def _write(self, put: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            while (message := self._next_message()) is not None:
                await put(message)
            if self._closing is not None:
                return
            self._wake.clear()
            if self._control or self._bulk:
                continue
            await self._wake.wait()

    async def _pump(self, get: Callable[[], Awaitable[bytes | None]], put: Callable[[bytes], Awaitable[None]]) -> str:
        """Read and write until the connection ends; return why."""
        await self._started.wait()
        writer = asyncio.create_task(self._write(put))
        reader = asyncio.create_task(self._read(get))
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, writer):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    if isinstance(error, (BadRequest, ConnectionClosed, OSError)):
                        return str(error) or type(error).__name__
                    raise error
            return self._closing or "the other end closed the connection"
        finally:
            self._closing = self._closing or "closed"
            self._room.set()
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    async def _read(self, get: Callable[[], Awaitable[bytes | None]]) -> None:
        assert self._on_frame is not None
        while (message := await get()) is not None:
            for frame in self._decoder.decode(message):
                self._on_frame(frame)

    def _closed(self, reason: str) -> None:
        assert self._on_closed is not None
        self._on_closed(reason)


class DialledLink(_QueueingLink):
    """The connecting end."""

    def __init__(self, connection: ClientConnection, kind: Kind, peer: str) -> None:
        super().__init__(peer, _to_dialler[kind])
        self._connection = connection
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        connection = self._connection

        async def get() -> bytes | None:
            try:
                message = await connection.recv()
            except ConnectionClosed:
                return None
            return message if isinstance(message, bytes) else message.encode()

        reason = "closed"
        try:
            reason = await self._pump(get, connection.send)
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT_S)
            self._closed(connection.close_reason or reason)

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
            max_queue=64,
            user_agent_header=None,
            ssl=tls,
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
        raise Unavailable(f"no hub answers at {url}: {error or type(error).__name__}") from error
    return DialledLink(connection, kind, base)


Message = MutableMapping[str, Any]


async def serve_websocket(
    kind: Kind,
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
    accept: Callable[[_QueueingLink], None],
) -> None:
    """Carry a link over one ASGI WebSocket connection until it closes. The caller has checked the token.

    accept: called with the link once the connection is open; must call `link.start`.
    """
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    client = scope.get("client") or ("unknown", 0)
    link = _QueueingLink(f"{client[0]}:{client[1]}", _to_hub[kind])

    async def get() -> bytes | None:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return None
        data = message.get("bytes")
        return data if data is not None else (message.get("text") or "").encode()

    async def put(data: bytes) -> None:
        await send({"type": "websocket.send", "bytes": data})

    accept(link)
    reason = "closed"
    try:
        reason = await link._pump(get, put)
    finally:
        with contextlib.suppress(Exception):  # it may be gone already
            await send(
                {"type": "websocket.close", "code": 1000, "reason": reason.encode()[:100].decode(errors="ignore")}
            )
        link._closed(reason)
