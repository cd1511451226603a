"""Fallow: one grid from the computers that people already have.

    from fallow import Grid

    with Grid() as grid:                      # this computer's cores; Grid("http://hub:7070") for the lab's
        print(sum(grid.map(abs, range(-500, 500))))

Importing this package is cheap: everything else is loaded on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fallow.client.aio import AsyncGrid, AsyncJob
    from fallow.client.environments import Environment
    from fallow.client.executor import GridExecutor
    from fallow.client.future import Future
    from fallow.client.grid import Grid
    from fallow.client.job import Job
    from fallow.client.program_job import ProgramJob
    from fallow.client.programs import ProgramResult
    from fallow.model.errors import (
        BadRequest,
        Closed,
        Denied,
        EnvironmentFailed,
        FallowError,
        Forbidden,
        HubFull,
        InputEnded,
        JobCancelled,
        JobExists,
        JobNotFound,
        NotFound,
        PicklingFailed,
        ProgramFailed,
        StateError,
        StateInUse,
        StateTooNew,
        TaskCrashed,
        TaskFailed,
        TaskLostNodes,
        TaskOverLimit,
        TaskTimeout,
        TooLarge,
        Unavailable,
    )
    from fallow.slot.refs import Ref
    from fallow.slot.task import checkpoint, progress, save_checkpoint

__version__ = "0.1.0"

_HOMES = {
    "fallow.client.aio": ("AsyncGrid", "AsyncJob"),
    "fallow.client.environments": ("Environment",),
    "fallow.client.executor": ("GridExecutor",),
    "fallow.client.future": ("Future",),
    "fallow.client.grid": ("Grid",),
    "fallow.client.job": ("Job",),
    "fallow.client.program_job": ("ProgramJob",),
    "fallow.client.programs": ("ProgramResult",),
    "fallow.slot.refs": ("Ref",),
    "fallow.slot.task": ("checkpoint", "progress", "save_checkpoint"),
    "fallow.model.errors": (
        "BadRequest", "Closed", "Denied", "EnvironmentFailed", "FallowError", "Forbidden", "HubFull", "InputEnded",
        "JobCancelled", "JobExists", "JobNotFound", "NotFound", "PicklingFailed", "ProgramFailed", "StateError",
        "StateInUse", "StateTooNew", "TaskCrashed", "TaskFailed", "TaskLostNodes", "TaskOverLimit", "TaskTimeout",
        "TooLarge", "Unavailable",
    ),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncGrid", "AsyncJob", "BadRequest", "Closed", "Denied", "Environment", "EnvironmentFailed",
    "FallowError", "Forbidden", "Future", "Grid", "GridExecutor", "HubFull", "InputEnded", "Job",
    "JobCancelled", "JobExists", "JobNotFound", "NotFound", "PicklingFailed", "ProgramFailed", "ProgramJob",
    "ProgramResult", "Ref", "StateError", "StateInUse", "StateTooNew", "TaskCrashed", "TaskFailed",
    "TaskLostNodes", "TaskOverLimit", "TaskTimeout", "TooLarge", "Unavailable", "__version__", "checkpoint",
    "progress", "save_checkpoint",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'fallow' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
