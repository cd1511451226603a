"""Client sessions: who owns unnamed jobs and unfinished inputs, and for how long after it went away."""

import asyncio
from collections.abc import Callable
from typing import Any

from fallow.model.ids import JobId, SessionId


class Session:
    """One client handle: connected (`shell`), or gone and waiting for its return."""

    __slots__ = ("expiry", "id", "jobs", "owner", "shell")

    def __init__(self, session_id: SessionId, owner: str) -> None:
        self.id = session_id
        self.owner = owner
        self.jobs: set[JobId] = set()
        """Jobs created in this session that still exist."""
        self.shell: Any = None
        self.expiry: asyncio.TimerHandle | None = None


class SessionBook:
    """Sessions by id; one that stays away for the grace time expires."""

    def __init__(self, grace_s: float, on_expired: Callable[[Session], None]) -> None:
        self._grace_s = grace_s
        self._on_expired = on_expired
        self._sessions: dict[SessionId, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def has(self, session_id: SessionId) -> bool:
        return session_id in self._sessions

    def get(self, session_id: SessionId, owner: str) -> Session:
        """Return the session, made if it is new; one of another owner is never returned."""
        session = self._sessions.get(session_id)
        if session is None or session.owner != owner:
            session = self._sessions[session_id] = Session(session_id, owner)
        return session

    def came(self, session: Session, shell: Any) -> None:
        """The session's client is connected."""
        session.shell = shell
        if session.expiry is not None:
            session.expiry.cancel()
            session.expiry = None

    def went(self, session: Session) -> None:
        """The session's client is gone; it may come back within the grace time."""
        session.shell = None
        if session.expiry is None and session.id in self._sessions:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(self._grace_s, self.expire, session)

    def expire(self, session: Session) -> None:
        """End the session now."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            if session.expiry is not None:
                session.expiry.cancel()
            self._on_expired(session)

    def close(self) -> None:
        """Stop all timers; nothing expires."""
        for session in self._sessions.values():
            if session.expiry is not None:
                session.expiry.cancel()
