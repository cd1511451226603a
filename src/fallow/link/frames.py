"""Every frame that crosses a link, one section per direction. Frozen, no behaviour.

A message on the wire is one MessagePack array of frames (see `codec.py`). PROTOCOL_VERSION is bumped
with any change of meaning; both ends say theirs in their hello and the hub refuses one that differs.
"""

import msgspec

from fallow.model.changes import LogEntry
from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId, LeaseId, NodeId, SessionId
from fallow.model.job import JobInfo, JobProgress, JobSpec
from fallow.model.lease import HeldLease, Lease, RunningTask, TaskCheckpoint
from fallow.model.node import NodeInfo
from fallow.model.page import InputPage, ResultPage, StoredPage

PROTOCOL_VERSION = 2

# --- both directions: blobs ---------------------------------------------------------------------


class BlobOffer(msgspec.Struct, frozen=True, array_like=True, tag="bo"):
    """I have this blob and want you to keep it. Answered by BlobWanted or BlobKept."""

    digest: Digest
    size: int
    path: str | None = None
    """Where it lies, if both ends were shown to share a filesystem."""
    hold: bool = False
    """Count the sender's session as a holder (`grid.put`)."""
    is_spare: bool = False
    """Work goes on without it (a checkpoint): it must not take the room that is reserved for results."""
    is_sole: bool = False
    """The digest is a mere name: nobody else can have a blob of it, so it can go with the first job that names it."""


class BlobWanted(msgspec.Struct, frozen=True, array_like=True, tag="bw"):
    """Send me this blob from `offset` on. Answered by BlobChunk frames, BlobAt or BlobMissing."""

    digest: Digest
    offset: int = 0


class BlobChunk(msgspec.Struct, frozen=True, array_like=True, tag="bc"):
    """256 KiB at most of a blob, in order. `size` is the whole blob's."""

    digest: Digest
    offset: int
    size: int
    data: bytes


class BlobAt(msgspec.Struct, frozen=True, array_like=True, tag="ba"):
    """The blob lies in this file of the filesystem that we share; map it, do not change it."""

    digest: Digest
    path: str


class BlobMissing(msgspec.Struct, frozen=True, array_like=True, tag="bm"):
    """The blob can't be sent, or can't be kept."""

    digest: Digest
    reason: str = ""
    code: str = "not_found"
    """As in `model.errors`; "hub_full" if offering it again later may help."""


class BlobKept(msgspec.Struct, frozen=True, array_like=True, tag="bk"):
    """The blob is durable here."""

    digest: Digest


# --- client to hub ------------------------------------------------------------------------------


class ClientHello(msgspec.Struct, frozen=True, array_like=True, tag="ch"):
    version: int
    session: SessionId
    python: str
    shares: str | None = None
    """What the client read in the hub's probe file (`Welcome.probe`), as proof of a shared filesystem."""


class CreateJob(msgspec.Struct, frozen=True, array_like=True, tag="cj"):
    """Idempotent by `spec.id`. Answered by JobCreated or Refused; the function blob must be kept first."""

    spec: JobSpec
    if_exists: str = "error"
    """"error", "attach" or "replace", for names that are taken."""
    size: int | None = None
    """Of a job that counts: it is sealed with its creation, so that the hub has accepted all of it or nothing."""


class AddInput(msgspec.Struct, frozen=True, array_like=True, tag="ai"):
    """A page of inputs. Pages come in order; one that was accepted before is acknowledged again."""

    page: InputPage


class Seal(msgspec.Struct, frozen=True, array_like=True, tag="se"):
    job: JobId
    size: int


class Watch(msgspec.Struct, frozen=True, array_like=True, tag="wa"):
    """Send me the results of `[start, stop)` as they come, `credit_bytes` more than you may already.

    Credit bounds what is in flight; the page with the lowest wanted index is sent even without credit.
    """

    job: JobId
    reader: int
    """Number of the client's reader: several may read one job, each at its own pace."""
    start: int
    stop: int
    credit_bytes: int


class Unwatch(msgspec.Struct, frozen=True, array_like=True, tag="uw"):
    job: JobId
    reader: int


class CancelTasks(msgspec.Struct, frozen=True, array_like=True, tag="ct"):
    """Cancel these tasks, running ones too; None cancels the whole job. ranges: flat."""

    job: JobId
    ranges: tuple[int, ...] | None = None


class ReleaseJob(msgspec.Struct, frozen=True, array_like=True, tag="rj"):
    """Nobody holds this unnamed job any more: cancel and delete it. `delete=True` deletes a named one."""

    job: JobId
    delete: bool = False


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="as"):
    """A question; answered by Answer or Refused with the same request number.

    what: "job" (argument: id or name → JobInfo), "jobs" (→ list of JobInfo), "nodes" (→ list of NodeView), "explain"
    (job → list of phrases), "logs" (job → list of LogEntry), "running" (job → list of RunningView).
    """

    request: int
    what: str
    argument: str = ""
    after: int = 0


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag="gb"):
    """The client leaves for good: its session ends now."""


# --- hub to client ------------------------------------------------------------------------------


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="we"):
    """Answer to ClientHello and NodeHello."""

    version: int
    epoch: int
    hub_version: str
    probe: str | None = None
    """Path of a file whose content proves a shared filesystem; sent back in `SharesFiles`."""
    heartbeat_s: float = 5.0
    idle_heartbeat_s: float = 30.0


class SharesFiles(msgspec.Struct, frozen=True, array_like=True, tag="sf"):
    """Proof that the sender reads the hub's files: the probe's content."""

    proof: str


class FilesShared(msgspec.Struct, frozen=True, array_like=True, tag="fs"):
    """The proof is right. `incoming` is a folder of the hub into which the sender may put blobs before offering them."""

    incoming: str
    in_place: bool = False
    """They may be offered from where they lie instead, where the hub gives them a second name."""


class JobCreated(msgspec.Struct, frozen=True, array_like=True, tag="jc"):
    """The job is durable. `info.spec.id` differs from `asked` if the client attached to an existing job."""

    asked: JobId
    info: JobInfo


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="ac"):
    """Inputs are durable up to index `stop`."""

    job: JobId
    stop: int


class Results(msgspec.Struct, frozen=True, array_like=True, tag="re"):
    job: JobId
    reader: int
    pages: tuple[StoredPage, ...]


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="pr"):
    """Sent to the job's watchers a few times a second while it changes, and when it ends."""

    job: JobId
    progress: JobProgress


class WaitingBecause(msgspec.Struct, frozen=True, array_like=True, tag="wb"):
    """The job has waited a while and no node can run it: why, in plain words."""

    job: JobId
    reasons: tuple[str, ...]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="rf"):
    """Something was refused; the link stays open unless the hello was."""

    code: str
    """As in `model.errors`."""
    message: str
    job: JobId | None = None
    request: int | None = None
    start: int | None = None
    """The page that was refused; of a seal, the size."""
    reader: int | None = None


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="an"):
    request: int
    value: msgspec.Raw
    """MessagePack of the answer."""


# --- node to hub --------------------------------------------------------------------------------


class NodeHello(msgspec.Struct, frozen=True, array_like=True, tag="nh"):
    version: int
    node: NodeId
    info: NodeInfo


class Presents(msgspec.Struct, frozen=True, array_like=True, tag="ps"):
    """After every hello, behind the finished results: the leases that the node still holds."""

    leases: tuple[HeldLease, ...]
    is_first: bool = False
    """The agent has just started: an earlier one took with it what it ran."""


class NodeChanged(msgspec.Struct, frozen=True, array_like=True, tag="nc"):
    """New score, or the node stops or resumes taking leases (`accepting`), with the reason."""

    info: NodeInfo
    accepting: bool = True
    reason: str = ""


class Done(msgspec.Struct, frozen=True, array_like=True, tag="dn"):
    """Finished pages of one lease. Kept by the node until Acknowledged(number)."""

    number: int
    lease: LeaseId
    job: JobId
    pages: tuple[ResultPage, ...]


class TaskBroke(msgspec.Struct, frozen=True, array_like=True, tag="tb"):
    """A task came to no result: its slot died or it was killed over its timeout. Stale ones are dropped."""

    lease: LeaseId
    job: JobId
    failure: Failure


class Returned(msgspec.Struct, frozen=True, array_like=True, tag="rt"):
    """Unstarted tasks of a lease go back: recalled, cancelled, or the node is leaving."""

    lease: LeaseId
    job: JobId
    unstarted: tuple[int, ...]
    """Flat ranges."""


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="hb"):
    """Heartbeat."""

    running: tuple[RunningTask, ...] = ()
    leases: tuple[LeaseId, ...] = ()
    """Every lease that the node holds; the hub reclaims what it thinks the node has and is not here."""


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, tag="cp"):
    """What a running task has left to go on from, in a blob that the hub has kept. Answered by CheckpointKept."""

    lease: LeaseId
    job: JobId
    index: int
    digest: Digest


class PageWanted(msgspec.Struct, frozen=True, array_like=True, tag="pw"):
    """Send me the input pages that overlap `[start, stop)` again."""

    job: JobId
    start: int
    stop: int


class SpecWanted(msgspec.Struct, frozen=True, array_like=True, tag="sw"):
    job: JobId


class Printed(msgspec.Struct, frozen=True, array_like=True, tag="pt"):
    """Output of tasks."""

    job: JobId
    entries: tuple[LogEntry, ...]


# --- hub to node --------------------------------------------------------------------------------


class Grant(msgspec.Struct, frozen=True, array_like=True, tag="gr"):
    """A lease, with the job's spec if the node has not been sent it on this link, and input pages it may lack."""

    lease: Lease
    spec: JobSpec | None = None
    pages: tuple[InputPage, ...] = ()
    checkpoints: tuple[TaskCheckpoint, ...] = ()
    """Of those tasks of the lease that have one: what they go on from."""


class PageSent(msgspec.Struct, frozen=True, array_like=True, tag="pg"):
    """Answer to PageWanted."""

    job: JobId
    pages: tuple[InputPage, ...]


class SpecSent(msgspec.Struct, frozen=True, array_like=True, tag="sp"):
    spec: JobSpec


class Recall(msgspec.Struct, frozen=True, array_like=True, tag="rc"):
    """Return up to `count` unstarted tasks from the end of the lease."""

    lease: LeaseId
    count: int


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cn"):
    """Stop these tasks of the job, killing slots if needed, and forget them. Empty ranges: all of the job."""

    job: JobId
    ranges: tuple[int, ...] = ()
    """Flat ranges."""


class Acknowledged(msgspec.Struct, frozen=True, array_like=True, tag="ak"):
    """Every Done up to and including `number` is durable."""

    number: int


class CheckpointKept(msgspec.Struct, frozen=True, array_like=True, tag="ck"):
    """This checkpoint is durable, or of no use: its task is settled, or another lease's by now."""

    job: JobId
    index: int
    digest: Digest


class Forget(msgspec.Struct, frozen=True, array_like=True, tag="fg"):
    """The job is over: drop its pages and function."""

    job: JobId


ClientFrame = (
    ClientHello | CreateJob | AddInput | Seal | Watch | Unwatch | CancelTasks | ReleaseJob | Ask | Goodbye
    | SharesFiles | BlobOffer | BlobWanted | BlobChunk | BlobMissing
)  # fmt: skip
"""What a client may send."""

NodeFrame = (
    NodeHello | Presents | NodeChanged | Done | TaskBroke | Returned | Beat | Checkpoint | PageWanted | SpecWanted | Printed
    | SharesFiles | BlobOffer | BlobWanted | BlobChunk | BlobMissing
)  # fmt: skip
"""What a node may send."""

ToClient = (
    Welcome | FilesShared | JobCreated | Accepted | Results | Progress | WaitingBecause | Refused | Answer
    | BlobWanted | BlobChunk | BlobAt | BlobMissing | BlobKept
)  # fmt: skip
"""What a client may receive."""

ToNode = (
    Welcome | FilesShared | Grant | PageSent | SpecSent | Recall | Cancel | Acknowledged | CheckpointKept | Forget | Refused
    | BlobWanted | BlobChunk | BlobAt | BlobMissing | BlobKept
)  # fmt: skip
"""What a node may receive."""

Frame = ClientFrame | NodeFrame | ToClient | ToNode
