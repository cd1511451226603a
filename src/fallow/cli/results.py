"""What `fallow job results` prints. Pickles are opened only of jobs that the caller's own token created."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fallow.cli.api import HubApi, job_path
from fallow.cli.output import remark
from fallow.model.errors import BadRequest, Forbidden

if TYPE_CHECKING:
    from fallow.client.download import Downloaded


def download_results(hub: str, token: str, job: str, folder: Path, by: str) -> None:
    """Write what a program's tasks put out into a folder, as they end."""
    from fallow import Grid
    from fallow.client.program_job import ProgramJob

    with Grid(hub, token=token) as grid:
        found = grid.job(job)
        if not isinstance(found, ProgramJob):
            raise BadRequest(f"job {job!r} runs no program: its results are values, not files; leave out --to")
        tell_download(found.download(folder, by=by), folder)  # type: ignore[arg-type]


def tell_download(found: "Downloaded", folder: Path) -> None:
    """Say what was written; raises typer.Exit if tasks failed."""
    there = f", {found.files - found.fresh:,} of them there already" if found.fresh < found.files else ""
    remark(f"{folder}: {found.files:,} files of {found.tasks:,} tasks{there}")
    for index, error in found.failures:
        remark(f"task {index}: {type(error).__name__}: {error}")
    if found.failures:
        raise typer.Exit(1)


def print_results(api: HubApi, job: str, *, with_index: bool) -> int:
    """Print a job's results in order; return how many tasks failed."""
    info = api.call("GET", job_path(job))
    if info["codec"] == "json":
        return _print_json_job(api, info["id"], with_index)
    if info["owner"] != api.call("GET", "/whoami")["id"]:
        raise Forbidden(
            f"job {job!r} was made with another token, and opening its results would run what that one's owner put "
            "into them; the owner can read them"
        )
    return _print_pickled_job(api, info["id"], with_index)


def _print_json_job(api: HubApi, job: str, with_index: bool) -> int:
    failed = 0
    for line in api.lines(job_path(job, "/results")):
        if with_index:
            print(line)
        result = json.loads(line)
        if "error" in result:
            failed += 1
            _tell_failure(result["index"], result["error"].get("type") or result["error"]["kind"], result["error"])
        elif not with_index:
            print(json.dumps(result["value"], ensure_ascii=False))
    return failed


def _tell_failure(index: int, kind: str, error: dict[str, Any]) -> None:
    remark(f"task {index}: {kind}: {error.get('message', '')}")


def _print_pickled_job(api: HubApi, job: str, with_index: bool) -> int:
    from fallow import Grid

    failed = 0
    with Grid(api.hub, token=api.secret, progress=False) as grid:
        for index, value in enumerate(grid.job(job).results(return_exceptions=True)):
            if isinstance(value, BaseException):
                failed += 1
                remark(f"task {index}: {type(value).__name__}: {value}")
                if with_index:
                    print(json.dumps({"index": index, "error": {"type": type(value).__name__, "message": str(value)}}))
            elif with_index:
                print(f'{{"index": {index}, "value": {_as_json(value, must_be=True)}}}')
            else:
                print(_as_json(value))
    sys.stdout.flush()
    return failed


def _as_json(value: Any, *, must_be: bool = False) -> str:
    """Write a value as JSON if it survives that, else as Python shows it (a JSON text of that, if it must be JSON)."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        shown = repr(value)
        return json.dumps(shown, ensure_ascii=False) if must_be else shown
    return text
