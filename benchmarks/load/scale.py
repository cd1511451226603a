"""Scale: what one hub does with many nodes, many clients and big jobs. `python benchmarks/load/scale.py all`

leases       1,000 agents that answer at once, one task per lease: leases granted, executed and acknowledged per second
busy         10,000 agents that take 2 to 8 s for each lease of one task: what is lost or run twice, how late acknowledgements are
idle         10,000 agents that have nothing to do: the hub's memory and CPU
submissions  acknowledged submissions per second and their latency against the number of clients: group commit
cost         the hub's CPU per lease from 1 to 10,000 agents, and per task of maps from 1,000 to 100,000,000 tasks
restart      seconds until a killed hub answers again, against jobs and finished tasks
map          a map of 100,000,000 integers through hub, node and client, and embedded: memory of each as it goes
growth       what the hub keeps of departed nodes and clients, finished maps and finished submits

Every line is for one run on this machine; CPU per lease or per submission does not depend on who else uses it.
With `--json FILE` what cost, restart and submissions measure is added to the file, from which `scale_plot.py` draws.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import growth as growths
import load_processes
from load_processes import JOIN, Agents, Clients, Hub, Use
from machine import describe

MANY = 100_000_000
"""Tasks: more than any run gets through."""
CLIENTS = (1, 10, 100, 1000)
FLEETS = (1, 10, 100, 1_000, 10_000)
AGENTS_PER_PROCESS = 5_000
MAPS = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8)
REPEATED_TASKS, MOST_REPEATS = 10**7, 100
"""Small maps are repeated until there are so many tasks, or maps: a process's CPU time is counted in hundredths of a second."""
RESTARTS = ((1, 10_000), (1, 100_000), (1, 1_000_000), (10, 1_000_000), (100, 1_000_000))
BUSY_S = (2.0, 8.0)
BUSY_LEASES = 4
"""Per agent."""


def seven(_):
    return 7


class Notes:
    """What was measured: printed, and kept to be drawn."""

    def __init__(self):
        self.figures = []

    def add(self, what, size, **figures):
        """what: a panel of the plot. size: where on its x axis."""
        self.figures.append({"what": what, "size": size, **figures})

    def save(self, path, facts):
        """Add this run to the file."""
        runs = json.loads(path.read_text()) if path.exists() else []
        at = datetime.now(UTC).isoformat(timespec="seconds")
        runs.append({"at": at, **facts, "figures": self.figures})
        path.write_text(json.dumps(runs, indent=1) + "\n")


def leases(arguments, _notes):
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
        acknowledged = agents.ask()["acknowledged"]
        hub.kill()
        hub.start()
        with hub.grid() as again:
            settled = again.job("leases").progress.settled
        assert settled >= acknowledged, f"{acknowledged} leases were acknowledged, {settled} tasks are there"
        print(
            f"leases: after kill -9 of the hub {settled:,} tasks are there, {acknowledged:,} were acknowledged",
            flush=True,
        )


def busy(arguments, _notes):
    """Agents that each have a lease for some seconds."""
    with Hub() as hub, hub.grid() as grid, contextlib.ExitStack() as stack:
        fleet = _fleet(stack, hub, arguments.busy_agents, answer_after_s=BUSY_S)
        cpu_s, began, tasks = hub.use.cpu_s, time.perf_counter(), BUSY_LEASES * arguments.busy_agents
        job = grid.map(seven, range(tasks), name="busy", speculate=False)
        assert sum(job) == 7 * tasks
        cpu_s, took = hub.use.cpu_s - cpu_s, time.perf_counter() - began
        found = [each.ask() for each in fleet]
        print(
            f"busy: {arguments.busy_agents} agents, {BUSY_S[0]:.0f} to {BUSY_S[1]:.0f} s per lease: {tasks:,} tasks in {took:.0f} s; "
            f"{sum(each['tasks'] for each in found) - tasks} run twice, {sum(each['lost'] for each in found)} nodes lost; hub "
            f"{cpu_s / tasks * 1e6:.0f} us CPU per lease ({cpu_s / took:.0%} of a core); acknowledged after "
            f"{[each['waited_ms'] for each in found]} ms (median, 99 %)", flush=True,
        )  # fmt: skip


def idle(arguments, _notes):
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


def submissions(arguments, notes):
    """Clients that each submit one job of one task after the other, and wait until it is acknowledged."""
    for clients in _sizes(CLIENTS, arguments):
        with Hub() as hub, Clients(hub, clients, min(arguments.seconds, 10)) as process:
            cpu_s = hub.use.cpu_s
            found = process.answer()
            cpu_s = hub.use.cpu_s - cpu_s
            notes.add(
                "submissions", clients, per_s=found["per_s"], ms=found["ms"][0], ms_99=found["ms"][1], us=cpu_s / found["count"] * 1e6,
            )  # fmt: skip
            print(
                f"submissions: {clients} clients: {found['per_s']:,.0f} acknowledged/s, {found['ms'][0]:.2f} ms median, "
                f"{found['ms'][1]:.2f} ms 99 %; hub {cpu_s / found['count'] * 1e6:.0f} us CPU each, clients {found['clients_us']:.0f} us",
                flush=True,
            )  # fmt: skip


def _sizes(sizes, arguments):
    return [size for size in sizes if size <= arguments.most]


def _fleet(stack, hub, count, **how):
    """Start so many agents, in as few processes as hold them."""
    starts = range(0, count, AGENTS_PER_PROCESS)
    return [stack.enter_context(Agents(hub, min(count - at, AGENTS_PER_PROCESS), **how)) for at in starts]


def cost(arguments, notes):
    """CPU per lease and per task against size."""
    for count in _sizes(FLEETS, arguments):
        with Hub() as hub, hub.grid() as grid, contextlib.ExitStack() as stack:
            fleet = _fleet(stack, hub, count)
            grid.map(seven, range(MANY), name="leases")
            time.sleep(2)
            before, cpu_s = sum(each.ask()["acknowledged"] for each in fleet), hub.use.cpu_s
            time.sleep(min(arguments.seconds, 10))
            cpu_s, done = hub.use.cpu_s - cpu_s, sum(each.ask()["acknowledged"] for each in fleet) - before
            notes.add("lease", count, us=cpu_s / done * 1e6)
            print(f"cost: {count} agents: {cpu_s / done * 1e6:.0f} us CPU of the hub per lease of one task", flush=True)
    with Hub() as hub, hub.grid() as grid, Agents(hub, 2, seconds_per_task=1e-6) as agents:
        for tasks in _sizes(MAPS, arguments):
            repeats = max(1, min(MOST_REPEATS, REPEATED_TASKS // tasks))
            leases, cpu_s = agents.ask()["leases"], hub.use.cpu_s
            for _ in range(repeats):
                assert sum(grid.map(seven, range(tasks))) == 7 * tasks
            leases, cpu_s = agents.ask()["leases"] - leases, hub.use.cpu_s - cpu_s
            notes.add("task", tasks, ns=cpu_s / repeats / tasks * 1e9)
            print(
                f"cost: {tasks:,} tasks: {leases / repeats:.0f} leases, {cpu_s / repeats / tasks * 1e9:.0f} ns CPU of the hub per task",
                flush=True,
            )


def restart(arguments, notes):
    """Named jobs half done, the hub killed, and started again on what is there."""
    for jobs, tasks in RESTARTS:
        if jobs * tasks > arguments.most:
            continue
        with Hub() as hub:
            with hub.grid() as grid, Agents(hub, 10, seconds_per_task=1e-5) as agents:
                made = [grid.map(seven, range(tasks), name=f"job {number}") for number in range(jobs)]
                while sum(each.progress.settled for each in made) < jobs * tasks / 2:
                    time.sleep(0.05)
                settled = agents.ask()["acknowledged"]
                hub.kill()
            took, cpu_s = hub.start(), hub.use.cpu_s
            with hub.grid() as grid:
                kept = sum(grid.job(f"job {number}").progress.settled for number in range(jobs))
            notes.add("restart", jobs * tasks, s=took, cpu_s=cpu_s, mb=hub.use.memory_mb)
            print(
                f"restart: {jobs} jobs of {tasks:,} tasks, {kept:,} settled, {settled:,} leases acknowledged: answers after {took:.2f} s "
                f"({cpu_s:.2f} s CPU), {hub.use.memory_mb:.0f} MB", flush=True,
            )  # fmt: skip


def big_map(arguments, _notes):
    """A map of 100,000,000 integers: through a hub and a real node, and embedded."""
    with Hub() as hub:
        node = subprocess.Popen(
            [sys.executable, "-m", "fallow", "node", hub.url, "--slots", "1", "--state", hub.folder / "node", "--sandbox", "process"],
            env={**os.environ, "FALLOW_TOKEN": JOIN}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with hub.grid() as grid:
                _consume("map: through a hub", grid, arguments.tasks, {"hub": hub.use, "node": Use(node.pid)})
        finally:
            node.terminate()
            node.wait()
    from fallow import Grid

    with Grid(progress=False) as grid:
        _consume("map: embedded", grid, arguments.tasks, {})


def _consume(what, grid, tasks, others):
    uses = {**others, "client": Use(os.getpid())}
    began, samples = time.perf_counter(), []
    total = 0
    for number, value in enumerate(grid.map(abs, range(tasks)), 1):
        total += value
        if number % (tasks // 10) == 0:
            samples.append({name: use.memory_mb for name, use in uses.items()})
    assert total == tasks * (tasks - 1) // 2, "a result is missing"
    took = time.perf_counter() - began
    memory = "; ".join(f"{name} " + ", ".join(f"{each[name]:.0f}" for each in samples) for name in uses)
    print(f"{what}: {tasks:,} tasks in {took:.0f} s, {tasks / took:,.0f}/s; MB at every tenth: {memory}", flush=True)


def growth(arguments, _notes):
    """What stays of what has ended."""
    rounds = 5
    for what, measure, count in (
        ("departed node", growths.per_departed_node, 2_500),
        ("departed client", growths.per_departed_client, 500),
        ("task of a finished map that stays", growths.per_mapped_task, 5_000_000),
        ("finished submit whose future is held", growths.per_submit, 250_000),
    ):
        with Hub() as hub:
            found = measure(hub, rounds, count)
            print(
                f"growth: {sum(found) / rounds:.1f} bytes per {what} ({rounds} rounds of {count:,}: "
                f"{', '.join(f'{each:.1f}' for each in found)})", flush=True,
            )  # fmt: skip


SCENARIOS = {
    "leases": leases, "busy": busy, "idle": idle, "submissions": submissions, "cost": cost, "restart": restart, "map": big_map, "growth": growth,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", choices=[*SCENARIOS, "all"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--idle-agents", type=int, default=10_000)
    parser.add_argument("--busy-agents", type=int, default=10_000)
    parser.add_argument("--most", type=int, default=MANY, help="leave out what has more nodes, clients or tasks")
    parser.add_argument("--json", type=Path, help="add what was measured to this file")
    parser.add_argument("--tasks", type=int, default=100_000_000, help="of the big map")
    parser.add_argument("--hold", action="store_true", help="keep everything running at the end, for a profiler")
    arguments = parser.parse_args()
    load_processes.allow_files()
    facts, notes = describe(), Notes()
    for what, fact in facts.items():
        print(f"{what:9} {fact}")
    try:
        for name in SCENARIOS if "all" in arguments.scenarios else arguments.scenarios:
            SCENARIOS[name](arguments, notes)
    finally:
        if arguments.json is not None:
            notes.save(arguments.json, facts)


if __name__ == "__main__":
    main()
