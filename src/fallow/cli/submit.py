"""`fallow submit`: a job file to the grid."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fallow.cli.options import By, ByOption, HubOption, TokenFileOption

if TYPE_CHECKING:
    from fallow.client.job_file.reading import Job


def _print_schema(wanted: bool) -> None:
    if wanted:
        from fallow.client.job_file.form import json_schema

        print(json.dumps(json_schema(), indent=2))
        raise typer.Exit


def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The job file, in TOML.")],
    *,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The job's name, whatever the file says.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Wait, and write what the tasks put out into DIR as they end."),
    ] = None,
    by: ByOption = By.index,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the file makes sense, and how many tasks it has.")
    ] = False,
    schema: Annotated[
        bool,
        typer.Option("--schema", callback=_print_schema, is_eager=True, help="Print the JSON schema of job files."),
    ] = False,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Use this computer's cores, even if a hub is configured; needs --to.")
    ] = False,
    hub: HubOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Run a program as a job file says: once for each set of parameters, with its files.

    Prints the job's name once the hub has all of it; then this computer is not needed any more. `fallow results JOB --to DIR`
    fetches what the tasks put out. Job files are described in docs/programs.md.
    """
    from fallow.client.job_file.reading import read_job_file

    job = read_job_file(file)
    if check:
        count = job.rows.known_length()
        print(f"{file} makes sense: {count} task{'' if count == 1 else 's'}")
        return
    _submit(
        job,
        name or job.name or file.stem,
        to,
        by,
        hub=hub,
        token_file=token_file,
        embedded=embedded,
        is_named=bool(name or job.name),
    )


def _submit(
    job: "Job",
    name: str,
    to: Path | None,
    by: By,
    *,
    hub: str | None,
    token_file: Path | None,
    embedded: bool,
    is_named: bool,
) -> None:
    import os
    import secrets

    from fallow import Grid
    from fallow.cli.config import find_connection, require_hub
    from fallow.cli.results import tell_download
    from fallow.model.errors import BadRequest

    if embedded:
        if to is None:
            raise BadRequest("an embedded grid ends with this command: say with --to where the results go")
        grid = Grid(slots=os.cpu_count() or 1)
    elif to is not None and find_connection(hub, token_file).hub is None:
        grid = Grid()
    else:
        address, secret = require_hub(hub, token_file)
        grid = Grid(address, token=secret)
        name = name if is_named else f"{name}-{secrets.token_hex(3)}"
    with grid:
        started = grid._run(job.prepared, job.rows, {**job.options, "name": name})
        if to is not None:
            tell_download(started.download(to, by=by.value), to)
    if to is None:
        print(name)
