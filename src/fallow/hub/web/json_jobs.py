"""Jobs of `module:function` over JSON items: from a request to a spec and pages.

The items stay the text that the caller sent (no number is rounded, no key order changed): a page is
the items' own bytes, joined to one JSON array.
"""

import asyncio
import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import msgspec

from fallow.hub.core.hub import Hub
from fallow.hub.web.json_programs import ProgramRequest, whole
from fallow.model.containment import check_containment, minimum_level, parse_containment
from fallow.model.environment import encode_lock
from fallow.model.errors import BadRequest
from fallow.model.ids import Digest, JobId, uuid7
from fallow.model.job import MAX_PRIORITY, JobSpec, Pages
from fallow.model.levels import Level
from fallow.model.page import INLINE_BYTES, InputPage
from fallow.model.program import Program
from fallow.model.requirements import Requirements, parse_requirements
from fallow.model.token import Token
from fallow.packages.resolving import resolve

PAGE_BYTES = 256 * 1024
"""Pages are cut at this size ..."""
PAGE_ITEMS = 4096
"""... or at this many items, as the Python client cuts them."""
NAME_LENGTH = 200
RESOLVED_AT_ONCE = 2
"""Environments of a hub that are being resolved; others wait."""

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_turns: "WeakKeyDictionary[Hub, asyncio.Semaphore]" = WeakKeyDictionary()
_ID = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class EnvironmentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Python environment for the tasks, from packages of an index. The hub locks it, nodes build it."""

    packages: list[str] = []
    """Such as "numpy==2.3"."""
    python: str | None = None
    """Minor version, such as "3.12"; else the hub's."""


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job over JSON items: `function` is called with each item on some node, and must be importable there."""

    function: str | None = None
    """"module:function", such as "math:sqrt"; or `program` instead."""
    program: ProgramRequest | None = None
    """A command with files, for which each item is an object of parameters."""
    items: list[msgspec.Raw]
    """The inputs, any JSON values."""
    name: str | None = None
    """For finding it again. Without a name the id does."""
    id: str | None = None
    """32 hex digits (a UUIDv7), chosen by the caller: sending the same request again then makes no second job."""
    requires: dict[str, Any] | None = None
    """What each task needs: cores, memory, os, arch, python, tags."""
    priority: int = 0
    """Higher goes first."""
    retries: int = 0
    """How often a task that raised or ran over its timeout is tried again."""
    max_retries: int = 3
    """How often a task whose process died is tried again."""
    timeout: float | None = None
    """Seconds that one task may take."""
    checkpoint_s: float = 30.0
    """Seconds between checkpoints of a task that are sent, at least."""
    sandbox: str | None = None
    """The weakest sandbox that will do: process, confined, bubblewrap or container."""
    network: bool | None = None
    """Whether tasks may reach the network."""
    limits: dict[str, Any] | None = None
    """Of each task: memory, cpus, processes, disk."""
    container: str | None = None
    """The container image that tasks run in: its name, or the digest of a blob with its tar file."""
    env: EnvironmentRequest | None = None
    """Packages that tasks find. Not beside `container`, which has its own."""
    speculate: bool = True
    """Whether a slow task may be run a second time elsewhere."""
    if_exists: Literal["error", "attach", "replace"] = "error"
    """What to do if a job of this name exists."""


def make_spec(
    request: JobRequest,
    function: Digest,
    token: Token,
    program: Program | None = None,
    environment: Digest | None = None,
) -> JobSpec:
    """Check the request and write it as a spec; raises BadRequest that names the faulty field. environment: its lock."""
    if request.name is not None and not 0 < len(request.name) <= NAME_LENGTH:
        raise BadRequest(f"name: must have 1 to {NAME_LENGTH} characters")
    if request.id is not None and not _ID.fullmatch(request.id):
        raise BadRequest(f"id: {request.id!r} is not 32 hex digits")
    if abs(request.priority) > MAX_PRIORITY:
        raise BadRequest(f"priority: {request.priority} is not within ±{MAX_PRIORITY}")
    for field in ("retries", "max_retries"):
        if not 0 <= getattr(request, field) <= 1000:
            raise BadRequest(f"{field}: must be 0 to 1000")
    if request.timeout is not None and not 0 < request.timeout < 1e9:
        raise BadRequest("timeout: must be a positive number of seconds")
    contained = {"sandbox": request.sandbox, "network": request.network, "limits": request.limits}
    is_archive = request.container is not None and _DIGEST.fullmatch(request.container) is not None
    containment = parse_containment(contained, None if is_archive else request.container)
    if is_archive:
        containment = msgspec.structs.replace(containment, image_archive=Digest(request.container or ""))
    check_containment(containment)
    if request.env is not None and request.container is not None:
        raise BadRequest("env: a container image has its own packages; leave out one of the two")
    level = minimum_level(contained, containment, has_image=request.container is not None)
    now = time.time()
    return JobSpec(
        id=JobId(request.id or uuid7(int(now * 1000), os.urandom(10))),
        stages=("map",) if program is None else ("run",),
        function=function,
        function_name=request.function or f"run({program.label if program is not None else ''})",
        refs=() if program is None else program.blobs,
        executables={} if program is None else program.platform_blobs,
        inputs=Pages(),
        name=request.name,
        owner=token.id,
        codec="json",
        requirements=_requirements(request, program, level),
        environment=environment,
        containment=containment,
        speculate=request.speculate,
        priority=request.priority,
        retries=request.retries,
        max_retries=request.max_retries,
        timeout_s=request.timeout,
        checkpoint_s=request.checkpoint_s,
        created_at=now,
    )


def _requirements(request: JobRequest, program: Program | None, level: Level | None) -> Requirements:
    platforms = () if program is None else tuple(sorted(program.executables))
    needs = parse_requirements(request.requires)
    return msgspec.structs.replace(needs, sandbox=level, platforms=platforms, builds=request.env is not None)


_requests = msgspec.json.Decoder(JobRequest)


def read_request(body: bytes) -> JobRequest:
    """Read a request's JSON; raises BadRequest that names the faulty field.

    The framework would make Python objects of the items first, and round their numbers.
    """
    try:
        return _requests.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is no job: {error}") from error


async def keep_environment(hub: Hub, request: EnvironmentRequest | None, token: Token) -> Digest | None:
    """Lock an environment and keep the lock; raises BadRequest that says why it can't be had."""
    if request is None:
        return None
    async with _turns.setdefault(hub, asyncio.Semaphore(RESOLVED_AT_ONCE)):
        lock = await resolve(request.packages, request.python)
    digest, _ = await hub.front.keep_blob(whole(encode_lock(lock)), token)
    return digest


def check_function(text: str) -> None:
    """Raise BadRequest unless `text` reads as module:function."""
    if not _FUNCTION.fullmatch(text):
        raise BadRequest(f'function: {text!r} is not of the form "module:function", such as "math:sqrt"')


def cut(items: Sequence[msgspec.Raw]) -> Iterator[tuple[int, int, bytes]]:
    """Yield `(start, stop, page)` for consecutive items; a larger item gets a page of its own."""
    start, size, pending = 0, 0, list[bytes]()
    for item in items:
        data = bytes(item)
        if pending and (size + len(data) > PAGE_BYTES or len(pending) >= PAGE_ITEMS):
            yield start, start + len(pending), b"[" + b",".join(pending) + b"]"
            start, size, pending = start + len(pending), 0, []
        pending.append(data)
        size += len(data) + 1
    if pending:
        yield start, start + len(pending), b"[" + b",".join(pending) + b"]"


async def make_pages(hub: Hub, job: JobId, items: Sequence[msgspec.Raw], token: Token) -> list[InputPage]:
    """Cut the items into pages; those too large for a row become blobs first."""
    pages = []
    for start, stop, data in cut(items):
        if len(data) <= INLINE_BYTES:
            pages.append(InputPage(job, start, stop, data))
        else:
            digest, _ = await hub.front.keep_blob(whole(data), token)
            pages.append(InputPage(job, start, stop, None, blob=digest))
    return pages
