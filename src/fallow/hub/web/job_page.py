"""What a job's page shows, worked out from the hub: how far it is, what it waits for, what failed, what was printed."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from fallow.hub.core.hub import Hub
from fallow.hub.web.outputs import TaskOutputs, first_outputs
from fallow.hub.web.overview import JobRow, Meter, job_row
from fallow.hub.web.views import view_requirements
from fallow.model.changes import LogEntry
from fallow.model.errors import JobNotFound
from fallow.model.failure import Failure
from fallow.model.job import JobInfo
from fallow.model.lease import RunningView
from fallow.model.requirements import format_size
from fallow.model.token import Token

SHOWN_FAILURES = 20
SHOWN_RUNNING = 20
"""Of those that say how far they are."""
SHOWN_OUTPUTS = 20
"""Tasks whose output files are linked."""
SHOWN_ENTRIES = 200
"""Of the log, the last ones."""


class FailureRow(msgspec.Struct, frozen=True):
    index: int
    words: str
    place: str
    trace: str


class RunningRow(msgspec.Struct, frozen=True):
    """A running task that says how far it is."""

    index: int
    place: str
    percent: float | None
    words: str


class JobPage(msgspec.Struct, frozen=True):
    row: JobRow
    facts: list[tuple[str, str]]
    reasons: list[str]
    """What it waits for; nothing once it has ended."""
    running: list[RunningRow]
    failures: list[FailureRow]
    unshown: int
    """Failed tasks beyond those."""
    outputs: list[TaskOutputs]
    """Of a program: what its first tasks put out."""
    log: list[LogEntry]
    is_over: bool


async def look_at(hub: Hub, ref: str, token: Token, meter: Meter) -> JobPage | None:
    """Read one job for one caller; None if there is no such job (any more)."""
    try:
        info = await hub.front.job(ref, token)
        job = info.spec.id
        reasons = [] if info.progress.ended else await hub.front.explain(job, token)
        outputs = await first_outputs(hub, info.spec, token, SHOWN_OUTPUTS) if info.spec.is_program else []
        log, _ = await hub.front.logs(job, token, after=-SHOWN_ENTRIES)
    except JobNotFound:
        return None
    rate = meter.rates([info], time.monotonic()).get(job, 0.0)
    failures = [_failure_row(failure) for failure in info.first_failures[:SHOWN_FAILURES]]
    return JobPage(
        row=job_row(info, rate, time.time()),
        facts=_facts(hub, info),
        reasons=reasons,
        running=[_running_row(task) for task in _telling(hub.running(job))][:SHOWN_RUNNING],
        failures=failures,
        unshown=info.progress.failed - len(failures),
        outputs=outputs,
        log=log,
        is_over=info.progress.ended,
    )


def _facts(hub: Hub, info: JobInfo) -> list[tuple[str, str]]:
    spec, progress = info.spec, info.progress
    owner = next((token.name for token in hub.tokens() if token.id == spec.owner), f"token {spec.owner}, revoked since")
    needs = {
        key: format_size(value) if key == "memory" else " ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in view_requirements(spec.requirements).items()
    }
    facts = [
        ("Id", spec.id),
        ("Function", spec.function_name),
        ("Made by", owner),
        ("Created", _when(spec.created_at)),
        ("Ended", _when(info.ended_at) if info.ended_at is not None else ""),
        ("Inputs", "ended early: the program that fed it went away" if progress.input_ended else ""),
        ("Requires", ", ".join(f"{key} {value}" for key, value in needs.items())),
        ("Priority", str(spec.priority or "")),
        ("Retries", str(spec.retries or "")),
        ("Timeout", f"{spec.timeout_s:g} s a task" if spec.timeout_s else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _when(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _telling(tasks: Sequence[RunningView]) -> list[RunningView]:
    """Return the tasks that say how far they are; of two attempts of one, that which is further."""
    telling = sorted((task for task in tasks if task.says_something), key=lambda task: task.fraction or 0.0)
    furthest = {task.index: task for task in telling}
    return [furthest[index] for index in sorted(furthest)]


def _running_row(task: RunningView) -> RunningRow:
    return RunningRow(
        index=task.index,
        place=f"on {task.node}, for {task.running_s:.0f} s",
        percent=None if task.fraction is None else round(100 * task.fraction, 1),
        words=task.message,
    )


def _failure_row(failure: Failure) -> FailureRow:
    return FailureRow(
        index=failure.index,
        words=": ".join(part for part in (failure.type_name or failure.kind, failure.message) if part),
        place=", ".join(
            part
            for part in (
                f"on {failure.node}" if failure.node else "",
                f"{failure.attempts} attempts" if failure.attempts > 1 else "",
                f"exit code {failure.exit_code}" if failure.exit_code is not None else "",
                failure.signal or "",
            )
            if part
        ),
        trace=failure.traceback or failure.output,
    )
