"""From the text of a job file to a program and its parameters; faults are told with file, line and key."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fallow.client.job_file.form import TABLES, EnvironmentForm, JobFile, Span
from fallow.client.job_file.lines import Key, line_of
from fallow.client.options import parse_options
from fallow.client.programs import Prepared, prepare
from fallow.client.sweep import Crossed, ParameterRows, Steps, Sweep, Table, check_count, zipped
from fallow.model.errors import BadRequest

if TYPE_CHECKING:
    from fallow.client.environments import Environment

MAX_FILE_BYTES = 4 << 20
"""Of a job file. Longer columns belong into a CSV file, which is read as it is needed."""

_PATH = re.compile(r"(.*) - at `\$(.*)`$", re.DOTALL)
_FIELD = re.compile(r"Object contains unknown field `(.*)`")
_SUBJECT = re.compile(r"(\w+)(?:[:=]|\s|$)")


class Job(msgspec.Struct, frozen=True):
    """What a job file says, ready to be submitted."""

    name: str | None
    prepared: Prepared
    rows: ParameterRows
    options: Mapping[str, Any]


def read_job_file(path: Path) -> Job:
    """Read a job file and all that it names; raises BadRequest with file, line and key."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise BadRequest(
                f"{path}: {size} bytes are over the limit of {MAX_FILE_BYTES} for a job file; put long columns into a CSV file"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"{path}: {error}") from None
    try:
        form = msgspec.convert(raw, JobFile)
    except msgspec.ValidationError as error:
        raise _located(path, text, *_explained(str(error), raw)) from None
    try:
        return _job(form, path.parent)
    except BadRequest as error:
        subject = _SUBJECT.match(str(error))
        word = subject[1] if subject else ""
        if isinstance(error, _Faulty):
            raise _located(path, text, str(error), error.key) from None
        if word == "params":
            word = "parameters"
        raise _located(path, text, str(error), (word,) if word in JobFile.__struct_fields__ else ()) from None


class _Faulty(BadRequest):
    """A fault of one key."""

    def __init__(self, message: str, key: Key) -> None:
        super().__init__(message)
        self.key = key


def _located(path: Path, text: str, message: str, key: Key) -> BadRequest:
    where = str(path)
    if key and (line := line_of(text, key)) is not None:
        where += f", line {line}"
    if key:
        where += f", key {'.'.join(key)}"
        message = message.removeprefix(f"{key[0]}: ")
    return BadRequest(f"{where}: {message}")


def _explained(message: str, raw: dict[str, Any]) -> tuple[str, Key]:
    """Return the message of a validation error and the key that it is about."""
    found = _PATH.match(message)
    said, place = (found[1], found[2]) if found else (message, "")
    key = tuple(part for part in re.sub(r"\[\d+\]", "", place).replace("[...]", ".*").split(".") if part)
    if "*" in key:  # which entry of a table it is, is not told
        table = key[0]
        key = (table, _culprit(table, raw[table]))
    if unknown := _FIELD.match(said):
        key = (*key, unknown[1])
        known = ", ".join(JobFile.__struct_fields__) if len(key) == 1 else "those of the schema"
        said = f"there is no such key; known are {known}"
    if missing := re.match(r"Object missing required field `(.*)`", said):
        said = f"the key {missing[1]} is missing"
    return said[0].lower() + said[1:], key


def _culprit(table: str, entries: dict[str, Any]) -> str:
    for name, value in entries.items():
        try:
            msgspec.convert({"command": "", table: {name: value}}, JobFile)
        except msgspec.ValidationError:
            return name
    return next(iter(entries))


assert set(TABLES) <= set(JobFile.__struct_fields__)


def _job(form: JobFile, base: Path) -> Job:
    rows = _rows(form, base)
    prepared = prepare(
        form.command,
        rows,
        inputs=form.inputs,
        outputs=form.outputs,
        executables=form.executables,
        environ={name: _text(value) for name, value in form.environ.items()},
        stdin=form.stdin,
        stdin_file=form.stdin_file,
        shell=form.shell,
        success_codes=form.success_codes,
        input_fault_codes=form.input_fault_codes,
        base=base,
    )
    plain = (
        "timeout",
        "retries",
        "max_retries",
        "checkpoint_s",
        "priority",
        "speculate",
        "sandbox",
        "network",
    )
    options = {name: getattr(form, name) for name in plain}
    options |= {"requires": form.requires or None, "limits": form.limits or None}
    if form.container is not None:
        is_file = form.container.startswith(("/", "./", "../"))
        options["container"] = base / form.container if is_file else form.container
    if form.env is not None:
        options["env"] = _environment(form.env, base)
    parse_options(options)  # here, so that faults are told with their line
    return Job(form.name, prepared, rows, options)


def _environment(form: EnvironmentForm, base: Path) -> "Environment":
    from fallow.client.environments import Environment

    try:
        if form.project is None:
            return Environment(form.packages, python=form.python)
        if form.packages:
            raise BadRequest("a project has its own packages: name one or the other")
        return Environment.from_project(base / form.project, python=form.python)
    except BadRequest as error:
        raise _Faulty(str(error), ("env",)) from None


def _rows(form: JobFile, base: Path) -> ParameterRows:
    factors = []
    twice = [name for name in form.zip if name in form.parameters]
    if twice:
        raise _Faulty(f"{twice[0]} stands in parameters as well", ("zip", twice[0]))
    if form.zip:
        try:
            factors.append(zipped(form.zip))
        except BadRequest as error:
            raise _Faulty(str(error), ("zip",)) from None
    try:
        factors += [((name,), _column(name, value)) for name, value in form.parameters.items()]
        sweep = Sweep(factors)
        if form.csv is None:
            return sweep
        table = Table(base / form.csv)
        if again := [name for name in table.names if name in sweep.names]:
            raise _Faulty(f"the column {again[0]} is a parameter as well", ("csv",))
        return Crossed(table, sweep) if factors else table
    except _Faulty:
        raise
    except BadRequest as error:
        is_table = form.csv is not None and str(base / form.csv) in str(error)
        raise _Faulty(str(error), ("csv",) if is_table else ("parameters",)) from None


def _column(name: str, value: Any) -> Any:
    if not isinstance(value, Span):
        return value if isinstance(value, list) else [value]
    key = ("parameters", name)
    if value.count is not None:
        if value.step is not None:
            raise _Faulty("a range has a step or a count, not both", key)
        return Steps(float(value.start), float(value.stop), value.count)
    if not (isinstance(value.start, int) and isinstance(value.stop, int)):
        raise _Faulty("a range of fractions needs a count: how many numbers, start and stop included", key)
    if value.step == 0:
        raise _Faulty("a range's step is not 0", key)
    found = range(value.start, value.stop, value.step or 1)
    check_count(len(found))
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
