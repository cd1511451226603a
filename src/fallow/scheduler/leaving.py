"""Work that comes back without a result: returned, broken, never received, or lost with its node.

The loss of a node does not count towards a task's retries. But a task that was running on three nodes when each was
lost runs alone next, so that it takes nothing else down, and at one more loss it fails.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from fallow.model.events import NodeLost
from fallow.model.failure import Failure
from fallow.model.ids import LeaseId
from fallow.model.lease import RunningTask
from fallow.model.ranges import Range
from fallow.model.requirements import format_size
from fallow.scheduler.books import Books
from fallow.scheduler.effects import Tell
from fallow.scheduler.job_state import JobState, Trouble
from fallow.scheduler.lease_state import LeaseState
from fallow.scheduler.node_state import UNKNOWN, NodeState, Ready
from fallow.scheduler.settling import fail_tasks, give_back


def take_back(books: Books, lease: LeaseState, unstarted: Iterable[Range]) -> None:
    """The node returned tasks of a lease that it had not started."""
    count = give_back(books, lease, unstarted)
    if count:
        lease.recall_until = 0.0
        books.shrink(lease)
    # an empty answer leaves `recall_until` as it is: the node had nothing to give, and is not asked again at once


def task_broke(books: Books, lease: LeaseState, failure: Failure) -> None:
    """Exactly this task is to blame: try it again first, elsewhere if it was its slot that died, or fail it."""
    job, node = lease.job, lease.node
    trouble = job.trouble(failure.index)
    lease.moved_mono = books.now
    if failure.kind in {"timeout", "limit"}:
        trouble.raised += 1
        is_final = trouble.raised > job.spec.retries
    else:
        trouble.crashed += 1
        trouble.note_node(node.id, node.info.name)
        is_final = trouble.crashed > job.spec.max_retries
        if failure.is_of_node and node.id not in job.able:
            books.avoid(job, node)
        failure = _crash_record(failure, trouble)
    if is_final:
        trouble.discount()
        fail_tasks(books, job, lease, [failure])
    else:
        give_back(books, lease, [(failure.index, failure.index + 1)])
    if lease.id in books.leases:
        books.shrink(lease)


def _crash_record(failure: Failure, trouble: Trouble) -> Failure:
    """Complete the record of a crash with what is known over all attempts, in words."""
    how = "its process died" if failure.kind == "crashed" else failure.kind
    if failure.signal:
        how += f" of {failure.signal}"
    elif failure.exit_code is not None:
        how += f" with exit code {failure.exit_code}"
    parts = [failure.message or how]
    if (
        failure.message
        and how not in {"its process died", failure.kind}
        and (failure.signal or "exit code") not in failure.message
    ):
        parts.append(how)
    if failure.peak_memory_bytes:
        parts.append(f"peak memory {format_size(failure.peak_memory_bytes)}")
    names = ", ".join(trouble.names)
    if failure.is_of_node and failure.type_name:  # what a program's slot says, in a few words
        parts[0] += f" on node{'s' if len(trouble.names) > 1 else ''} {names}"
        parts.append(f"tried {trouble.attempts} times")
    else:
        parts.append(f"tried {trouble.attempts} times on {names}")
    if failure.output:
        parts.append(f"last output:\n{failure.output}")
    return Failure(
        index=failure.index,
        kind=failure.kind,
        type_name=failure.type_name,
        message="; ".join(parts),
        traceback=failure.traceback,
        exception=failure.exception,
        node=failure.node,
        exit_code=failure.exit_code,
        signal=failure.signal,
        peak_memory_bytes=failure.peak_memory_bytes,
        output=failure.output,
    )


def heard(books: Books, node: NodeState, running: Sequence[RunningTask], listed: Sequence[LeaseId]) -> None:
    """Take in a heartbeat: what runs since when, and which leases the node has never received."""
    for lease in node.leases.values():
        lease.running = {}
    for task in running:
        held = node.leases.get(task.lease)
        if held is not None and task.index in held.unfinished and task.running_s >= 0:
            held.running[task.index] = books.now - task.running_s
            held.job.times.note_running(task.index, task.running_s * books.speed(held.job, node))
    if not isinstance(node.presence, Ready):
        return
    names, settings = set(listed), books.settings
    newest = max(names, default=0)
    for lease in list(node.leases.values()):
        if lease.id in names:
            lease.missed_mono = None
        elif lease.missed_mono is None:  # the heartbeat may have been sent before the lease came, and waited here since
            lease.missed_mono = books.now
        elif books.now - lease.missed_mono > (
            settings.reclaim_after_s if newest > lease.id else settings.heartbeat_s * settings.missed_beats
        ):
            reclaim(books, lease)


def reclaim(books: Books, lease: LeaseState) -> None:
    """The node does not have this lease: all that is left of it goes back."""
    give_back(books, lease, list(lease.unfinished.ranges()))
    books.end_lease(lease)
    lease.node.reserve()


def lose_node(books: Books, node: NodeState) -> None:
    """Give a node up: its leases go back to the front of the queue, and nothing of it stays in memory."""
    books.unmatch(node)
    del books.nodes[node.id]
    for job in node.cached.values():
        del job.touched[node.id]
        job.paces.pop(node.id, None)
        job.able.discard(node.id)
    node.cached.clear()
    leases = list(node.leases.values())
    tasks = sum(len(lease.unfinished) for lease in leases)
    for lease in leases:
        blame(books, lease, how="lost")
        if lease.id in books.leases:  # unless that ended its job
            reclaim(books, lease)
    books.vacated.pop(node.id, None)
    if node.info is not UNKNOWN:
        books.effects.append(Tell(NodeLost(node.id, node.info.name, len(leases), tasks)))


def blame(books: Books, lease: LeaseState, *, how: Literal["lost", "restarted", "listed"]) -> None:
    """Count a loss for the tasks of the lease that were running when its node was lost.

    Those that the last heartbeat listed; else the first ones, as many as the node could run at a time: if its agent has
    restarted (a task that ends agents at once is in no heartbeat), or if the node is lost and had the lease long enough to
    have started. how: "listed" blames only those that a heartbeat listed.
    """
    job = lease.job
    is_young = how == "lost" and books.now - lease.granted_mono < books.settings.suspect_after_s
    if how == "listed" or is_young:
        suspects = [index for index in lease.running if index in lease.unfinished]
    else:
        suspects = [index for index, _ in lease.started()]
    fatal = []
    for index in suspects:
        trouble = job.trouble(index)
        trouble.lost += 1
        trouble.note_node(lease.node.id, lease.node.info.name)
        if trouble.lost > books.settings.losses_before_alone:
            fatal.append(_loss_record(job, index, trouble))
            trouble.discount()
    if fatal:
        fail_tasks(books, job, lease, fatal)


def _loss_record(job: JobState, index: int, trouble: Trouble) -> Failure:
    names = ", ".join(trouble.names)
    message = f"{trouble.lost} nodes were lost while they ran this task ({names}); the last ran nothing else"
    return Failure(index=index, kind="lost_nodes", message=message, node=trouble.names[-1])
