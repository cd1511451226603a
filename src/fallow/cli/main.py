"""The `fallow` command: runs what the command line says, and what becomes of errors."""

import os
import sys

from fallow.cli.long_running import LongRunning, go_on, is_started_anew
from fallow.model.errors import FallowError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""


def main() -> None:
    """Run the command that the arguments name; every error of ours is one line, and exit code 1."""
    try:
        sys.exit(go_on() if is_started_anew() else _read_command_line())
    except FallowError as error:
        _say(error)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it at its exit
        sys.exit(1)  # whoever read our output has left; there is nobody to tell
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _read_command_line() -> int:
    from fallow.cli.commands import app  # typer, which hubs and nodes are to be without

    try:
        app(prog_name="fallow")
    except LongRunning as command:
        return command.run()
    return 0


def _say(error: FallowError) -> None:
    print(f"fallow: {' '.join(str(error).split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
