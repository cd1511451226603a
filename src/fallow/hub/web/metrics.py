"""`GET /metrics`: the hub's figures as Prometheus reads them, worked out when asked from what the hub knows anyway."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any

from litestar import Request, Response, get
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from fallow.hub.core.hub import Hub
from fallow.hub.web.auth import requires_token
from fallow.hub.web.given import GivenHub
from fallow.model.events import JobCreated, LeaseGranted, NodeLost

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


class HubMetrics(Collector):
    """The figures of one hub at one moment."""

    def __init__(self, hub: Hub, blob_bytes: int, free_bytes: int) -> None:
        self._hub = hub
        self._blob_bytes = blob_bytes
        self._free_bytes = free_bytes

    def collect(self) -> Iterable[Metric]:
        yield from self._work()
        yield from self._nodes()
        name, journal = "fallow_commit_seconds", self._hub.journal
        yield SummaryMetricFamily(name, ABOUT[name], journal.commits, journal.commit_s)
        yield _gauge("fallow_blob_bytes", self._blob_bytes)
        yield _gauge("fallow_free_bytes", self._free_bytes)

    def _work(self) -> Iterator[Metric]:
        tally, scheduler = self._hub.events.tally, self._hub.scheduler
        live = [scheduler.progress(job) for job in scheduler.jobs()]
        yield _by_state(
            "fallow_jobs", {state: sum(each.state == state for each in live) for state in ("waiting", "running")}
        )
        settled, failed = sum(each.settled for each in live), sum(each.failed for each in live)
        leased = sum(each.leased for each in live)
        pending = sum(max(0, each.accepted - each.settled - each.leased) for each in live)
        yield _by_state("fallow_tasks", {"pending": pending, "leased": leased})
        failed += tally.failed_of_ended
        yield _counter("fallow_tasks_done_total", tally.settled_of_ended + settled - failed)
        yield _counter("fallow_tasks_failed_total", failed)
        yield _counter("fallow_jobs_created_total", tally.events[JobCreated])
        yield _counter("fallow_leases_granted_total", tally.events[LeaseGranted])
        yield _counter("fallow_nodes_lost_total", tally.events[NodeLost])

    def _nodes(self) -> Iterator[Metric]:
        nodes = self._hub.nodes()
        here = [node for node in nodes if node.connected]
        yield _by_state("fallow_nodes", {"connected": len(here), "away": len(nodes) - len(here)})
        slots = sum(node.info.slots for node in here)
        busy = sum(min(node.running_tasks, node.info.slots) for node in here)
        yield _by_state("fallow_slots", {"busy": busy, "free": slots - busy})


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, ABOUT[name], value)


def _counter(name: str, value: float) -> Metric:
    return CounterMetricFamily(name, ABOUT[name], value)


def _by_state(name: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, ABOUT[name], labels=["state"])
    for state, value in values.items():
        family.add_metric([state], value)
    return family


@get("/metrics", guards=[requires_token], include_in_schema=False)
async def metrics(request: Request[Any, Any, Any], hub: GivenHub) -> Response[bytes]:
    """Serve the figures to whoever scrapes them."""
    sizes: BlobSizes = request.app.state.blob_sizes
    registry = CollectorRegistry()
    registry.register(HubMetrics(hub, await sizes.read(hub), await asyncio.to_thread(hub.blobs.free_bytes)))
    ProcessCollector(registry=registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE)
