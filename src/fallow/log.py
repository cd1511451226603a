"""Logs: an event and its fields, through the standard library's `logging`, whose handlers decide what becomes of them.

Not structlog, which comes with rich and pygments: 5 MB in every hub, node and client.
"""

import logging
from typing import Any


class Logger:
    """Says what happened: `log.info("environment built", digest=digest, seconds=3.1)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: Any) -> None:
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        self._log(logging.ERROR, event, fields, exc_info)

    def exception(self, event: str, **fields: Any) -> None:
        """Log an error with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, fields, exc_info=True)

    def _log(
        self, level: int, event: str, fields: dict[str, Any], exc_info: BaseException | bool | None = None
    ) -> None:
        self._logger.log(level, _Line(event, fields), exc_info=exc_info, stacklevel=CALLER)


CALLER = 3
"""Calls from `logging` up to whoever logs: the place that records name."""


class _Line:
    """Becomes text only when a handler wants it."""

    def __init__(self, event: str, fields: dict[str, Any]) -> None:
        self._event = event
        self._fields = fields

    def __str__(self) -> str:
        return " ".join([self._event, *(f"{name}={_shown(value)}" for name, value in self._fields.items())])


def _shown(value: Any) -> str:
    """Write a value so that a line stays one line, and fields can be told apart."""
    text = str(value)
    return text if text.isprintable() and " " not in text and text else repr(text)
