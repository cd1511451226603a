"""The errors that Fallow raises, cut by what a caller can do about them.

FallowError
├── BadRequest            fix the request: it can never work as it is
│   ├── TooLarge          a frame, page, body or blob over its limit
│   ├── JobExists         the name is taken: attach, replace, or choose another
│   ├── NotFound          no such job, node, token or blob
│   │   └── JobNotFound
│   └── PicklingFailed    a function, argument or result can't be pickled
├── Denied                fix the credentials: never retried
├── Unavailable           retry later: the hub can't be reached, or is draining
│   └── HubFull           below its free-space reserve; what was accepted is safe (HTTP 507)
├── StateError            the state folder can't be used
│   ├── StateInUse        another hub holds it
│   └── StateTooNew       written by a newer Fallow
├── Closed                the grid was closed by this program
├── JobCancelled          the job was cancelled
├── InputEnded            the client that fed the job died; what came before is intact
└── TaskFailed            a task came to no result of its own
    ├── TaskCrashed       its slot died: signal or exit code
    ├── TaskTimeout       over its `timeout=`
    ├── TaskOverLimit     over one of its `limits=`
    ├── TaskLostNodes     every node that ran it was lost
    ├── EnvironmentFailed nodes could not give it the environment, sandbox or image that it asks for
    └── ProgramFailed     a program said that its input is at fault, or did not put out what it should
"""

from typing import ClassVar


class FallowError(Exception):
    """Something went wrong in Fallow."""

    code: ClassVar[str] = "error"
    """The word in REST errors and in `Refused` frames."""
    status: ClassVar[int] = 500
    """The HTTP status that REST answers with."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class BadRequest(FallowError, ValueError):
    """The request can't work as it is."""

    code = "bad_request"
    status = 400


class TooLarge(BadRequest):
    """Something is over its limit."""

    code = "too_large"
    status = 413


class JobExists(BadRequest):
    """A job of this name exists; use if_exists="attach" or "replace", or another name."""

    code = "job_exists"
    status = 409


class NotFound(BadRequest, LookupError):
    """There is no such thing."""

    code = "not_found"
    status = 404


class JobNotFound(NotFound):
    """There is no such job."""

    code = "job_not_found"


class PicklingFailed(BadRequest):
    """Something can't be pickled, so it can't travel to a node."""

    code = "pickling_failed"


class Denied(FallowError, PermissionError):
    """The token was refused."""

    code = "denied"
    status = 401


class Forbidden(Denied):
    """The token is valid, but its role does not allow this."""

    code = "forbidden"
    status = 403


class Unavailable(FallowError, ConnectionError):
    """The hub can't be reached now; trying again may help."""

    code = "unavailable"
    status = 503


class HubFull(Unavailable):
    """The hub's disk is nearly full: it takes no new work until there is room. Accepted work is safe."""

    code = "hub_full"
    status = 507


class StateError(FallowError):
    """The state folder can't be used."""

    code = "state"


class StateInUse(StateError):
    """Another hub uses this state folder."""

    code = "state_in_use"


class StateTooNew(StateError):
    """This state was written by a newer Fallow; upgrade Fallow to open it."""

    code = "state_too_new"


class Closed(FallowError, RuntimeError):
    """The grid is closed."""

    code = "closed"


class JobCancelled(FallowError):
    """The job was cancelled."""

    code = "job_cancelled"
    status = 409


class InputEnded(FallowError):
    """The client that fed this job went away before its inputs ended."""

    code = "input_ended"


class TaskFailed(FallowError):
    """A task came to no result."""

    code = "task_failed"


class TaskCrashed(TaskFailed):
    """The process that ran the task died."""

    code = "task_crashed"


class TaskTimeout(TaskFailed, TimeoutError):
    """The task ran longer than its timeout."""

    code = "task_timeout"


class TaskOverLimit(TaskFailed, MemoryError):
    """The task went over one of its limits."""

    code = "task_over_limit"


class EnvironmentFailed(TaskFailed):
    """The task's environment, sandbox or image could not be had."""

    code = "environment_failed"


class ProgramFailed(TaskFailed):
    """The program failed on this input."""

    code = "program_failed"


class TaskLostNodes(TaskFailed):
    """Every node that ran this task was lost while running it."""

    code = "task_lost_nodes"


def _tree(cls: type[FallowError]) -> list[type[FallowError]]:
    return [cls, *(each for child in cls.__subclasses__() for each in _tree(child))]


BY_CODE = {cls.code: cls for cls in _tree(FallowError)}
"""Error class by its word, for rebuilding what came over the wire."""
