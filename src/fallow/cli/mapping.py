"""The work of `fallow map`: lines in, lines out, with bounded memory and a progress bar for a terminal."""

import contextlib
import importlib
import json
import os
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fallow.cli.config import find_connection, require_token
from fallow.cli.output import remark
from fallow.model.errors import BadRequest, FallowError

if TYPE_CHECKING:
    from fallow import Grid

SHOWN_CHARACTERS = 60
"""Of a malformed line, in its error."""


@dataclass(frozen=True)
class Mapping:
    """What was asked for."""

    function: str
    hub: str | None
    embedded: bool
    token_file: Path | None
    ordered: bool
    keep_errors: bool
    retries: int
    timeout: float | None
    requires: list[str]
    priority: int


class _Input:
    """Lines of JSON as values. Remembers a malformed line, so that it is told as that and not as a failed job."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines
        self._blanks = array("q")
        """Of each blank line, how many values came before it."""
        self.error: BadRequest | None = None

    def __iter__(self) -> Iterator[Any]:
        for number, line in enumerate(self._lines, 1):
            if not line.strip():
                self._blanks.append(number - 1 - len(self._blanks))
                continue
            try:
                yield json.loads(line.rstrip())
            except (ValueError, RecursionError) as error:
                self.error = BadRequest(_malformed(number, line, error))
                raise self.error from error

    def line_of(self, index: int) -> int:
        """Return the number, from 1, of the line that value `index` stood on."""
        return index + 1 + bisect_right(self._blanks, index)


def _malformed(number: int, line: str, error: Exception) -> str:
    shown = line.strip()
    shown = shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"
    reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
    return f"line {number} of the input is not JSON: {reason}: {shown}"


def find_function(text: str) -> Callable[[Any], Any]:
    """Import "module:function", the current folder first, as `python -m` does; raises BadRequest."""
    module_name, _, path = text.partition(":")
    if not module_name or not path:
        raise BadRequest(f'{text!r} is not of the form "module:function", such as "math:sqrt"')
    if sys.path[:1] != [""]:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[: error.name.count(".") + 1] == error.name.split("."):
            raise BadRequest(f"there is no module {error.name!r}, neither here nor among what is installed") from error
        raise BadRequest(f"{module_name} can't be imported: it needs {error.name!r}, which is not installed") from error
    except Exception as error:
        raise BadRequest(f"{module_name} can't be imported: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise BadRequest(f"module {module_name!r} has no {path!r}")
    if not callable(found):
        raise BadRequest(f"{text} is no function but a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def read_requires(pairs: list[str]) -> dict[str, Any]:
    """Read `--requires key=value` options as `requires=` has them; raises BadRequest."""
    wanted: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not value:
            raise BadRequest(f"--requires {pair!r} is not of the form key=value, such as memory=4GB")
        if key == "tags":
            wanted["tags"] = [*wanted.get("tags", []), *value.split(",")]
        else:
            wanted[key] = int(value) if value.isdecimal() else value
    return wanted


@contextlib.contextmanager
def open_grid(asked: Mapping) -> Iterator["Grid"]:
    """Open the hub's grid, or this computer's if no hub is configured."""
    from fallow import Grid

    if asked.embedded:
        with Grid(slots=os.cpu_count() or 1, progress=False) as grid:
            yield grid
        return
    found = find_connection(asked.hub, asked.token_file)
    with Grid(found.hub, token=require_token(found), progress=False) if found.hub else Grid(progress=False) as grid:
        yield grid


def run_map(asked: Mapping) -> None:
    """Do it; raises FallowError, or typer.Exit(1) if tasks failed."""
    import typer

    function = find_function(asked.function)
    values = _Input(sys.stdin)
    options = {
        "retries": asked.retries,
        "timeout": asked.timeout,
        "requires": read_requires(asked.requires),
        "priority": asked.priority,
    }
    with open_grid(asked) as grid:
        try:
            failed = _run(grid, function, values, asked, options)
        except Exception as error:
            if values.error is not None:
                raise values.error from None
            if isinstance(error, FallowError | BrokenPipeError | typer.Exit):
                raise
            remark(f"fallow: a result can't be read here: {type(error).__name__}: {error}")
            raise typer.Exit(1) from None
    if failed:
        remark(f"fallow: {failed} tasks failed; their lines say why")
        raise typer.Exit(1)


def _run(grid: "Grid", function: Callable[[Any], Any], values: _Input, asked: Mapping, options: dict[str, Any]) -> int:
    import typer

    failed = 0
    job = grid.map(function, values, **options)
    results = (
        enumerate(job.results(return_exceptions=True)) if asked.ordered else job.as_completed(return_exceptions=True)
    )
    with _progress(job) as advance:
        for index, result in results:
            if not isinstance(result, BaseException):
                _write(values.line_of(index), result)
            elif asked.keep_errors:
                failed += 1
                found = {"error": _in_words(result), "index": index, "line": values.line_of(index)}
                print(json.dumps(found, ensure_ascii=False))
            else:
                remark(f"fallow: line {values.line_of(index)} of the input: {_in_words(result)}")
                if result.__cause__ is not None:  # the traceback on the node
                    remark(str(result.__cause__))
                raise typer.Exit(1)
            advance()
    return failed


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _write(line: int, result: Any) -> None:
    try:
        print(json.dumps(result, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(
            f"the result of line {line} of the input is no JSON: {error}; let the function return plain values"
        ) from error


@contextlib.contextmanager
def _progress(job: Any) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr if that is a terminal and the results do not go to the same one."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("mapping", total=None)

        def advance() -> None:
            progress.update(task, advance=1, total=job.progress.size)

        yield advance
