"""`GET /metrics`: the hub's figures as Prometheus reads them, worked out when asked from what the hub knows anyway."""

import asyncio
import time
from typing import Any

from litestar import Request, Response, get

from fallow.hub.core.hub import Hub
from fallow.hub.web.auth import requires_token
from fallow.hub.web.given import GivenHub

CONTENT_TYPE = "text/plain; version=0.0.4"
"""What `generate_latest` writes (Prometheus' exposition formats, text). The framework adds the charset."""

BLOBS_READ_S = 60.0
"""How old the size of all blobs may be: reading it looks at every file."""


class BlobSizes:
    """The bytes of all blobs, looked up beside the loop and not at every call."""

    def __init__(self) -> None:
        self._bytes = 0
        self._read_mono = float("-inf")

    async def read(self, hub: Hub) -> int:
        if time.monotonic() - self._read_mono > BLOBS_READ_S:
            self._read_mono = time.monotonic()
            self._bytes = await asyncio.to_thread(hub.blobs.local_bytes)
        return self._bytes


ABOUT = {
    "fallow_jobs": "Jobs that have not ended, by state: waiting, running.",
    "fallow_jobs_created_total": "Jobs created since the hub started.",
    "fallow_tasks": "Unsettled tasks of jobs that have not ended, by state: pending, leased.",
    "fallow_tasks_done_total": "Tasks settled with a value, of all jobs that had not ended when the hub started or came since.",
    "fallow_tasks_failed_total": "Tasks settled with a failure, of the same jobs.",
    "fallow_leases_granted_total": "Leases granted since the hub started.",
    "fallow_nodes": "Nodes that have joined and not been given up, by state: connected, away.",
    "fallow_nodes_lost_total": "Times that a node was given up, and its leases went back, since the hub started.",
    "fallow_slots": "Slots of connected nodes, by state: busy, free.",
    "fallow_commit_seconds": "Groups of changes made durable since the hub started (_count), and how long that took from handing "
    "each group over (_sum).",
    "fallow_blob_bytes": "Bytes of blobs in the hub's folder, as of at most a minute ago.",
    "fallow_free_bytes": "Bytes free on the disk of the hub's folder.",
}
"""What each figure means; the reference is made of this."""


@get("/metrics", guards=[requires_token], include_in_schema=False)
async def metrics(request: Request[Any, Any, Any], hub: GivenHub) -> Response[bytes]:
    """Serve the figures to whoever scrapes them."""
    from fallow.hub.web.exposition import expose  # Prometheus' library, where somebody asks

    sizes: BlobSizes = request.app.state.blob_sizes
    text = expose(hub, await sizes.read(hub), await asyncio.to_thread(hub.blobs.free_bytes))
    return Response(text, media_type=CONTENT_TYPE)
