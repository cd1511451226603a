"""Tokens: who may call the hub, and as what."""

import hashlib
import secrets
from typing import Literal

import msgspec

Role = Literal["admin", "user", "node"]
"""admin: everything. user: own jobs, reading nodes. node: joining as a node, nothing else."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A credential as the hub keeps it: never the secret, only its hash."""

    id: str
    """Eight hex digits: names it in lists and logs."""
    role: Role
    name: str
    hash: str
    """SHA-256 of the secret, hex. The secret has 256 bits of entropy, so no salt or slow hash is needed."""
    created_at: float


def new_secret() -> str:
    """Make a token's secret: "flw_" and 43 letters."""
    return "flw_" + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """Return what the hub stores of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
