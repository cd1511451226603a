"""/api/v1/events: what happens, as server-sent events that a reader can resume."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK

from fallow.hub.core.hub import Hub
from fallow.hub.web.given import GivenHub, GivenSettings, GivenStreams, GivenToken
from fallow.hub.web.settings import WebSettings
from fallow.hub.web.streams import EVENT_STREAM, RETRY_MS, Streams, event_stream, sse
from fallow.model.errors import NotFound
from fallow.model.events import Event, NodeJoined, NodeLost, Stamped
from fallow.model.ids import JobId
from fallow.model.token import Token

REMEMBERED_JOBS = 10_000
"""Jobs whose visibility one stream remembers."""


class Visible:
    """Whether a token may see an event: an admin all, a user those of nodes and of own jobs."""

    def __init__(self, hub: Hub, token: Token) -> None:
        self._hub = hub
        self._token = token
        self._jobs: OrderedDict[JobId, bool] = OrderedDict()

    async def shows(self, event: Event) -> bool:
        if self._token.role == "admin" or isinstance(event, NodeJoined | NodeLost):
            return True
        known = self._jobs.get(event.job)
        if known is None:
            known = self._jobs[event.job] = await self._is_own(event.job)
            if len(self._jobs) > REMEMBERED_JOBS:
                self._jobs.popitem(last=False)
        return known

    async def _is_own(self, job: JobId) -> bool:
        try:
            await self._hub.front.job(job, self._token)
        except NotFound:
            return False
        return True


@get(
    "/events",
    summary="Watch events",
    tags=["events"],
    responses={
        HTTP_200_OK: ResponseSpec(
            generate_examples=False, data_container=Stamped, media_type=EVENT_STREAM, description="A stream of events."
        )
    },
)
async def watch_events(
    hub: GivenHub,
    token: GivenToken,
    web: GivenSettings,
    streams: GivenStreams,
    last_event_id: Annotated[
        str | None, HeaderParameter(name="Last-Event-ID", description="Resume after this event (browsers send it).")
    ] = None,
) -> Stream:
    """Stream what happens, as server-sent events: job_created, job_ended, job_deleted, node_joined, node_lost,
    lease_granted, tasks_settled. The last few thousand are kept for readers that come back with Last-Event-ID; a
    reader that missed some sees an event `gap` and reads the state of things anew. Events tell of changes; jobs and
    nodes are the truth.
    """
    return event_stream(_chunks(hub, token, web, streams, streams.number_after(last_event_id)))


async def _chunks(
    hub: Hub, token: Token, web: WebSettings, streams: Streams, after: int | None
) -> AsyncIterator[bytes]:
    visible = Visible(hub, token)
    expected = None if after is None else after + 1
    yield f"retry: {RETRY_MS}\n\n".encode()
    async for stamped in streams.paced(hub.events.subscribe(after), web.keepalive_s):
        if stamped is None:
            if token not in hub.tokens():
                return
            yield b": still here\n\n"
            continue
        number = f"{streams.boot}-{stamped.number}"
        if expected is not None and stamped.number > expected:
            yield sse(
                f'{{"missed":{stamped.number - expected}}}', event="gap", number=f"{streams.boot}-{stamped.number - 1}"
            )
        expected = stamped.number + 1
        if await visible.shows(stamped.event):
            data = msgspec.json.encode(stamped).decode()
            yield sse(data, event=str(type(stamped.event).__struct_config__.tag), number=number)
