"""The hub's figures as Prometheus' library writes them."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from fallow.hub.core.hub import Hub
from fallow.hub.web.metrics import ABOUT
from fallow.model.events import JobCreated, LeaseGranted, NodeLost


def expose(hub: Hub, blob_bytes: int, free_bytes: int) -> bytes:
    """Write the figures of the hub and of its process."""
    registry = CollectorRegistry()
    registry.register(HubMetrics(hub, blob_bytes, free_bytes))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


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
