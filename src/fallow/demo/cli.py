"""`fallow demo`: a hub, some nodes and a client as real processes on this computer, computing something real."""

import json
import signal
import sys
from dataclasses import asdict
from enum import StrEnum
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from fallow.demo import programs
from fallow.model.errors import FallowError

MOST_NODES = 64
MOST_DIGITS = 100_000

app = typer.Typer(add_completion=False)


class Choice(StrEnum):
    """The programs on offer."""

    pi = "pi"
    search = "search"
    nbody = "nbody"
    sweep = "sweep"


@app.command(epilog="Examples\n\nfallow demo\n\nfallow demo --digits 2000 --nodes 4\n\nfallow demo search --no-kill")
def demo(
    program: Annotated[
        Choice,
        typer.Argument(
            help="pi: digits by position. search: nearest texts. nbody: star clusters. sweep: epidemics.",
        ),
    ] = Choice.pi,
    digits: Annotated[
        int, typer.Option(min=1, max=MOST_DIGITS, help="How many digits of Pi; the time grows with the cube.")
    ] = programs.DEFAULT_DIGITS,
    nodes: Annotated[int, typer.Option(min=1, max=MOST_NODES, help="How many nodes of one slot.")] = 2,
    kill: Annotated[bool, typer.Option("--kill/--no-kill", help="Kill a node half way and start it again.")] = True,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Run the same tasks in one process first, for the speed-up.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON at the end.")] = False,
) -> None:
    """Watch a real grid compute something real, lose a node half way, and finish with a verified result.

    A hub and two nodes start on this computer, one node is killed and started again, every result is checked.

    Nothing of it is left when it ends. The exit code is 1 if any result was wrong.
    """
    from fallow.demo.screen import Screen
    from fallow.demo.show import run

    signal.signal(signal.SIGTERM, _stop)
    console = Console(stderr=as_json, highlight=False)
    try:
        with Screen(console) as screen:
            figures = run(_chosen(program, digits), screen, nodes=nodes, kill=kill, compare=compare)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        raise typer.Exit(130) from None
    except FallowError as error:
        console.print(f"the demo failed: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        json.dump({**asdict(figures), "speedup": figures.speedup}, sys.stdout)
        sys.stdout.write("\n")
    if not figures.is_right:
        raise typer.Exit(1)


def _chosen(program: Choice, digits: int) -> programs.Program:
    if program is Choice.pi:
        return programs.pi_digits(digits)
    if program is Choice.search:
        return programs.document_search()
    if program is Choice.nbody:
        return programs.star_clusters()
    return programs.epidemic_sweep()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does, so that what was started is stopped."""
    raise KeyboardInterrupt
