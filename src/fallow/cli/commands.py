"""The commands of `fallow`, and its help."""

from typing import Annotated

import typer

from fallow.cli.grid_lists import nodes, token_commands
from fallow.cli.hub import hub
from fallow.cli.jobs import explain, job_commands, jobs, results
from fallow.cli.map import map_command
from fallow.cli.node import node
from fallow.cli.options import examples
from fallow.cli.submit import submit
from fallow.cli.version import config, version

WORK, SEE, RUN = "Work", "See", "Run"

app = typer.Typer(
    name="fallow",
    help="Turn the computers you already have into one grid.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        examples(
            "fallow hub                             # prints tokens, and the next line",
            "fallow node http://hub.example:7070    # on each computer that lends its cores",
        )
        + "\n\n \n\n"
        "--hub, $FALLOW_HUB or the config file name the hub.\n\n"
        "--token-file, $FALLOW_TOKEN or the config file give the token; `fallow config` tells."
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _add(panel: str, name: str, function: object, *lines: str) -> None:
    app.command(name, rich_help_panel=panel, epilog=examples(*lines))(function)  # type: ignore[type-var]


_add(RUN, "hub", hub, "fallow hub", "fallow hub --state /srv/fallow --host 0.0.0.0", "fallow hub --port 0")
_add(
    RUN,
    "node",
    node,
    "FALLOW_TOKEN=JOIN_TOKEN fallow node http://hub.example:7070",
    "fallow node https://hub.example --token-file join.token --slots 2 --tags lab,gpu",
)
_add(
    WORK,
    "map",
    map_command,
    "fallow map math:sqrt < numbers.jsonl > roots.jsonl",
    "fallow map mymodule:score --hub http://hub.example:7070 --unordered < in.jsonl > out.jsonl",
)
_add(
    WORK,
    "submit",
    submit,
    "fallow submit job.toml",
    "fallow submit job.toml --to out",
    "fallow submit job.toml --check",
)
_add(
    WORK,
    "results",
    results,
    "fallow results sweep-7 --to out",
    "fallow results sweep-7 --to out --by parameters",
    "fallow results sweep-7 > results.jsonl",
)
_add(SEE, "jobs", jobs, "fallow jobs", "fallow jobs --json | jq '.[].id'")
app.add_typer(job_commands, name="job", rich_help_panel=SEE)
_add(SEE, "explain", explain, "fallow explain sweep-7")
_add(SEE, "nodes", nodes, "fallow nodes", "fallow nodes --json")
app.add_typer(token_commands, name="token", rich_help_panel=RUN)
_add(SEE, "config", config, "fallow config", "fallow config --json")
_add(SEE, "version", version, "fallow version")


@app.command(
    "demo",
    rich_help_panel=WORK,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    epilog=examples("fallow demo", "fallow demo --help"),
)
def demo(context: typer.Context) -> None:
    """Watch a real grid compute something real.

    A hub, nodes, a loss half way, and a verified result. `fallow demo --help` lists more.
    """
    from fallow.cli.needs import hub_extra

    with hub_extra():
        from fallow.demo.cli import app as demo_app
    demo_app(context.args, prog_name="fallow demo")
