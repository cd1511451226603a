"""Scale: what one hub does with many nodes, many clients and big jobs. `python benchmarks/load/scale.py all`

leases       1,000 agents that answer at once, one task per lease: leases granted, executed and acknowledged per second
idle         10,000 agents that have nothing to do: the hub's memory and CPU
"""

import argparse
import time

import processes
from processes import Agents, Hub

MANY = 100_000_000
"""Tasks: more than any run gets through."""


def seven(_):
    return 7


def leases(arguments):
    """1,000 agents, one task per lease."""
    with Hub() as hub, hub.grid() as grid, Agents(hub, arguments.agents) as agents:
        grid.map(seven, range(MANY), name="leases")
        time.sleep(2)
        before, cpu_s, agents_s, began = agents.ask(), hub.use.cpu_s, agents.use.cpu_s, time.perf_counter()
        time.sleep(arguments.seconds)
        after, cpu_s, agents_s = agents.ask(), hub.use.cpu_s - cpu_s, agents.use.cpu_s - agents_s
        took = time.perf_counter() - began
        done, tasks = after["acknowledged"] - before["acknowledged"], after["tasks"] - before["tasks"]
        print(
            f"leases: {arguments.agents} agents, {took:.0f} s: {done / took:,.0f} acknowledged leases/s of "
            f"{tasks / max(1, after['leases'] - before['leases']):.2f} tasks; hub {cpu_s / done * 1e6:.0f} us CPU per lease "
            f"({cpu_s / took:.0%} of a core), agents {agents_s / done * 1e6:.0f} us; acknowledged after "
            f"{after['waited_ms']} ms (median, 99 %); lost {after['lost']}; hub {hub.use.memory_mb:.0f} MB",
            flush=True,
        )
        if arguments.hold:
            input(f"hub is {hub.process.pid}; Enter ends ")


def idle(arguments):
    """Agents without work."""
    with Hub() as hub:
        empty_mb = hub.use.memory_mb
        half = arguments.idle_agents // 2
        began = time.perf_counter()
        cpu_s = hub.use.cpu_s
        with Agents(hub, half) as _one, Agents(hub, arguments.idle_agents - half) as _two:
            joined_s, cpu_s = time.perf_counter() - began, hub.use.cpu_s - cpu_s
            print(
                f"idle: {arguments.idle_agents} agents joined in {joined_s:.1f} s, {cpu_s / arguments.idle_agents * 1e3:.2f} ms CPU each"
            )
            time.sleep(5)
            began, cpu_s = time.perf_counter(), hub.use.cpu_s
            time.sleep(arguments.seconds)
            cpu_s, took = hub.use.cpu_s - cpu_s, time.perf_counter() - began
            full_mb = hub.use.memory_mb
            print(
                f"idle: hub {full_mb:.0f} MB, {(full_mb - empty_mb) / arguments.idle_agents * 1e3:.1f} KB per agent over "
                f"{empty_mb:.0f} MB; {cpu_s / took:.1%} of a core", flush=True,
            )  # fmt: skip


SCENARIOS = {"leases": leases, "idle": idle}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--idle-agents", type=int, default=10_000)
    parser.add_argument("--hold", action="store_true", help="keep everything running at the end, for a profiler")
    arguments = parser.parse_args()
    processes.allow_files()
    for name in SCENARIOS if arguments.scenario == "all" else [arguments.scenario]:
        SCENARIOS[name](arguments)


if __name__ == "__main__":
    main()
