"""Headers of every HTTP answer: nothing from elsewhere is loaded, nothing of ours is framed or cached by proxies."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
STATIC_CACHE = b"public, max-age=3600"
NO_STORE = b"no-store"


def with_security(path: str, send: Callable[[Message], Awaitable[None]]) -> Callable[[Message], Awaitable[None]]:
    """Wrap `send` so that the response to `path` carries the security headers."""
    caching = STATIC_CACHE if path.startswith("/static/") else NO_STORE

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            cached = caching if message["status"] == 200 else NO_STORE
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"cache-control"]
            message["headers"] = [*kept, *SECURITY, (b"cache-control", cached)]
        await send(message)

    return sending
