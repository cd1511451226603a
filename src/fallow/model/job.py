"""Jobs: what a user submits. The spec is immutable; progress is counted beside it."""

from typing import Literal

import msgspec

from fallow.model.containment import Containment, check_containment
from fallow.model.errors import BadRequest
from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, SessionId
from fallow.model.requirements import Requirements, check_requirements

MAX_PRIORITY = 1_000_000
"""Bound of |priority|, so that it fits every database and every sort."""

MAX_CHECKPOINT_S = 1e7
"""A third of a year."""
MAX_NAME = 200
MAX_STAGES = 100
MAX_FUNCTION_NAME = 4_000
MAX_PLATFORMS = 100
MAX_SOURCES = 2_000
"""Local modules that a job may bring along, and blobs that its function may refer to."""
_HEX_DIGITS = frozenset("0123456789abcdef")


class Pages(msgspec.Struct, frozen=True, tag="pages"):
    """Inputs come as pages of pickled items (`codec` json: JSON arrays), in order."""


class Counting(msgspec.Struct, frozen=True, tag="counting"):
    """Input i is `start + i * step`: a Python range travels as a range."""

    start: int
    step: int


class ResultsOf(msgspec.Struct, frozen=True, tag="results_of"):
    """Input i is result i of the parent job; indices that it filtered out or that failed do so here too."""

    parent: JobId


Inputs = Pages | Counting | ResultsOf

StageKind = Literal["map", "starmap", "filter", "reduce", "call", "apply", "run"]
"""How a stage of a job's pipeline treats an item x with its function f.

map: f(x). starmap: f(*x). filter: keep x if f(x). reduce: fold, always last. call: the item is (args, kwargs) of
f. apply: the item is (f, args, kwargs) and carries its own function. call and apply items are pickled one by one. run: the
item is a program's parameters, and the function its description (`fallow.model.program`), both as JSON; the only stage.
"""


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that defines a job, fixed when it is created."""

    id: JobId
    stages: tuple[StageKind, ...]
    function: Digest
    """Blob with the pickled list of the stages' callables (codec json: the text "module:function")."""
    function_name: str
    """For people: "simulate", "map(parse).filter(is_valid)"."""
    inputs: Inputs
    name: str | None = None
    """Named jobs outlive their client; unnamed ones live as long as its session."""
    session: SessionId | None = None
    owner: str = ""
    """Id of the token that created it; set by the hub."""
    codec: Literal["pickle", "json"] = "pickle"
    sources: dict[str, Digest] = {}
    """Archives of the user's own top-level modules, by module name, that slots import before unpickling."""
    refs: tuple[Digest, ...] = ()
    """Blobs that the function itself refers to."""
    executables: dict[str, Digest] = {}
    """Blobs that nodes of one platform need, by its name, such as "linux-x86_64"."""
    requirements: Requirements = Requirements()
    environment: Digest | None = None
    """Blob with the locked Python environment that the tasks run in; None: the node's own."""
    containment: Containment = Containment()
    priority: int = 0
    """Higher goes first."""
    retries: int = 0
    """How often a task that raised, or ran over its timeout, is tried again."""
    max_retries: int = 3
    """How often a task whose slot died is tried again."""
    timeout_s: float | None = None
    speculate: bool = True
    """Whether a slow task may be run a second time elsewhere, the first result winning."""
    checkpoint_s: float = 30.0
    """How often, at most, what a task leaves in its checkpoint folder is sent to the hub."""
    created_at: float = 0.0
    """Unix time, seconds."""

    @property
    def reduces(self) -> bool:
        return self.stages[-1] == "reduce"

    @property
    def is_program(self) -> bool:
        return self.stages == ("run",)

    @property
    def blobs(self) -> tuple[Digest, ...]:
        """All that nodes need before they can run the job's tasks."""
        return self._blobs(*self.executables.values())

    def refs_on(self, platform: str) -> tuple[Digest, ...]:
        """What the function refers to on nodes of a platform."""
        return self.refs if platform not in self.executables else (*self.refs, self.executables[platform])

    def blobs_on(self, platform: str) -> tuple[Digest, ...]:
        """All that a node of a platform needs."""
        return self._blobs(*self.refs_on(platform)[len(self.refs) :])

    def _blobs(self, *executables: Digest) -> tuple[Digest, ...]:
        more = (self.environment, self.containment.image_archive)
        return (
            self.function,
            *self.sources.values(),
            *self.refs,
            *executables,
            *(digest for digest in more if digest is not None),
        )


def check_spec(spec: JobSpec) -> None:
    """Raise BadRequest unless a spec from outside is one that a hub can keep: ids, names and numbers in bounds."""
    if not _is_hex(spec.id, 32):
        raise BadRequest(f"job id {spec.id[:80]!r} is not 32 hex digits")
    for module in spec.sources:
        if len(module) > MAX_NAME:
            raise BadRequest(f"the module name {module[:80]!r}… is over the limit of {MAX_NAME} characters")
    if len(spec.executables) > MAX_PLATFORMS or any(len(platform) > MAX_NAME for platform in spec.executables):
        raise BadRequest(f"executables for over {MAX_PLATFORMS} platforms, or of names over {MAX_NAME} characters")
    if isinstance(spec.inputs, ResultsOf) and not _is_hex(spec.inputs.parent, 32):
        raise BadRequest(f"the parent {spec.inputs.parent[:80]!r} is not a job id of 32 hex digits")
    if isinstance(spec.inputs, Counting) and max(abs(spec.inputs.start), abs(spec.inputs.step)) >= 1 << 63:
        raise BadRequest("a range travels as 64-bit numbers; pass larger ones as a list")
    if spec.name is not None and not (0 < len(spec.name) <= MAX_NAME and spec.name.isprintable()):
        raise BadRequest(f"the name {spec.name[:80]!r} is not a printable text of 1 to {MAX_NAME} characters")
    if not spec.stages or len(spec.stages) > MAX_STAGES or "reduce" in spec.stages[:-1]:
        raise BadRequest(f"stages {spec.stages[:8]!r}: 1 to {MAX_STAGES}, and reduce comes last")
    if len(spec.function_name) > MAX_FUNCTION_NAME or len(spec.sources) > MAX_SOURCES or len(spec.refs) > MAX_SOURCES:
        raise BadRequest(
            f"a function name over {MAX_FUNCTION_NAME} characters, or over {MAX_SOURCES} sources or references"
        )
    if abs(spec.priority) > MAX_PRIORITY:
        raise BadRequest(f"priority={spec.priority} is not from {-MAX_PRIORITY} to {MAX_PRIORITY}")
    if not (0 <= spec.retries <= MAX_PRIORITY and 0 <= spec.max_retries <= MAX_PRIORITY):
        raise BadRequest(f"retries={spec.retries}, max_retries={spec.max_retries} are not from 0 to {MAX_PRIORITY}")
    if spec.timeout_s is not None and not 0 < spec.timeout_s < float("inf"):
        raise BadRequest(f"timeout={spec.timeout_s} is not a number of seconds above 0")
    if "run" in spec.stages and (len(spec.stages) > 1 or spec.codec != "json"):
        raise BadRequest("a program is a job's only stage, and its parameters are JSON")
    for digest in spec.blobs:
        if not _is_hex(digest, 64):
            what = "function" if digest == spec.function else "blob"
            raise BadRequest(f"{what} {digest[:80]!r} is not a digest of 64 hex digits")
    if not 0 < spec.checkpoint_s <= MAX_CHECKPOINT_S:
        raise BadRequest(
            f"checkpoint_s={spec.checkpoint_s} is not a number of seconds above 0 and up to {MAX_CHECKPOINT_S}"
        )
    check_requirements(spec.requirements)
    check_containment(spec.containment)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and set(text) <= _HEX_DIGITS


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is."""

    state: Literal["waiting", "running", "done", "cancelled"]
    """waiting: nothing of it has been leased yet. done: every task is settled, by a value or a failure."""
    accepted: int
    """Tasks whose inputs the hub has."""
    size: int | None
    """Number of tasks, None while the job is open."""
    settled: int
    failed: int
    leased: int
    """Tasks that are out at nodes now."""
    input_ended: bool = False
    """True if the job was sealed because its client died."""

    @property
    def ended(self) -> bool:
        return self.state in {"done", "cancelled"}


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A job as shown to people and programs."""

    spec: JobSpec
    progress: JobProgress
    first_failures: tuple[Failure, ...] = ()
    """At most 100."""
    ended_at: float | None = None
