"""The hub's tokens: in memory by hash, so that checking one is a dictionary look-up."""

import secrets
import time
from collections.abc import Iterable

from fallow.model.errors import NotFound
from fallow.model.token import Role, Token, hash_secret, new_secret


class TokenBook:
    """Knows hashes only; a secret is seen when it is made and when it is presented."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._by_hash = {token.hash: token for token in tokens}

    def authenticate(self, secret: str) -> Token | None:
        """Return the token of this secret, None if there is none. Hashing first makes the look-up's timing harmless."""
        return self._by_hash.get(hash_secret(secret))

    def make(self, role: Role, name: str, secret: str | None = None) -> tuple[Token, str]:
        """Add a token; return it and its secret, which is not kept."""
        secret = secret or new_secret()
        token = Token(id=secrets.token_hex(4), role=role, name=name, hash=hash_secret(secret), created_at=time.time())
        self._by_hash[token.hash] = token
        return token, secret

    def revoke(self, token_id: str) -> Token:
        """Remove a token; raises NotFound."""
        for token in self._by_hash.values():
            if token.id == token_id:
                del self._by_hash[token.hash]
                return token
        raise NotFound(f"there is no token {token_id!r}; `fallow token list` shows them")

    def has_role(self, role: Role) -> bool:
        return any(token.role == role for token in self._by_hash.values())

    def all(self) -> list[Token]:
        """Return the tokens, oldest first."""
        return sorted(self._by_hash.values(), key=lambda token: token.created_at)
