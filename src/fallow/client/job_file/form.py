"""The keys of a job file, from which its JSON schema is made."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Value = str | int | float | bool
"""What a parameter may be."""


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of numbers. Whole ones: from start, by step, stop excluded. With `count`: so many, start and stop included."""

    start: int | float
    stop: int | float
    step: Annotated[int | None, Meta(description="Between whole numbers; 1 unless said otherwise.")] = None
    count: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000_000)] | None, Meta(description="How many numbers, evenly spaced.")
    ] = None


class EnvironmentForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Python environment for the tasks."""

    python: Annotated[str | None, Meta(description='Minor version, such as "3.12".')] = None
    packages: Annotated[list[str], Meta(description='Such as "numpy==2.3".')] = []
    project: Annotated[
        str | None, Meta(description="A folder with pyproject.toml, or a file of requirements, instead of packages.")
    ] = None


class JobFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program that runs once for each set of parameters."""

    command: Annotated[
        str | list[str],
        Meta(
            description="Program and arguments. {x} is the parameter x, {index} the task's index, {executable} the executable "
            "for the node's platform; {{ and }} are braces. A text is split into words as a shell would, but no shell runs it."
        ),
    ]
    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=200)] | None,
        Meta(description="The job's name; else the file's with some digits."),
    ] = None
    shell: Annotated[bool, Meta(description="Whether a shell runs the command. Parameters are quoted for it.")] = False
    inputs: Annotated[
        list[str] | dict[str, str],
        Meta(
            description="Files and folders for the tasks, relative to the job file; as a table: by their names there. Placeholders "
            "give each task its own."
        ),
    ] = []
    outputs: Annotated[
        list[str], Meta(description="Files, folders and patterns (*, ?, **) that each task must leave in its folder.")
    ] = []
    executables: Annotated[
        dict[str, str], Meta(description='Files for {executable} by platform, such as "linux-x86_64".')
    ] = {}
    environ: Annotated[dict[str, Value], Meta(description="Environment variables; may hold placeholders.")] = {}
    stdin: Annotated[str | None, Meta(description="Text for the standard input; may hold placeholders.")] = None
    stdin_file: Annotated[str | None, Meta(description="File of the working folder for the standard input.")] = None
    parameters: Annotated[
        dict[str, list[Value] | Span | Value],
        Meta(
            description="Columns by name: lists, ranges or one value. They are crossed; the last one changes fastest."
        ),
    ] = {}
    zip: Annotated[
        dict[str, list[Value]],
        Meta(description="Columns that go together row by row, and are crossed with the others."),
    ] = {}
    csv: Annotated[
        str | None, Meta(description="A table with a header, relative to the job file; crossed with the others.")
    ] = None
    success_codes: Annotated[tuple[int, ...], Meta(description="Exit codes of tasks that have a result.")] = (0,)
    input_fault_codes: Annotated[
        list[int], Meta(description="Exit codes that blame the parameters or files: such a task is never tried again.")
    ] = []
    timeout: Annotated[Annotated[float, Meta(gt=0)] | None, Meta(description="Seconds that one task may take.")] = None
    retries: Annotated[
        int, Meta(ge=0, le=1_000_000, description="How often a task that failed or ran too long is tried again.")
    ] = 0
    max_retries: Annotated[
        int, Meta(ge=0, le=1_000_000, description="How often a task is tried again where its node is to blame.")
    ] = 3
    checkpoint_s: Annotated[
        float, Meta(gt=0, description="Seconds between checkpoints of a task that are sent, at least.")
    ] = 30.0
    priority: Annotated[int, Meta(ge=-1_000_000, le=1_000_000, description="Higher goes first.")] = 0
    speculate: Annotated[bool, Meta(description="Whether a slow task may be run a second time elsewhere.")] = True
    requires: Annotated[
        dict[str, Any], Meta(description="What each task needs: cores, memory, os, arch, python, tags.")
    ] = {}
    sandbox: Annotated[
        Literal["process", "confined", "bubblewrap", "container"] | None, Meta(description="The weakest that will do.")
    ] = None
    network: Annotated[bool | None, Meta(description="Whether tasks may reach the network.")] = None
    limits: Annotated[dict[str, Any], Meta(description="Of each task: memory, cpus, processes, disk.")] = {}
    container: Annotated[
        str | None,
        Meta(
            description="Name of a container image to run in, or its tar file: a path that begins with / or ./, relative to the job file."
        ),
    ] = None
    env: EnvironmentForm | None = None


TABLES = ("parameters", "zip", "environ", "executables", "inputs")
"""Keys whose tables have keys of the user's."""


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of job files."""
    schema = msgspec.json.schema(JobFile)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A Fallow job file", **schema}
