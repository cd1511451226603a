"""The one way out for what commands say: tables for people, JSON for programs, bare lines for pipes.

Results go to stdout, remarks to stderr. A pipe gets tab-separated values without a heading, the id first.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of a table: how a row's value is written for people."""

    title: str
    show: Callable[[Row], str]
    right: bool = False
    key: str | None = None
    """What pipes get of the row; None: what people get."""
    for_people: bool = True
    """Whether tables have it; pipes have every column."""

    def plain(self, row: Row) -> str:
        value = row[self.key] if self.key is not None else self.show(row)
        text = "" if value is None else str(value)
        return text.replace("\t", " ").replace("\n", " ")


class Output(Protocol):
    """Where a command's results go."""

    def table(self, rows: Sequence[Row], columns: Sequence[Column], empty: str) -> None:
        """Show rows; `empty` is said to people if there are none."""
        ...

    def record(self, row: Row, fields: Sequence[Column]) -> None:
        """Show one thing with its fields."""
        ...

    def lines(self, lines: Iterable[str], key: str) -> None:
        """Show lines of text; programs get them as a list under `key`."""
        ...


class PeopleOutput:
    """Tables as wide as the terminal."""

    def table(self, rows: Sequence[Row], columns: Sequence[Column], empty: str) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        if not rows:
            remark(empty)
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        columns = [column for column in columns if column.for_people]
        for column in columns:
            table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(column.show(row)) for column in columns))
        Console().print(table)

    def record(self, row: Row, fields: Sequence[Column]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for field in fields:
            if text := field.show(row):
                table.add_row(Text(field.title, style="bold"), Text(text))
        Console().print(table)

    def lines(self, lines: Iterable[str], key: str) -> None:
        for line in lines:
            print(line)


class PlainOutput:
    """Tab-separated values."""

    def table(self, rows: Sequence[Row], columns: Sequence[Column], empty: str) -> None:
        for row in rows:
            print("\t".join(column.plain(row) for column in columns))

    def record(self, row: Row, fields: Sequence[Column]) -> None:
        for field in fields:
            if text := field.plain(row):
                print(f"{field.title.lower()}\t{text}")

    def lines(self, lines: Iterable[str], key: str) -> None:
        for line in lines:
            print(line)


class JsonOutput:
    """What the REST API said, as it said it."""

    def table(self, rows: Sequence[Row], columns: Sequence[Column], empty: str) -> None:
        print_json(list(rows))

    def record(self, row: Row, fields: Sequence[Column]) -> None:
        print_json(row)

    def lines(self, lines: Iterable[str], key: str) -> None:
        print_json({key: list(lines)})


def choose(json_wanted: bool) -> Output:
    """Return where results go: JSON if asked for, tables for a terminal, bare lines otherwise."""
    if json_wanted:
        return JsonOutput()
    return PeopleOutput() if sys.stdout.isatty() else PlainOutput()


def print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def remark(text: str) -> None:
    """Say something that is no result."""
    print(text, file=sys.stderr)
