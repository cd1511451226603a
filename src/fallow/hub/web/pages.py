"""The pages: sign-in, the overview and each job with their live streams, the API page."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from litestar import MediaType, Request, Response, Router, get, post
from litestar.datastructures import Cookie
from litestar.params import PathParameter, QueryParameter
from litestar.response import Redirect, Stream
from litestar.status_codes import (
    HTTP_200_OK,
    HTTP_303_SEE_OTHER,
    HTTP_401_UNAUTHORIZED,
    HTTP_403_FORBIDDEN,
    HTTP_404_NOT_FOUND,
)

from fallow import __version__
from fallow.hub.core.hub import Hub
from fallow.hub.web.auth import is_same_origin, requires_token, signed_in
from fallow.hub.web.given import GivenHub, GivenSettings, GivenStreams, GivenToken
from fallow.hub.web.job_page import look_at
from fallow.hub.web.node_page import look_at_node
from fallow.hub.web.overview import look
from fallow.hub.web.sessions import COOKIE, Sessions
from fallow.hub.web.settings import WebSettings
from fallow.hub.web.streams import RETRY_MS, Streams, event_stream, sse
from fallow.model.errors import Forbidden

if TYPE_CHECKING:
    import jinja2

FORM_BYTES = 16 * 1024
SIGN_IN = "/sign-in"
DESTINATIONS = re.compile(r"/|/api|/(jobs|nodes)/[0-9a-f]{32}")
"""Where signing in may lead: nothing that a link from elsewhere could choose."""

AnyRequest = Request[Any, Any, Any]
Ref = Annotated[str, PathParameter(name="job")]


@cache
def _templates() -> "jinja2.Environment":
    import jinja2  # 2 MB, with the first page

    return jinja2.Environment(
        loader=jinja2.PackageLoader("fallow.hub.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _page(name: str, status: int = HTTP_200_OK, **values: Any) -> Response[str]:
    text = _templates().get_template(name).render(version=__version__, **values)
    return Response(text, media_type=MediaType.HTML, status_code=status)


def _to_sign_in(next_page: str) -> Redirect:
    next_page = _destination(next_page)
    suffix = f"?next={next_page}" if next_page != "/" else ""
    return Redirect(SIGN_IN + suffix, status_code=HTTP_303_SEE_OTHER)


def _destination(wanted: Any) -> str:
    return wanted if isinstance(wanted, str) and DESTINATIONS.fullmatch(wanted) else "/"


@get(SIGN_IN)
async def sign_in_page(
    request: AnyRequest, destination: Annotated[str, QueryParameter(name="next")] = "/"
) -> Response[Any]:
    """Show the form, unless the browser is signed in."""
    to = _destination(destination)
    if signed_in(request) is not None:
        return Redirect(to, status_code=HTTP_303_SEE_OTHER)
    return _page("sign_in.html", destination=to, problem="")


@post(SIGN_IN, request_max_body_size=FORM_BYTES)
async def sign_in(request: AnyRequest, hub: GivenHub, web: GivenSettings) -> Response[Any]:
    """Check the token and give the browser a session of its own."""
    if not is_same_origin(request):
        raise Forbidden("sign in on the hub's own page at /sign-in")
    form = await request.form()
    to = _destination(form.get("next"))
    secret = form.get("token")
    token = hub.authenticate(secret.strip()) if isinstance(secret, str) else None
    if token is None:
        problem = "The hub doesn't know this token. Was it copied whole?"
        return _page("sign_in.html", HTTP_401_UNAUTHORIZED, destination=to, problem=problem)
    if token.role == "node":
        problem = "This is a token for nodes. Pages need a user's or an admin's token."
        return _page("sign_in.html", HTTP_403_FORBIDDEN, destination=to, problem=problem)
    sessions: Sessions = request.app.state.sessions
    cookie = Cookie(
        COOKIE,
        path="/",
        value=sessions.sign_in(token.id),
        max_age=int(web.signed_in_s),
        httponly=True,
        secure=request.url.scheme == "https",
        samesite="strict",
    )
    return Redirect(to, status_code=HTTP_303_SEE_OTHER, cookies=[cookie])


@post("/sign-out", request_max_body_size=FORM_BYTES)
async def sign_out(request: AnyRequest) -> Redirect:
    """End the browser's session."""
    if not is_same_origin(request):
        raise Forbidden("sign out on the hub's own pages")
    sessions: Sessions = request.app.state.sessions
    sessions.sign_out(request.cookies.get(COOKIE, ""))
    gone = Cookie(COOKIE, path="/", value="", max_age=0, httponly=True, samesite="strict")
    return Redirect(SIGN_IN, status_code=HTTP_303_SEE_OTHER, cookies=[gone])


@get("/")
async def overview_page(request: AnyRequest, hub: GivenHub) -> Response[Any]:
    """Show the grid at a glance."""
    token = signed_in(request)
    if token is None:
        return _to_sign_in("/")
    view = await look(hub, token, request.app.state.meter)
    return _page("overview.html", view=view, token=token, address=str(request.base_url).rstrip("/"))


@get("/live", guards=[requires_token])
async def live(
    request: AnyRequest, hub: GivenHub, token: GivenToken, web: GivenSettings, streams: GivenStreams
) -> Stream:
    """Send the overview's inner part anew whenever it has changed."""
    address = str(request.base_url).rstrip("/")
    template = _templates().get_template("live.html")

    async def draw() -> tuple[str, bool]:
        view = await look(hub, token, request.app.state.meter)
        return template.render(view=view, address=address), view.is_busy

    return event_stream(_fragments(draw, lambda: token in hub.tokens(), hub, web, streams))


async def _fragments(
    draw: Callable[[], Awaitable[tuple[str, bool]]],
    may_go_on: Callable[[], bool],
    hub: Hub,
    web: WebSettings,
    streams: Streams,
) -> AsyncIterator[bytes]:
    sent, sent_mono = "", 0.0
    yield f"retry: {RETRY_MS}\n\n".encode()
    # Events only say when to look. While one look is taken and shown, those that come are one reason to look again.
    changed = asyncio.Event()
    watching = asyncio.create_task(_note_changes(hub, changed))
    try:
        while may_go_on():
            changed.clear()
            text, is_busy = await draw()
            now = time.monotonic()
            if text != sent:
                sent, sent_mono = text, now
                yield sse(text)
            elif now - sent_mono > web.keepalive_s:
                sent_mono = now
                yield b": still here\n\n"
            if not await streams.wait(web.live_interval_s):
                return
            await streams.either(changed, web.live_busy_s if is_busy else web.live_idle_s)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _note_changes(hub: Hub, changed: asyncio.Event) -> None:
    async for _ in hub.events.subscribe(None):
        changed.set()


@get("/jobs/{job:str}")
async def job_page(request: AnyRequest, job: Ref, hub: GivenHub) -> Response[Any]:
    """Show one job."""
    token = signed_in(request)
    if token is None:
        return _to_sign_in(f"/jobs/{job}")
    view = await look_at(hub, job, token, request.app.state.meter)
    return _page("job.html", HTTP_200_OK if view else HTTP_404_NOT_FOUND, view=view, token=token)


@get("/jobs/{job:str}/live", guards=[requires_token])
async def job_live(
    request: AnyRequest, job: Ref, hub: GivenHub, token: GivenToken, web: GivenSettings, streams: GivenStreams
) -> Stream:
    """Send the inner part of a job's page anew whenever it has changed."""
    await hub.front.job(job, token)  # or there is nothing to wait for
    template = _templates().get_template("job_live.html")

    async def draw() -> tuple[str, bool]:
        view = await look_at(hub, job, token, request.app.state.meter)
        return template.render(view=view), view is not None and not view.is_over

    return event_stream(_fragments(draw, lambda: token in hub.tokens(), hub, web, streams))


@post("/jobs/{job:str}/cancel", guards=[requires_token], request_max_body_size=FORM_BYTES)
async def cancel_job(job: Ref, hub: GivenHub, token: GivenToken) -> Redirect:
    """Stop a job from its page."""
    found = await hub.front.job(job, token)
    await hub.front.cancel_job(found.spec.id, token)
    return Redirect(f"/jobs/{found.spec.id}", status_code=HTTP_303_SEE_OTHER)


@get("/nodes/{node:str}")
async def node_page(
    request: AnyRequest, node_id: Annotated[str, PathParameter(name="node")], hub: GivenHub
) -> Response[Any]:
    """Show one node."""
    token = signed_in(request)
    if token is None:
        return _to_sign_in(f"/nodes/{node_id}")
    view = look_at_node(hub, node_id)
    return _page("node.html", HTTP_200_OK if view else HTTP_404_NOT_FOUND, node=view, token=token)


@get("/api")
async def api_page(request: AnyRequest) -> Response[Any]:
    """Show the REST API for browsing and trying."""
    token = signed_in(request)
    if token is None:
        return _to_sign_in("/api")
    return _page("api.html", token=token)


def pages_router() -> Router:
    return Router(
        "/",
        route_handlers=[
            sign_in_page,
            sign_in,
            sign_out,
            overview_page,
            live,
            job_page,
            job_live,
            cancel_job,
            node_page,
            api_page,
        ],
        include_in_schema=False,
    )
