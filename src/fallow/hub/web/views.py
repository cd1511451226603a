"""What REST shows: the nouns of the model as JSON objects with named fields, without what only machines need."""

from typing import Any, Literal

import msgspec

from fallow.model.changes import LogEntry
from fallow.model.failure import Failure
from fallow.model.job import JobInfo, StageKind
from fallow.model.lease import RunningView
from fallow.model.node_view import NodeView
from fallow.model.requirements import Requirements
from fallow.model.token import Role, Token


class FailureView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a task has no value."""

    kind: str
    """"raised", "crashed", "timeout", "lost_nodes", "cancelled" or "input"."""
    type: str = ""
    """The exception's class, such as "ValueError"."""
    message: str = ""
    traceback: str = ""
    node: str = ""
    attempts: int = 1
    exit_code: int | None = None
    signal: str | None = None
    output: str = ""


class IndexedFailure(msgspec.Struct, frozen=True):
    """A failed task of a job."""

    index: int
    error: FailureView


class JobView(msgspec.Struct, frozen=True):
    """A job and how far it is."""

    id: str
    name: str | None
    function: str
    kinds: list[StageKind]
    codec: Literal["pickle", "json"]
    state: Literal["waiting", "running", "done", "cancelled"]
    size: int | None
    """Number of tasks; null while inputs may still come."""
    accepted: int
    settled: int
    failed: int
    leased: int
    input_ended: bool
    requires: dict[str, Any]
    priority: int
    retries: int
    max_retries: int
    timeout: float | None
    """Seconds per task."""
    owner: str
    """Id of the token that created it."""
    created_at: float
    ended_at: float | None
    failures: list[IndexedFailure]
    """The first hundred."""


class JobList(msgspec.Struct, frozen=True):
    """Jobs: the running ones first, then the latest that ended."""

    jobs: list[JobView]
    next: float | None
    """Pass as `before` for the ones that ended earlier; null at the end."""


class RunningTaskView(msgspec.Struct, frozen=True):
    """A task that runs."""

    index: int
    node: str
    """Name of its node."""
    seconds: float
    """How long it has been running."""
    fraction: float | None
    """How much of it is done, from 0 to 1; null if it does not say (`fallow.progress`)."""
    message: str


class RunningList(msgspec.Struct, frozen=True):
    """Running tasks of a job by index, the first thousand of them, as their nodes last said: some seconds old."""

    tasks: list[RunningTaskView]


class LogEntryView(msgspec.Struct, frozen=True):
    """What one task printed, or a piece of it."""

    index: int
    text: str
    node: str


class LogList(msgspec.Struct, frozen=True):
    """What a job's tasks printed, in order of arrival."""

    entries: list[LogEntryView]
    next: int | None
    """Pass as `after` for what follows; null at the end of what there is so far. To go on from there later, pass how
    many entries were read in all."""


class Explanation(msgspec.Struct, frozen=True):
    """Why a job is where it is, in plain words."""

    reasons: list[str]


class NodeSummary(msgspec.Struct, frozen=True):
    """One computer of the grid."""

    id: str
    name: str
    connected: bool
    accepting: bool
    reason: str
    """Why it takes no leases, if it does not."""
    os: str
    arch: str
    pythons: list[str]
    tags: list[str]
    cores: int
    slots: int
    memory_bytes: int
    score: float
    version: str
    leases: int
    tasks: int
    """Unfinished tasks of its leases."""
    running: int
    """Tasks that run there now."""
    finished: int
    """Tasks finished since the hub started or the node was last lost."""
    sandboxes: list[str]
    """The sandboxes that work there and that its owner allows, weakest first."""
    builds: bool
    """Whether it builds environments."""
    notes: dict[str, str]
    """For people, by subject: why a sandbox does not work, how limits are enforced."""


class NodeList(msgspec.Struct, frozen=True):
    nodes: list[NodeSummary]


class TokenView(msgspec.Struct, frozen=True):
    """A token as lists show it; its secret is shown once, when it is made."""

    id: str
    role: Role
    name: str
    created_at: float


class TokenList(msgspec.Struct, frozen=True):
    tokens: list[TokenView]


class NewToken(msgspec.Struct, frozen=True):
    """A token that was just made. The hub keeps only a hash of the secret: it can't be shown again."""

    token: TokenView
    secret: str


class BlobView(msgspec.Struct, frozen=True):
    """A blob that the hub keeps."""

    digest: str
    """BLAKE3 of its bytes, 64 hex digits."""
    size: int


def view_failure(failure: Failure) -> FailureView:
    return FailureView(
        kind=failure.kind,
        type=failure.type_name,
        message=failure.message,
        traceback=failure.traceback,
        node=failure.node,
        attempts=failure.attempts,
        exit_code=failure.exit_code,
        signal=failure.signal,
        output=failure.output,
    )


def view_requirements(requirements: Requirements) -> dict[str, Any]:
    """Write requirements as `requires=` has them, only what was asked for."""
    wanted = {
        "cores": requirements.cores if requirements.cores != 1 else None,
        "memory": requirements.memory_bytes or None,
        "os": requirements.os,
        "arch": requirements.arch,
        "python": requirements.python,
        "tags": list(requirements.tags) or None,
        "sandbox": requirements.sandbox,
        "platforms": list(requirements.platforms) or None,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def view_job(info: JobInfo) -> JobView:
    spec, progress = info.spec, info.progress
    return JobView(
        id=spec.id,
        name=spec.name,
        function=spec.function_name,
        kinds=list(spec.stages),
        codec=spec.codec,
        state=progress.state,
        size=progress.size,
        accepted=progress.accepted,
        settled=progress.settled,
        failed=progress.failed,
        leased=progress.leased,
        input_ended=progress.input_ended,
        requires=view_requirements(spec.requirements),
        priority=spec.priority,
        retries=spec.retries,
        max_retries=spec.max_retries,
        timeout=spec.timeout_s,
        owner=spec.owner,
        created_at=spec.created_at,
        ended_at=info.ended_at,
        failures=[IndexedFailure(failure.index, view_failure(failure)) for failure in info.first_failures],
    )


def view_node(node: NodeView) -> NodeSummary:
    info = node.info
    return NodeSummary(
        id=node.id,
        name=info.name,
        connected=node.connected,
        accepting=node.accepting,
        reason=node.reason,
        os=info.os,
        arch=info.arch,
        pythons=list(info.pythons),
        tags=list(info.tags),
        cores=info.cores,
        slots=info.slots,
        memory_bytes=info.memory_bytes,
        score=info.score,
        version=info.version,
        leases=node.leases,
        tasks=node.leased_tasks,
        running=node.running_tasks,
        finished=node.finished_tasks,
        sandboxes=list(info.sandboxes),
        builds=info.builds,
        notes=info.notes,
    )


def view_token(token: Token) -> TokenView:
    return TokenView(token.id, token.role, token.name, token.created_at)


def view_running(task: RunningView) -> RunningTaskView:
    return RunningTaskView(task.index, task.node, round(task.running_s, 3), task.fraction, task.message)


def view_log_entry(entry: LogEntry) -> LogEntryView:
    return LogEntryView(entry.index, entry.text, entry.node)
