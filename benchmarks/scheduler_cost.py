"""What the scheduler alone costs: microseconds of CPU per lease and per task, against the size of the fleet and the job.

python benchmarks/scheduler_cost.py

A lease here is the whole path: inputs arrive, a lease is granted, its result comes back. Flat columns are the point:
the cost of a lease must not grow with the fleet, nor the cost of a task with the job.
"""

import time

from fallow.model.job import Counting, JobSpec, Pages
from fallow.model.node import NodeInfo
from fallow.model.page import ResultPage
from fallow.scheduler.effects import GrantLease
from fallow.scheduler.scheduler import Scheduler

NODES = (1, 10, 100, 1_000, 10_000)
TASKS = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8)
LEASES = 3_000
ROUNDS = 3


def fleet(nodes):
    scheduler = Scheduler()
    for number in range(nodes):
        info = NodeInfo(name="n", cores=2, slots=2, memory_bytes=1, os="linux", arch="x", pythons=("3.11",))
        scheduler.on_node_joined(f"n{number}", info, 0.0)
        scheduler.on_leases_presented(f"n{number}", (), 0.0)
    return scheduler


def spec(inputs):
    return JobSpec(id="j", stages=("map",), function="f", function_name="f", inputs=inputs)


def us_per_lease(nodes):
    """One single submit after the other, each its own lease, as `submit(f).result()` in a loop makes them."""
    scheduler, now, best = fleet(nodes), 0.0, float("inf")
    scheduler.on_job_created(spec(Pages()), now)
    for round_ in range(ROUNDS):
        began = time.process_time()
        for index in range(round_ * LEASES, (round_ + 1) * LEASES):
            now += 0.001
            effects = scheduler.on_inputs_added("j", index + 1, now)
            grant = next(effect for effect in effects if isinstance(effect, GrantLease))
            page = ResultPage(index, index + 1, b"", elapsed_s=1e-5)
            scheduler.on_results(grant.node, grant.lease.id, "j", (page,), now)
        best = min(best, time.process_time() - began)
    return best / LEASES * 1e6


def map_of(tasks):
    """A map of trivial tasks on one node of two slots: leases, and nanoseconds per task."""
    scheduler = fleet(1)
    scheduler.on_job_created(spec(Counting(0, 1)), 0.0)
    began = time.process_time()
    effects, leases, now = scheduler.on_job_sealed("j", tasks, 0.0), 0, 0.0
    grants = [effect for effect in effects if isinstance(effect, GrantLease)]
    while grants:
        grant = grants.pop(0)
        leases += 1
        size = grant.lease.stop - grant.lease.start
        now += size * 5e-7
        page = ResultPage(grant.lease.start, grant.lease.stop, b"", elapsed_s=size * 1e-6)
        effects = scheduler.on_results(grant.node, grant.lease.id, "j", (page,), now)
        grants += [effect for effect in effects if isinstance(effect, GrantLease)]
    return leases, (time.process_time() - began) / tasks * 1e9


def main():
    print("nodes      us per lease")
    for nodes in NODES:
        print(f"{nodes:<10,} {us_per_lease(nodes):.1f}")
    print("\ntasks          leases   ns per task")
    for tasks in TASKS:
        leases, cost_ns = map_of(tasks)
        print(f"{tasks:<14,} {leases:<8} {cost_ns:.1f}")


if __name__ == "__main__":
    main()
