"""`python -m fallow.simulator`: simulate a fleet, or replay the random scenario of a seed."""

import shlex
import statistics
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fallow.model.requirements import format_size, parse_requirements
from fallow.scheduler.settings import SchedulerSettings
from fallow.simulator.durations import KINDS
from fallow.simulator.fleet import Fleet, Report
from fallow.simulator.plan import Faults, Plan, Work
from fallow.simulator.scenarios import random_plan
from fallow.simulator.tail import percentile, study

app = typer.Typer(add_completion=False)

COLUMNS = (
    "seed",
    "makespan s",
    "bound s",
    "ratio",
    "use",
    "tasks",
    "failed",
    "repeated",
    "leases",
    "recalls",
    "hub starts",
    "events",
    "wall s",
)


def row(seed: int, report: Report) -> list[str]:
    """Return one run as cells of the table."""
    return [
        str(seed),
        f"{report.makespan_s:.1f}",
        f"{report.bound_s:.1f}",
        f"{report.ratio:.3f}",
        f"{report.utilisation:.0%}",
        f"{report.tasks:,}",
        f"{report.failed:,}",
        f"{report.repeated:,}",
        f"{report.leases:,}",
        f"{report.recalls:,}",
        str(report.hub_starts),
        f"{report.events:,}",
        f"{report.wall_s:.1f}",
    ]


def _command(context: typer.Context, **changed: int) -> str:
    """Return the command line of this run, with some options changed; those that have their defaults are left out."""
    words = ["python", "-m", "fallow.simulator"]
    for option in context.command.params:
        value = changed.get(str(option.name), context.params[str(option.name)])
        if value == option.default:
            continue
        flag = option.opts[0] if value is not False else option.secondary_opts[0]
        values = value if isinstance(value, tuple) else () if isinstance(value, bool) else (value,)
        words += [flag, *map(str, values)]
    return shlex.join(words)


@app.command()
def simulate(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(help="Nodes of the fleet.")] = 100,
    slots: Annotated[int, typer.Option(help="Slots of each node.")] = 1,
    speeds: Annotated[tuple[float, float], typer.Option(help="Slowest and fastest node.")] = (1.0, 3.5),
    score_error: Annotated[float, typer.Option(help="Part by which published scores are off.")] = 0.0,
    tasks: Annotated[int, typer.Option(help="Tasks of the job.")] = 10_000,
    durations: Annotated[str, typer.Option(help=f"Distribution of their lengths: {', '.join(KINDS)}.")] = "pareto",
    median_s: Annotated[float, typer.Option(help="Median length of a task on a node of speed 1, seconds.")] = 1.0,
    memory: Annotated[
        str, typer.Option(help='Memory of each task, such as "2GB"; nodes have 4 GB for each slot.')
    ] = "0",
    latency_s: Annotated[float, typer.Option(help="One-way latency between hub and nodes, seconds.")] = 0.001,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    runs: Annotated[int, typer.Option(help="How many seeds, one after the other.")] = 1,
    speculate: Annotated[bool, typer.Option(help="Allow second attempts.")] = True,
    recall: Annotated[bool, typer.Option(help="Allow recalls.")] = True,
    target_lease_s: Annotated[float, typer.Option(help="Seconds of work per slot in a lease.")] = 1.0,
    link_cut_s: Annotated[float, typer.Option(help="Mean time until a node's link breaks, seconds; 0: never.")] = 0.0,
    node_gone_s: Annotated[float, typer.Option(help="Mean time until a node vanishes, seconds; 0: never.")] = 0.0,
    hub_killed_s: Annotated[float, typer.Option(help="Mean time until the hub is killed, seconds; 0: never.")] = 0.0,
    slowdown_s: Annotated[float, typer.Option(help="Mean time until a node slows down, seconds; 0: never.")] = 0.0,
    lost: Annotated[float, typer.Option(help="Part of the frames that are lost.")] = 0.0,
    state: Annotated[
        str, typer.Option(help="What the hub commits to: memory, or sql (needs fallow\\[hub]).")
    ] = "memory",
    tail: Annotated[
        bool, typer.Option("--tail", help="Compare the whole scheduler with what it is without each of its parts.")
    ] = False,
    scenario: Annotated[
        bool, typer.Option("--scenario", help="Ignore all but --seed and --runs: random faults, fully checked.")
    ] = False,
) -> None:
    r"""Simulate a fleet under virtual time around the real scheduler, and print how each run came out.

    \b
    python -m fallow.simulator --runs 10
    python -m fallow.simulator --nodes 10000 --tasks 1000000 --durations exponential
    python -m fallow.simulator --scenario --seed 17
    python -m fallow.simulator --tail --runs 100
    """
    usual = SchedulerSettings()
    settings = SchedulerSettings(
        target_lease_s=target_lease_s, recall_min_s=usual.recall_min_s if recall else float("inf")
    )
    wants = parse_requirements({"memory": memory})
    console = Console()
    plan = Plan(
        work=(Work(tasks=tasks, durations=durations, median_s=median_s, requirements=wants, speculate=speculate),),
        nodes=nodes,
        slots=slots,
        slowest=speeds[0],
        fastest=speeds[1],
        score_error=score_error,
        latency_s=latency_s,
        faults=Faults(
            link_cut_s=link_cut_s,
            node_gone_s=node_gone_s,
            hub_killed_s=hub_killed_s,
            slowdown_s=slowdown_s,
            lost=lost,
        ),
        state="sql" if state == "sql" else "memory",
    )
    if tail:
        _study(console, plan, range(seed, seed + runs))
        return
    title = f"tasks of {format_size(wants.memory_bytes)}" if wants.memory_bytes else None
    table = Table(*COLUMNS, title=title)
    ratios = []
    for each in range(seed, seed + runs):
        try:
            report = Fleet(random_plan(each) if scenario else replace(plan, seed=each), settings).run()
        except AssertionError as error:
            console.print(f"[red]seed {each} failed:[/red] {escape(str(error))}", soft_wrap=True)
            console.print(f"replay: {_command(context, seed=each, runs=1)}", soft_wrap=True, highlight=False)
            raise typer.Exit(1) from error
        ratios.append(report.ratio)
        table.add_row(*row(each, report))
    console.print(table)
    if runs > 1:
        late = percentile(ratios, 0.95)
        console.print(f"ratio to the bound: median {statistics.median(ratios):.3f}, 95th percentile {late:.3f}")


def _study(console: Console, plan: Plan, seeds: range) -> None:
    table = Table("makespan / lower bound", "median", "95th percentile", "use", title=f"{len(seeds)} seeds")
    for each in study(plan, seeds):
        use = "" if each.utilisation is None else f"{each.utilisation:.0%}"
        table.add_row(each.name, f"{each.median:.3f}", f"{each.late:.3f}", use)
    console.print(table)


if __name__ == "__main__":
    app()
