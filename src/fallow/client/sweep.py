"""Parameters of a program's tasks: columns that are crossed, columns that go together, tables; all read lazily."""

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice, product
from pathlib import Path
from typing import Any

from fallow.model.errors import BadRequest
from fallow.model.program import check_parameter_names, check_parameters

MAX_TASKS = 1_000_000_000
"""Of one sweep. They are made as they are sent, so memory is no limit; this one is for slips."""
SHOWN = 60
"""Characters of a faulty text that an error repeats."""

Parameters = dict[str, Any]
Factor = tuple[tuple[str, ...], Sequence[Any]]
"""Names, and for each step the value (of one name) or a row of values (of several)."""


class Sweep(Sequence[Parameters]):
    """All combinations of factors; the last one changes fastest. Holds the factors, not the combinations."""

    def __init__(self, factors: Sequence[Factor]) -> None:
        self._factors = [(names, rows) for names, rows in factors]
        self.names = tuple(name for names, _ in factors for name in names)
        self._length = math.prod(len(rows) for _, rows in factors)
        check_count(self._length)

    def known_length(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self._length))]
        if not -self._length <= at < self._length:
            raise IndexError(at)
        at %= self._length
        found: Parameters = {}
        for names, rows in reversed(self._factors):
            at, here = divmod(at, len(rows))
            found.update(_named(names, rows[here]))
        return {name: found[name] for name in self.names}

    def __iter__(self) -> Iterator[Parameters]:
        columns = [names for names, _ in self._factors]
        for chosen in product(*(rows for _, rows in self._factors)):
            found: Parameters = {}
            for names, row in zip(columns, chosen, strict=True):
                found.update(_named(names, row))
            yield found


class Steps(Sequence[float]):
    """`count` numbers from start to stop, both included, computed when they are asked for."""

    def __init__(self, start: float, stop: float, count: int) -> None:
        self._start, self._stop, self._count = start, stop, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self._count))]
        if not -self._count <= at < self._count:
            raise IndexError(at)
        at %= self._count
        last = self._count - 1
        return (
            self._start
            if not last
            else self._stop
            if at == last
            else self._start + (self._stop - self._start) * at / last
        )


class Table:
    """The rows of a CSV file with a header, read as they are needed. Numbers that survive it are numbers."""

    def __init__(self, path: Path) -> None:
        """Read it once, to know its columns and length, and whether it is sound; raises BadRequest with file and line."""
        self._path = path
        self._count = -1
        self.names: tuple[str, ...] = ()
        for _ in self:
            self._count += 1
        self._count += 1

    def known_length(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Parameters]:
        where = str(self._path)
        try:
            with self._path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, strict=True)
                try:
                    yield from self._rows(reader, where)
                except csv.Error as error:
                    raise BadRequest(f"{where}, line {reader.line_num}: {error}") from None
        except OSError as error:
            raise BadRequest(f"{where} can't be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise BadRequest(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from None

    def _rows(self, reader: Any, where: str) -> Iterator[Parameters]:
        names = [name.strip() for name in next(reader, [])]
        if not any(names):
            raise BadRequest(f"{where}, line 1: there is no header with the parameters' names")
        try:
            check_parameter_names(names)
        except BadRequest as error:
            raise BadRequest(f"{where}, line 1: {error}") from None
        if len(set(names)) < len(names):
            raise BadRequest(f"{where}, line 1: a column's name stands there twice")
        self.names = tuple(names)
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise BadRequest(f"{where}, line {reader.line_num}: {len(row)} values, and {len(names)} columns")
            yield dict(zip(names, map(_typed, row), strict=True))


class Crossed:
    """A table crossed with a sweep; the sweep changes faster."""

    def __init__(self, table: Table, sweep: Sweep) -> None:
        self._table, self._sweep = table, sweep
        self.names = (*table.names, *sweep.names)
        check_count(len(self))

    def known_length(self) -> int:
        return len(self)

    def __len__(self) -> int:
        return len(self._table) * len(self._sweep)

    def __iter__(self) -> Iterator[Parameters]:
        for row in self._table:
            for more in self._sweep:
                yield {**row, **more}


class Rows:
    """Parameters that somebody else makes, checked as they come. The first is looked at, as it has the names."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows: Iterable[Any] = rows
        if not isinstance(rows, Sized):
            self._rows = iter(rows)
        self._first = list(islice(iter(rows), 1)) if isinstance(rows, Sized) else list(islice(self._rows, 1))
        self.names = tuple(_plain(self._first[0], 0)) if self._first else ()

    def known_length(self) -> int | None:
        return len(self._rows) if isinstance(self._rows, Sized) else None

    def __iter__(self) -> Iterator[Parameters]:
        rows = self._rows if isinstance(self._rows, Sized) else _chained(self._first, self._rows)
        for index, row in enumerate(rows):
            found = _plain(row, index)
            if set(found) != set(self.names):
                raise BadRequest(
                    f"parameters {index}: there are {', '.join(found) or 'none'}, where the first has {', '.join(self.names)}"
                )
            yield found


ParameterRows = Sweep | Crossed | Table | Rows


def read_parameters(given: Any) -> ParameterRows:
    """Read the `params=` of a call; raises BadRequest.

    given: None (one task); a mapping from names to columns, which are crossed, where a key may be a tuple of names, whose
    column has a row for each step; an iterable of mappings, one for each task; or the path of a CSV file.
    """
    if given is None:
        return Sweep([])
    if isinstance(given, (str, os.PathLike)):
        return Table(Path(given))
    if isinstance(given, Mapping):
        return Sweep([_factor(name, column) for name, column in given.items()])
    if isinstance(given, Iterable):
        return Rows(given)
    raise BadRequest(f"params={given!r:.{SHOWN}} is no mapping of columns, no list of mappings and no CSV file")


def zipped(columns: Mapping[str, Sequence[Any]]) -> Factor:
    """Return columns that go together as one factor; raises BadRequest if one is longer than another."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise BadRequest(f"columns that go together are of one length: {told}")
    return tuple(columns), _Zipped(list(columns.values()))


class _Zipped(Sequence[Any]):
    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, at: Any) -> Any:
        return tuple(column[at] for column in self._columns)


def check_count(count: int) -> None:
    if count > MAX_TASKS:
        raise BadRequest(f"params: {count:,} tasks are over the limit of {MAX_TASKS:,} for one job")


def _factor(name: Any, column: Any) -> Factor:
    names = name if isinstance(name, tuple) else (name,)
    if not all(isinstance(each, str) for each in names):
        raise BadRequest(f"params: {name!r:.{SHOWN}} is neither a name nor a tuple of names")
    if isinstance(column, (str, bytes)) or not isinstance(column, Iterable):
        column = [column]  # one value
    rows: Sequence[Any] = column if isinstance(column, (range, Steps, _Zipped)) else list(column)
    if len(names) > 1:
        for at, row in enumerate(rows):
            if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != len(names):
                raise BadRequest(f"params: row {at} of {', '.join(names)} is {row!r:.{SHOWN}}, not {len(names)} values")
    if not isinstance(rows, (range, Steps)):
        rows = [tuple(map(_value, row)) for row in rows] if len(names) > 1 else list(map(_value, rows))
        for row in rows:
            check_parameters(dict(_named(names, row)), "params")
    return names, rows


def _named(names: tuple[str, ...], row: Any) -> Iterable[tuple[str, Any]]:
    return ((names[0], row),) if len(names) == 1 else zip(names, row, strict=True)


def _plain(row: Any, index: int) -> Parameters:
    if not isinstance(row, Mapping):
        raise BadRequest(f"parameters {index}: {row!r:.{SHOWN}} is no mapping from names to values")
    found = {name: _value(value) for name, value in row.items()}
    check_parameters(found, f"parameters {index}")
    return found


def _value(value: Any) -> Any:
    """Return numpy's numbers as Python's, and paths as text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, (str, int, float)) and hasattr(value, "item") and not getattr(value, "shape", ()):
        return value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such numbers
    return value


def _chained(first: list[Any], rest: Iterable[Any]) -> Iterator[Any]:
    yield from first
    yield from rest


def _typed(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text and math.isfinite(number):
            return number
    return text
