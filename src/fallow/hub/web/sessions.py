"""Browsers that are signed in: a random id in a cookie, the token's id in this process's memory.

The cookie never holds the token. A restart of the hub signs everybody out.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

COOKIE = "fallow_session"


class Sessions:
    """Bounded: beyond `limit` the oldest is signed out."""

    def __init__(self, limit: int, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def sign_in(self, token_id: str) -> str:
        """Return the id of a new session of that token."""
        session = secrets.token_urlsafe(32)
        self._open[session] = (token_id, self._clock() + self._lifetime_s)
        while len(self._open) > self._limit:
            self._open.popitem(last=False)
        return session

    def token_id(self, session: str) -> str | None:
        """Return whose session this is; None if it is unknown or over."""
        found = self._open.get(session)
        if found is None:
            return None
        token_id, ends_mono = found
        if self._clock() >= ends_mono:
            del self._open[session]
            return None
        return token_id

    def sign_out(self, session: str) -> None:
        self._open.pop(session, None)
