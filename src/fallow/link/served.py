"""The hub's end of a link: one object per connection, between the server's socket and the hub, and no task.

The socket's data goes through websockets' protocol without I/O and at once on to the hub; what the hub says in one turn
of the loop goes out as one message at the turn's end. Ten thousand idle nodes are little more than ten thousand sockets.
"""

import asyncio
from typing import cast

from websockets.frames import DATA_OPCODES, Frame
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from fallow.link.codec import MAX_MESSAGE_BYTES, FrameDecoder
from fallow.link.frames import ClientFrame, NodeFrame
from fallow.link.link import OnClosed, OnFrame
from fallow.link.queueing import QueueingLink
from fallow.link.websocket import CLOSE_TIMEOUT_S, Kind
from fallow.log import Logger
from fallow.model.errors import BadRequest

SLACK_BYTES = 64 * 1024
"""Above the largest message that our own ends send, so that theirs is the error that people see."""
REASON_BYTES = 100
"""Of a close frame's reason: the protocol allows 123."""
GONE = "the other end closed the connection"

_decoders = {"client": FrameDecoder(ClientFrame), "node": FrameDecoder(NodeFrame)}
_log = Logger("fallow.link")


class ServedLink(QueueingLink, asyncio.Protocol):
    """A connection that was accepted. Whoever serves it says in `answer` who may come in."""

    def __init__(self) -> None:
        super().__init__("", _decoders["node"])
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE_BYTES + SLACK_BYTES)
        self._parts: list[bytes] = []
        """Of a message that comes in several frames."""
        self._is_paused = False
        """Whether the socket's buffer is full."""
        self._is_gone = False
        """Whether the hub was told that the link is closed."""
        self._is_lost = False
        """Whether the socket is closed."""
        self._closer: asyncio.TimerHandle | None = None

    def answer(self, request: Request) -> Response:
        """Return the response to the handshake: `accept(kind, request)`, followed by `start`, or a refusal."""
        raise NotImplementedError

    def accept(self, kind: Kind, request: Request) -> Response:
        """Return the response that opens the link, unless the request is no proper handshake."""
        self._decoder = _decoders[kind]
        return self._protocol.accept(request)

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        super().start(on_frame, on_closed)
        self._wake()

    def close(self, reason: str = "") -> None:
        super().close(reason)
        self._abort_soon()

    # --- the socket's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        host, port = (transport.get_extra_info("peername") or ("unknown", 0))[:2]
        self.peer = f"{host}:{port}"

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                if event.opcode in DATA_OPCODES and not self._is_gone:
                    self._receive(event)
            elif isinstance(event, Request):
                response = self.answer(event)
                protocol.send_response(response)
        self._write()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closer is not None:
            self._closer.cancel()
        self._is_lost = True
        error = self._protocol.parser_exc
        self._gone(str(error) if error is not None else GONE)
        # Without these cycles the memory is free at once, not when the interpreter next looks for cycles.
        self._protocol.parser.close()
        del self._transport

    # --- the hub's side ---

    def _receive(self, frame: Frame) -> None:
        data = frame.data if type(frame.data) is bytes else bytes(frame.data)
        if self._parts or not frame.fin:
            self._parts.append(data)
            if not frame.fin:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        try:
            self._take(data)
        except BadRequest as error:
            self._end(1000, str(error))
        except Exception:
            _log.exception("a frame could not be handled")
            self._end(1011, "the hub could not handle a frame")

    def _flush(self) -> None:
        protocol = self._protocol
        while not self._is_paused and not self._is_lost and protocol.state is State.OPEN:
            message = self._next_message()
            if message is None:
                if self._closing is not None:
                    self._end(1000, self._closing)
                return
            protocol.send_binary(message)
            self._write()

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if self._transport.is_closing():  # it is told in a moment
                return
            if data:
                self._transport.write(data)
            elif self._protocol.parser_exc is not None and self._transport.can_write_eof():
                # what the other end still sends is taken and dropped, or its system would drop our reason unread
                self._transport.write_eof()
                self._abort_soon()
            else:  # the closing handshake is done
                self._transport.close()

    def _end(self, code: int, reason: str) -> None:
        """Say goodbye; what comes from now on is not for the hub any more."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))
            self._write()
            self._abort_soon()
        self._gone(reason)

    def _abort_soon(self) -> None:
        if self._closer is None and not self._is_lost and not self._transport.is_closing():
            self._closer = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _gone(self, reason: str) -> None:
        if self._is_gone:
            return
        self._is_gone = True
        reason = self._closing or reason
        self._closing = reason
        self._room.set()
        if self._on_closed is not None:
            self._closed(reason)
        self._on_frame = self._on_closed = None
