"""The hub's REST API as the commands call it: one error tree, however a call fails."""

from collections.abc import Iterator
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlsplit

import httpx

from fallow.model.errors import BY_CODE, BadRequest, Denied, FallowError, Unavailable

TIMEOUT_S = 30.0
"""For one answer. Results and logs come in pages, so none takes long."""


class HubApi:
    """A connection to a hub's REST API; a context manager."""

    def __init__(self, hub: str, token: str) -> None:
        parts = urlsplit(hub)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise BadRequest(f"{hub!r} is not a hub's address; write it as http://host:7070 or https://host")
        self.hub = hub.rstrip("/")
        self.secret = token
        # A proxy in the environment is for the world outside, never for a hub on this computer.
        is_local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        self._client = httpx.Client(
            base_url=f"{self.hub}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            trust_env=not is_local,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Call a route and return what its JSON says, None if it says nothing.

        Raises the error that the hub answered with, or Unavailable if none answered.
        """
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            self._unreachable(error)
        if response.is_error:
            self._refused(response)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise Unavailable(f"{self.hub} did not answer in JSON; is it a Fallow hub?") from error

    def lines(self, path: str, **arguments: Any) -> Iterator[str]:
        """Stream JSON lines."""
        headers = {"Accept": "application/jsonl"}
        try:
            with self._client.stream("GET", path, headers=headers, **arguments) as response:
                if response.is_error:
                    response.read()
                    self._refused(response)
                yield from (line for line in response.iter_lines() if line)
        except httpx.HTTPError as error:
            self._unreachable(error)

    def _unreachable(self, error: httpx.HTTPError) -> NoReturn:
        if isinstance(error, httpx.TimeoutException):
            raise Unavailable(f"the hub at {self.hub} does not answer; trying again may help") from error
        raise Unavailable(
            f"no hub answers at {self.hub}; is it running there? (--hub or $FALLOW_HUB name another)"
        ) from error

    def _refused(self, response: httpx.Response) -> NoReturn:
        try:
            error = response.json()["error"]
            code, message = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            raise Unavailable(f"{self.hub} answered with HTTP {response.status_code}; is it a Fallow hub?") from None
        if code == Denied.code:
            message = f"the hub at {self.hub} refused the token; check $FALLOW_TOKEN or --token-file"
        raise BY_CODE.get(code, FallowError)(message)


def job_path(job: str, part: str = "") -> str:
    """Return the route of a job, whose name may hold anything."""
    if not job:
        raise BadRequest("a job's id or name can't be empty")
    return f"/jobs/{quote(job, safe='')}{part}"
