"""How a message of frames lies in a WebSocket connection: whole, in one binary frame of the protocol.

That is all that our own ends send between the opening and the closing handshake but for pings, so it is written and cut out
here, at less cost than by a parser for everything. All else (pings, closes, messages in parts) goes through websockets.
"""

import secrets

try:
    from websockets.speedups import apply_mask
except ImportError:  # where it could not be compiled
    from websockets.utils import apply_mask

WHOLE = 0x82
"""First byte of a binary message in one frame."""
MASKED = 0x80
"""In the second byte: four bytes of mask follow the length. What the end that dialled sends has one."""
FIRST_PARTS, LAST_PART = {0x01, 0x02}, 0x80
"""First bytes of messages that come in parts, as no end of ours sends them."""


def envelop(message: bytes, *, is_masked: bool) -> bytes:
    """Return what to write to the connection for a message."""
    size, flag = len(message), MASKED if is_masked else 0
    if size < 126:
        head = bytes((WHOLE, flag | size))
    elif size < 1 << 16:
        head = bytes((WHOLE, flag | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((WHOLE, flag | 127)) + size.to_bytes(8, "big")
    if is_masked:
        mask = secrets.token_bytes(4)
        return b"".join((head, mask, apply_mask(message, mask)))
    return head + message


class Cutter:
    """Cuts what comes over an open connection into messages and other frames of the protocol."""

    __slots__ = ("_flag", "_has_part", "_max_bytes", "_rest", "_wanted")

    def __init__(self, max_bytes: int, *, is_masked: bool) -> None:
        """max_bytes: of a message. is_masked: whether the other end dialled."""
        self._max_bytes = max_bytes
        self._flag = MASKED if is_masked else 0
        self._rest = bytearray()
        self._wanted = 0
        """Bytes with which it is worth looking at `_rest` again."""
        self._has_part = False

    def cut(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Take what has come; return, in order, the messages that are whole now (True) and what is for websockets (False).

        Too long a message is for websockets too, which refuses it by its head.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        found: list[tuple[bytes, bool]] = []
        at, size = 0, len(data)
        while at < size:
            first, second = data[at], data[at + 1] if at + 1 < size else 0
            length, start = second & 0x7F, at + 2
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start], "big")
            start += 4 if second & MASKED else 0
            stop = start + length
            if stop > size and (size < start or length <= self._max_bytes):
                self._rest += data[at:]
                self._wanted = stop - at
                break
            if first == WHOLE and second & MASKED == self._flag and length <= self._max_bytes and not self._has_part:
                message = data[start:stop]
                found.append((apply_mask(message, data[start - 4 : start]) if self._flag else message, True))
            else:
                self._has_part = first in FIRST_PARTS or (self._has_part and first != LAST_PART)
                found.append((data[at:stop] if length <= self._max_bytes else data[at:], False))
                if length > self._max_bytes:
                    break
            at = stop
        return found
