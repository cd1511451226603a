"""Jobs: what a user submits. The spec is immutable; progress is counted beside it."""

from typing import Literal

import msgspec

from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, SessionId
from fallow.model.requirements import Requirements

MAX_PRIORITY = 1_000_000
"""Bound of |priority|, so that it fits every database and every sort."""


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

StageKind = Literal["map", "starmap", "filter", "reduce", "call", "apply"]
"""How a stage of a job's pipeline treats an item x with its function f.

map: f(x). starmap: f(*x). filter: keep x if f(x). reduce: fold, always last. call: the item is (args, kwargs) of
f. apply: the item is (f, args, kwargs) and carries its own function. call and apply items are pickled one by one.
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
    requirements: Requirements = Requirements()
    priority: int = 0
    """Higher goes first."""
    retries: int = 0
    """How often a task that raised, or ran over its timeout, is tried again."""
    max_retries: int = 3
    """How often a task whose slot died is tried again."""
    timeout_s: float | None = None
    speculate: bool = True
    """Whether a slow task may be run a second time elsewhere, the first result winning."""
    created_at: float = 0.0
    """Unix time, seconds."""

    @property
    def reduces(self) -> bool:
        return self.stages[-1] == "reduce"


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
