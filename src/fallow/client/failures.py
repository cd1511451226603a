"""From failure records to the exceptions that users catch."""

import pickle

from fallow.model.errors import (
    EnvironmentFailed,
    FallowError,
    JobCancelled,
    ProgramFailed,
    TaskCrashed,
    TaskFailed,
    TaskLostNodes,
    TaskOverLimit,
    TaskTimeout,
)
from fallow.model.failure import Failure
from fallow.slot.protocol import PROGRAM_FAILED

_BY_KIND: dict[str, type[FallowError]] = {
    "crashed": TaskCrashed,
    "timeout": TaskTimeout,
    "lost_nodes": TaskLostNodes,
    "limit": TaskOverLimit,
    "environment": EnvironmentFailed,
    "program": ProgramFailed,
    "cancelled": JobCancelled,
}


class RemoteTraceback(Exception):
    """Shows where on the node a task's exception was raised, as the cause of the exception raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


def exception_of(failure: Failure) -> BaseException:
    """Rebuild what the task raised, with the remote traceback as its cause; what can't be rebuilt is a TaskFailed."""
    error: BaseException | None = None
    if failure.exception is not None:
        try:
            loaded = pickle.loads(failure.exception)
        except Exception:
            loaded = None  # a class that exists only on the node, or one that unpickles wrongly
        if isinstance(loaded, BaseException):
            error = loaded
    if error is None:
        cls = ProgramFailed if failure.type_name == PROGRAM_FAILED else _BY_KIND.get(failure.kind, TaskFailed)
        message = failure.message if cls is not TaskFailed else f"{failure.type_name}: {failure.message}"
        error = cls(message)
    text = failure.traceback or failure.output
    if text:
        error.__cause__ = RemoteTraceback(text)
    error.add_note(f"task {failure.index}" + (f" on node {failure.node}" if failure.node else ""))
    missing = error.name if isinstance(error, ModuleNotFoundError) and failure.kind == "raised" else None
    if missing and (note := _how_to_bring(missing)):
        error.add_note(note)
    return error


def _how_to_bring(module: str) -> str | None:
    """Write the line that brings a missing module: by the name and in the version that its package has here; None if none would."""
    from fallow.client.needed import requirement_of

    package = requirement_of(module)
    if package is None:
        return None
    return f'where it ran there is no module {module}: env=Environment(packages=["{package}"]) brings it along'
