"""`fallow jobs`, `fallow job …` and `fallow explain`."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fallow.cli.options import By, ByOption, HubOption, JobArgument, JsonOption, TokenFileOption, ToOption, examples
from fallow.cli.output import Column, Row, choose

FOLLOW_S = 0.5
"""How often `fallow job logs --follow` looks."""

if TYPE_CHECKING:
    from fallow.cli.api import HubApi

job_commands = typer.Typer(
    help="Show, read, cancel and delete one job.",
    no_args_is_help=True,
    epilog=examples(
        "fallow job show sweep-7", "fallow job results sweep-7 > results.jsonl", "fallow job cancel sweep-7"
    ),
)


def connect(hub: str | None, token_file: Path | None) -> "HubApi":
    """Open the hub's API with what options, environment and config file say."""
    from fallow.cli.api import HubApi
    from fallow.cli.config import require_hub

    return HubApi(*require_hub(hub, token_file))


def _when(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _progress(row: Row) -> str:
    if row["size"] is None:
        return f"{row['settled']:,} of {row['accepted']:,} so far"
    share = f" ({100 * row['settled'] // row['size']}%)" if row["size"] else ""
    return f"{row['settled']:,} of {row['size']:,}{share}"


def _requires(row: Row) -> str:
    return ", ".join(
        f"{key} {' '.join(value) if isinstance(value, list) else value}" for key, value in row["requires"].items()
    )


def _failures(row: Row) -> str:
    return "\n".join(
        f"task {each['index']}: {_one_line(each['error'])}"
        + (f" (on {node})" if (node := each["error"].get("node")) else "")
        for each in row["failures"][:10]
    )


def _running(row: Row) -> str:
    return "\n".join(_task_line(each) for each in row.get("running", ())[:10])


def _task_line(task: Row) -> str:
    share = "" if task["fraction"] is None else f"{100 * task['fraction']:.0f}%"
    words = ", ".join(part for part in (share, task["message"]) if part)
    return f"task {task['index']} on {task['node']} for {task['seconds']:.0f} s" + (f": {words}" if words else "")


def _one_line(error: dict[str, Any]) -> str:
    parts = (error.get("type") or error["kind"], error.get("message", ""))
    return ": ".join(part for part in parts if part)


_ID = Column("Job", lambda row: row["id"], key="id")
_NAME = Column("Name", lambda row: row["name"] or "", key="name")
_FUNCTION = Column("Function", lambda row: row["function"], key="function")
_STATE = Column("State", lambda row: row["state"], key="state")
_FAILED = Column("Failed", lambda row: f"{row['failed']:,}" if row["failed"] else "", right=True, key="failed")
_CREATED = Column("Created", lambda row: _when(row["created_at"]), key="created_at")

LISTED = [
    Column("Job", lambda row: row["name"] or row["id"], key="id"),
    Column("Name", lambda row: row["name"] or "", key="name", for_people=False),
    _FUNCTION,
    _STATE,
    Column("Settled", _progress, right=True, key="settled"),
    _FAILED,
    _CREATED,
]
SHOWN = [
    _ID,
    _NAME,
    _FUNCTION,
    _STATE,
    Column("Settled", _progress),
    _FAILED,
    Column("At nodes", lambda row: f"{row['leased']:,}" if row["leased"] else ""),
    Column("Running", _running),
    Column("Requires", _requires),
    Column("Priority", lambda row: str(row["priority"] or "")),
    Column("Retries", lambda row: str(row["retries"] or "")),
    Column("Timeout", lambda row: f"{row['timeout']:g} s" if row["timeout"] else ""),
    _CREATED,
    Column("Ended", lambda row: _when(row["ended_at"])),
    Column("Failures", _failures),
]


def jobs(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="Show at most this many.")] = 30,
    json: JsonOption = False,
    hub: HubOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """List your jobs.

    The running ones come first, then the latest that ended. An admin sees everybody's.
    """
    with connect(hub, token_file) as api:
        found = api.call("GET", "/jobs", params={"limit": limit})["jobs"]
    choose(json).table(found, LISTED, "no jobs yet")


@job_commands.command("show", epilog=examples("fallow job show sweep-7", "fallow job show sweep-7 --json"))
def show(job: JobArgument, json: JsonOption = False, hub: HubOption = None, token_file: TokenFileOption = None) -> None:
    """Show how far a job is, what it needs, what failed."""
    from fallow.cli.api import job_path

    with connect(hub, token_file) as api:
        found = api.call("GET", job_path(job))
        if found["state"] == "running":
            found["running"] = api.call("GET", job_path(job, "/running"))["tasks"]
    choose(json).record(found, SHOWN)


@job_commands.command("cancel", epilog=examples("fallow job cancel sweep-7"))
def cancel(job: JobArgument, hub: HubOption = None, token_file: TokenFileOption = None) -> None:
    """Stop a job's tasks, running ones too.

    The results that are there stay.
    """
    from fallow.cli.api import job_path

    with connect(hub, token_file) as api:
        api.call("POST", job_path(job, "/cancel"))


@job_commands.command("delete", epilog=examples("fallow job delete sweep-7", "fallow job delete sweep-7 sweep-8"))
def delete(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids or names.")],
    hub: HubOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Delete jobs with all their inputs and results.

    Those that run are cancelled first.
    """
    from fallow.cli.api import job_path

    with connect(hub, token_file) as api:
        for job in jobs:
            api.call("DELETE", job_path(job))


@job_commands.command("logs", epilog=examples("fallow job logs sweep-7", "fallow job logs sweep-7 --follow"))
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes until the job ends.")] = False,
    json: JsonOption = False,
    hub: HubOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Print what a job's tasks printed.

    In order of arrival at the hub. With --json each line is {"index": …, "text": …, "node": …}.
    """
    import json as json_module
    import sys
    import time

    from fallow.cli.api import job_path

    read = 0
    with connect(hub, token_file) as api:
        while True:
            has_ended = not follow or api.call("GET", job_path(job))["state"] in {"done", "cancelled"}
            following: int | None = read
            while following is not None:
                page = api.call("GET", job_path(job, "/logs"), params={"after": following})
                for entry in page["entries"]:
                    sys.stdout.write(json_module.dumps(entry, ensure_ascii=False) + "\n" if json else entry["text"])
                read += len(page["entries"])
                following = page["next"]
            sys.stdout.flush()
            if has_ended:
                break
            time.sleep(FOLLOW_S)


@job_commands.command(
    "results",
    epilog=examples(
        "fallow job results sweep-7 > results.jsonl",
        "fallow job results sweep-7 --json > indexed.jsonl",
        "fallow job results sweep-7 --to out --by parameters",
    ),
)
def results(
    job: JobArgument,
    json: JsonOption = False,
    to: ToOption = None,
    by: ByOption = By.index,
    hub: HubOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Print a job's results in order, one a line; or write a program's output files.

    As JSON where they can be, else as Python shows them. Of a job that still runs, prints what comes until it ends. Failed tasks are told on stderr, and the exit code is 1.
    With --json each line is {"index": …, "value": …} or {"index": …, "error": …}. With --to the files of a program's tasks are written as they end; what is there already is checked and kept, so that the command can be repeated.
    """
    from fallow.cli.results import download_results, print_results

    if to is not None:
        from fallow.cli.config import require_hub

        download_results(*require_hub(hub, token_file), job, to, by.value)
        return
    with connect(hub, token_file) as api:
        failed = print_results(api, job, with_index=json)
    if failed:
        raise typer.Exit(1)


def explain(
    job: JobArgument, json: JsonOption = False, hub: HubOption = None, token_file: TokenFileOption = None
) -> None:
    """Say in plain words what a job waits for."""
    from fallow.cli.api import job_path

    with connect(hub, token_file) as api:
        found = api.call("GET", job_path(job, "/explain"))
    choose(json).lines(found["reasons"], "reasons")
