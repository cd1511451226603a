"""Running a program's coroutine on the fastest event loop that is there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, where it is installed (it does not exist for Windows); None means asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def run_loop(program: Coroutine[Any, Any, T]) -> T:
    """Run to the end and return the result."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(program)
