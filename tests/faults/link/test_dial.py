"""A hub that vanishes in the middle of the handshake is a hub to try again, not an unknown error."""

import asyncio
import socket
import struct
import threading

import pytest
import uvloop

from fallow.link.websocket import dial
from fallow.model.errors import Unavailable

RESET = struct.pack("ii", 1, 0)  # with this linger, closing resets
DIALS = 10


def answer(listener, until, resets):
    for _ in range(DIALS):
        taken, _ = listener.accept()
        if until != "accept":
            taken.recv(1 << 16)
        if until == "half an answer":
            taken.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs")
        if resets:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        taken.close()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("until", ["accept", "request", "half an answer"])
def test_a_connection_that_breaks_in_the_handshake_is_unavailable(until, resets, loop_factory):
    async def main(port):
        for _ in range(DIALS):
            with pytest.raises(Unavailable):
                await dial(f"http://127.0.0.1:{port}", "flw_secret", "node")

    with socket.socket() as listener, asyncio.Runner(loop_factory=loop_factory) as runner:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = threading.Thread(target=answer, args=(listener, until, resets))
        server.start()
        runner.run(main(listener.getsockname()[1]))
        server.join()
