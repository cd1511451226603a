"""Which package index can be had from here: this computer's own, or that of the hub."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

CHECK_TIMEOUT_S = 3.0
"""An index that has not answered after this is taken to be out of reach."""
HUB_TIMEOUT_S = 900
"""How long the hub may take until it sends a file: it fetches large ones first."""
HUB_INDEX = "fallow"
"""What uv calls the hub's index; its password is in a variable of this name."""
HOW_TO_SERVE = "one that has uv does, and `fallow hub --packages URL`"
PATH = "/api/v1/packages/simple/"


@dataclass(frozen=True)
class HubPackages:
    """The hub's package index, for those who reach no other."""

    url: str
    """The hub's address."""
    secret: str = field(repr=False)
    """A token of one's own."""

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return uv's variables for it. The secret is in the process's environment: not on its command line."""
        kept = {
            name: value for name, value in base.items() if not name.startswith(("UV_INDEX", "UV_EXTRA_", "UV_FIND_"))
        }
        return kept | {
            "UV_DEFAULT_INDEX": f"{HUB_INDEX}={self.url.rstrip('/')}{PATH}",
            f"UV_INDEX_{HUB_INDEX.upper()}_USERNAME": "node",
            f"UV_INDEX_{HUB_INDEX.upper()}_PASSWORD": self.secret,
            "UV_HTTP_TIMEOUT": str(HUB_TIMEOUT_S),
            "UV_NO_CONFIG": "1",
        }

    async def obstacle(self) -> str | None:
        """Return that it serves no packages, if it says so, for people."""
        status, text = await asyncio.to_thread(_ask, f"{self.url.rstrip('/')}{PATH}uv/", self.secret)
        serves_none = status == 404 and "serves no packages" in text
        return f"the hub serves none either ({HOW_TO_SERVE})" if serves_none else None


async def reaches(urls: tuple[str, ...], package: str) -> bool:
    """Whether one of these indexes answers and knows a package; one that can't be looked at is taken to."""
    for url in urls:
        if not url.startswith(("http:", "https:")):
            return True
        status, _ = await asyncio.to_thread(_ask, f"{url.rstrip('/')}/{package.lower()}/")
        if status in {200, 401, 403, 405}:  # uv may have credentials that we don't
            return True
    return False


async def answers(urls: tuple[str, ...]) -> bool:
    """Whether one of these indexes answers at all; one that can't be looked at is taken to."""
    for url in urls:
        if not url.startswith(("http:", "https:")) or (await asyncio.to_thread(_ask, url))[0]:
            return True
    return False


def _ask(url: str, secret: str = "") -> tuple[int, str]:
    """Return status and text of an answer; 0 if there is none. Of an index, only whether there is one is asked."""
    import urllib.error  # 0.1 s
    import urllib.request

    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        request = urllib.request.Request(bare, method="GET" if secret else "HEAD")  # noqa: S310 -- of http(s) only
        if secret:
            request.add_header("Authorization", f"Bearer {secret}")
        with urllib.request.urlopen(request, timeout=CHECK_TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(1000).decode("utf-8", "replace")
    except (OSError, ValueError):  # ValueError: an address that is none
        return 0, ""
