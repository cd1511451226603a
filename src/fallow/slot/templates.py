"""Placeholders of a program's command, filled with a task's parameters."""

import os
import shlex
from collections.abc import Callable
from string import Formatter
from typing import Any

_parse = Formatter().parse
UNSAFE_ON_WINDOWS = frozenset('"%&|<>^!\r\n')


class BadValue(ValueError):
    """A parameter is missing, or can't stand where it is wanted."""


class Values(dict[str, Any]):
    """Parameters of one task by name, with what is built in."""

    def fill(self, template: str, quote: Callable[[str], str] | None = None) -> str:
        """Return the template with its placeholders filled in. quote: applied to each value, for shells."""
        if "{" not in template and "}" not in template:
            return template
        parts = []
        for text, name, form, _ in _parse(template):
            parts.append(text)
            if name is not None:
                value = self._formatted(name, form or "")
                parts.append(value if quote is None else quote(value))
        return "".join(parts)

    def _formatted(self, name: str, form: str) -> str:
        if name not in self:
            raise BadValue(f"there is no parameter {name!r} in this task's {', '.join(sorted(self)) or 'parameters'}")
        value = self[name]
        if isinstance(value, bool):
            value = "true" if value else "false"  # as job files and JSON have it
        elif not isinstance(value, (str, int, float)):
            raise BadValue(f"the parameter {name} is neither a text nor a number nor true or false")
        try:
            text = format(value, form)
        except ValueError as error:
            raise BadValue(f"the parameter {name}={value!r:.80} can't be written as {form!r}: {error}") from None
        if "\0" in text:
            raise BadValue(f"the parameter {name} holds a NUL character, which no command can")
        return text


def quoted(value: str) -> str:
    """Return a value as one word of the system's shell."""
    if os.name != "nt":
        return shlex.quote(value)
    if UNSAFE_ON_WINDOWS & set(value):
        raise BadValue(f"the value {value!r:.80} can't be passed through Windows' shell; leave out shell")
    return f'"{value}"'
