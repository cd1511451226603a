"""Names of things. Each is a distinct type, so that a node's id can't be passed where a job's belongs."""

from typing import NewType

JobId = NewType("JobId", str)
"""32 hex digits, a UUIDv7 (RFC 9562) made by the client, so that creating a job is idempotent and ids sort by time."""

NodeId = NewType("NodeId", str)
"""32 hex digits, made once by the node and kept in its state folder."""

SessionId = NewType("SessionId", str)
"""32 hex digits, one per client handle (`Grid`); survives reconnects, not the process."""

LeaseId = NewType("LeaseId", int)
"""Hub start count in the high 32 bits, a counter in the low ones: never used twice, so it is its own fencing number."""

Digest = NewType("Digest", str)
"""64 hex digits: the BLAKE3 digest of a blob's bytes."""


def uuid7(now_ms: int, entropy: bytes) -> str:
    """Build a version 7 UUID as 32 hex digits (RFC 9562, section 5.7).

    now_ms: Unix time in milliseconds, below 2**48. entropy: 10 random bytes, of which 74 bits are used.
    """
    random_bits = int.from_bytes(entropy[:10], "big")
    high = (now_ms & (1 << 48) - 1) << 16 | 0x7000 | (random_bits >> 68) & 0xFFF
    low = 0b10 << 62 | random_bits & (1 << 62) - 1
    return f"{high << 64 | low:032x}"
