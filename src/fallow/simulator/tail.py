"""The tail study: how near the end of a heavy-tailed job comes to what is possible, and what each part of the scheduler adds.

Figures are ratios of a run's makespan to max(work / total speed, longest task / fastest node), which no scheduler can go
below. The order bound is what a scheduler could reach that does not know how long tasks are and starts each only once:
see `docs/reliability.md`.
"""

import statistics
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from fallow.scheduler.settings import SchedulerSettings
from fallow.simulator.fleet import Fleet
from fallow.simulator.plan import Plan

WHOLE = "whole scheduler"

ABLATIONS: dict[str, SchedulerSettings] = {
    WHOLE: SchedulerSettings(),
    "leases that don't shrink": SchedulerSettings(factoring=1e-9),
    "no recall": SchedulerSettings(recall_min_s=float("inf")),
    "second attempts only at the end": SchedulerSettings(rescue_min_s=float("inf")),
    "no second attempts": SchedulerSettings(copy_min_s=float("inf"), rescue_min_s=float("inf")),
}
"""The scheduler, and what it is without one of its parts."""

ORDER_BOUND = "order bound"


class Ratios(msgspec.Struct, frozen=True):
    """Makespans over their lower bounds, over all seeds."""

    name: str
    median: float
    late: float
    """95th percentile."""
    utilisation: float | None
    """Mean part of the fleet's capacity that went into results that count."""


def study(plan: Plan, seeds: Sequence[int]) -> Iterator[Ratios]:
    """Run a plan of one job with every seed, whole and without each part; yield what came of each, the order bound last."""
    orders: list[float] = []
    for name, settings in ABLATIONS.items():
        reports = []
        for seed in seeds:
            fleet = Fleet(replace(plan, seed=seed), settings)
            reports.append(fleet.run())
            if name == WHOLE:
                orders.append(_order_bound_s(fleet) / reports[-1].bound_s)
        use = statistics.fmean(report.utilisation for report in reports)
        yield _ratios(name, [report.ratio for report in reports], use)
    yield _ratios(ORDER_BOUND, orders)


def _ratios(name: str, ratios: list[float], utilisation: float | None = None) -> Ratios:
    return Ratios(name, statistics.median(ratios), percentile(ratios, 0.95), utilisation)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that this part of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def _order_bound_s(fleet: Fleet) -> float:
    (durations,) = fleet.durations.values()
    speeds = [node.speed for node in fleet.nodes]
    return order_bound_s(durations, sum(speeds) * fleet.plan.slots, max(speeds))


def order_bound_s(durations: Sequence[float], total_speed: float, fastest: float) -> float:
    """Return how early all can be done if tasks start in order, as soon as the work before them is, on the fastest node.

    Optimistic twice: as if no node were ever without work, and as if the fastest were free for each task.
    """
    started_s, done_s = 0.0, 0.0
    for seconds in durations:
        done_s = max(done_s, started_s + seconds / fastest)
        started_s += seconds / total_speed
    return max(done_s, started_s)
