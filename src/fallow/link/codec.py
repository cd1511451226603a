"""Frames to bytes and back: a message is one MessagePack array of frames."""

from typing import Any

import msgspec

from fallow.model.errors import BadRequest, TooLarge

MAX_MESSAGE_BYTES = 1 << 20
"""Largest message on a link: an inline page (960 KiB) and its header fit; a garbage length can't exhaust memory."""

_encoder = msgspec.msgpack.Encoder()


def encode_frame(frame: Any) -> bytes:
    """Encode one frame; raises TooLarge if it could not travel in a message of its own."""
    data = _encoder.encode(frame)
    if len(data) > MAX_MESSAGE_BYTES - 8:
        raise TooLarge(
            f"a {type(frame).__name__} frame of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes; "
            "what is large has to travel as a blob (grid.put), or in several parts"
        )
    return data


def join_frames(encoded: list[bytes]) -> bytes:
    """Build a message from up to 65,535 encoded frames."""
    count = len(encoded)
    header = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return b"".join([header, *encoded])


class FrameDecoder:
    """Decodes messages that carry the frames of one direction, such as `FrameDecoder(ToNode)`."""

    def __init__(self, frames: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(list[frames])

    def decode(self, message: bytes) -> list[Any]:
        """Return the message's frames; raises BadRequest for anything that is not a message of this direction."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise TooLarge(f"a message of {len(message)} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes")
        try:
            return self._decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(f"not a Fallow message: {error}") from error
