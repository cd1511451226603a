"""/api/v1/blobs: immutable bytes by digest, streamed in and out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Request, Router, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK

from fallow.hub.core.hub import Hub
from fallow.hub.web.given import GivenHub, GivenSettings, GivenToken
from fallow.hub.web.views import BlobView
from fallow.model.errors import BadRequest, NotFound, TooLarge
from fallow.model.ids import Digest
from fallow.state.blobs import check_digest

CHUNK_BYTES = 256 * 1024
OCTETS = "application/octet-stream"

AnyRequest = Request[Any, Any, Any]
DigestParameter = Annotated[str, PathParameter(description="BLAKE3 digest of the bytes, 64 hex digits.")]


async def _bounded(request: AnyRequest, limit_bytes: int) -> AsyncIterator[bytes]:
    announced = request.headers.get("content-length")
    received = 0
    if announced is not None and announced.isdigit():
        _check(int(announced), limit_bytes)
    async for chunk in request.stream():
        received += len(chunk)
        _check(received, limit_bytes)
        yield chunk


def _check(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise TooLarge(
            f"the blob is over the limit of {limit_bytes} bytes; the Python client sends larger ones in pieces"
        )


@post("/", summary="Upload a blob", request_max_body_size=None)
async def add_blob(request: AnyRequest, hub: GivenHub, token: GivenToken, web: GivenSettings) -> BlobView:
    """Keep the request's body, whatever its type. The answer comes when it is durable. A blob that no job comes to
    refer to is swept after a while.
    """
    digest, size = await hub.front.keep_blob(_bounded(request, web.blob_bytes), token)
    return BlobView(digest, size)


@put("/{digest:str}", summary="Upload a blob of a known digest", request_max_body_size=None)
async def put_blob(
    request: AnyRequest, digest: DigestParameter, hub: GivenHub, token: GivenToken, web: GivenSettings
) -> BlobView:
    """Keep the request's body, and refuse it if its digest is another. Repeating it does no harm."""
    wanted = check_digest(digest)
    kept, size = await hub.front.keep_blob(_bounded(request, web.blob_bytes), token)
    if kept != wanted:
        raise BadRequest(f"the body's digest is {kept}, not {wanted}: it was damaged on the way, or is another blob")
    return BlobView(kept, size)


@get(
    "/{digest:str}",
    summary="Download a blob",
    responses={
        HTTP_200_OK: ResponseSpec(
            generate_examples=False, data_container=bytes, media_type=OCTETS, description="The blob's bytes."
        )
    },
)
async def read_blob(digest: DigestParameter, hub: GivenHub, token: GivenToken) -> Stream:
    """Read a blob. Whoever knows its digest may: a digest can't be guessed."""
    wanted = check_digest(digest)
    size = await asyncio.to_thread(hub.blobs.size, wanted)
    if size is None:
        raise NotFound(f"there is no blob {wanted}: upload it again with PUT; one that no job refers to is swept")
    return Stream(_chunks(hub, wanted, size), media_type=OCTETS, headers={"Content-Length": str(size)})


async def _chunks(hub: Hub, digest: Digest, size: int) -> AsyncIterator[bytes]:
    for offset in range(0, size, CHUNK_BYTES):
        yield await asyncio.to_thread(hub.blobs.read_at, digest, offset, CHUNK_BYTES)


def blobs_router() -> Router:
    return Router("/blobs", route_handlers=[add_blob, put_blob, read_blob], tags=["blobs"])
