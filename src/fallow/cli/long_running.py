"""Hubs and nodes: commands that run for weeks, without what has read their command line.

That is typer with pydantic, 8 MB in each process. So when a hub's or a node's options have been read, the process starts anew, with the same
number and the same command line, and finds them in a variable.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

VARIABLE = "FALLOW_OPTIONS"


class LongRunning(BaseException):
    """Raised by a command to leave the parser: "hub" or "node", and its options."""

    def __init__(self, command: str, options: Mapping[str, Any]) -> None:
        super().__init__(command)
        self._text = json.dumps([command, options], default=str)

    def run(self) -> int:
        """Start this process anew, or run the command in it; return its exit code."""
        if os.name == "posix":  # elsewhere, who started us would believe that we have ended
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: self._text})  # noqa: S606
        return _run(self._text)


def is_started_anew() -> bool:
    return VARIABLE in os.environ


def go_on() -> int:
    """Run what was started anew; return its exit code."""
    return _run(os.environ.pop(VARIABLE))


def _run(text: str) -> int:
    command, options = json.loads(text)
    if command == "hub":
        from fallow.cli.serving import run_hub

        return run_hub(**options)
    from fallow.cli.agent import run_node

    return run_node(**options)
