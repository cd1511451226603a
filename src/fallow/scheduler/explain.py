"""Why a job is waiting, in plain words."""

from collections import Counter
from collections.abc import Iterable

from fallow.model.job import ResultsOf
from fallow.model.node import NodeInfo
from fallow.model.requirements import Requirements, format_size
from fallow.scheduler.books import Books
from fallow.scheduler.job_state import JobState, Open
from fallow.scheduler.node_state import UNKNOWN, Away, NodeState, Ready

NAMED = 3
"""Nodes and jobs that are named one by one; more are counted."""


def explain(books: Books, job: JobState) -> list[str]:
    """Return what keeps the job from being done, one phrase each, the main one first."""
    if job.has_ended:
        return ["it has ended; another job goes on from its results"]
    phrases = _where_it_runs(job)
    if job.pending_count:
        phrases += _why_pending(books, job)
    elif not job.leases:
        phrases += _why_no_inputs(job)
    return phrases


def _where_it_runs(job: JobState) -> list[str]:
    nodes: Counter[str] = Counter()
    for lease in job.leases.values():
        nodes[_name(lease.node)] += len(lease.unfinished) if lease.original is None else 0
    if not nodes:
        return []
    return [f"{_count(nodes.total(), 'task')} {_be(nodes.total())} out at {_list(list(nodes))}"]


def _why_no_inputs(job: JobState) -> list[str]:
    if isinstance(job.spec.inputs, ResultsOf):
        if job.parent is not None:
            return [f"it waits for results of {_title(job.parent)}"]
        return ["it waits for the results of the job before it"]
    if isinstance(job.life, Open):
        return [
            "it waits for its client to send inputs" if not job.settled else "it waits for more inputs from its client"
        ]
    return ["it waits for the rest of its inputs"]


def _why_pending(books: Books, job: JobState) -> list[str]:
    nodes = [node for node in books.nodes.values() if node.info is not UNKNOWN]
    connected = [node for node in nodes if not isinstance(node.presence, Away)]
    if not connected:
        return [f"no node is connected ({_count(len(nodes), 'node')} may come back)" if nodes else "no node has joined"]
    wants = job.spec.requirements
    matching = [
        node
        for node in connected
        if job.work_class.suits(node) and job.work_class.fit(node.info.slots, node.info.cores, node.info.memory_bytes)
    ]
    if not matching:
        return _why_none_matches(wants, [node.info for node in connected])
    ready = [node for node in matching if node.may_be_granted]
    if not ready:
        return [_why_not_granted(node) for node in matching[:NAMED]] + _more(len(matching) - NAMED)
    return _why_busy(books, job, ready)


def _why_none_matches(wants: Requirements, infos: list[NodeInfo]) -> list[str]:
    """Compare each requirement with the best node; where each is met by some node, say what each node lacks."""
    fleet = f"of {_count(len(infos), 'node')}" if len(infos) > 1 else "node"
    phrases = []
    cores, memory_bytes = max(each.cores for each in infos), max(each.memory_bytes for each in infos)
    if wants.cores > cores:
        phrases.append(f"needs {_count(wants.cores, 'core')}; the largest {fleet} has {cores}")
    if wants.memory_bytes > memory_bytes:
        phrases.append(f"needs {format_size(wants.memory_bytes)}; the largest {fleet} has {format_size(memory_bytes)}")
    if wants.os is not None and all(each.os != wants.os for each in infos):
        phrases.append(f"needs {wants.os}; nodes run {_kinds(each.os for each in infos)}")
    if wants.arch is not None and all(each.arch != wants.arch for each in infos):
        phrases.append(f"needs {wants.arch}; nodes are {_kinds(each.arch for each in infos)}")
    if wants.python is not None and all(wants.python not in each.pythons for each in infos):
        phrases.append(f"needs Python {wants.python}; nodes have {_kinds(v for each in infos for v in each.pythons)}")
    if wants.builds and not any(each.builds for each in infos):
        phrases.append('needs an environment, and no node has uv to build it: pip install "fallow[envs]" there')
    tags = {tag for each in infos for tag in each.tags}
    phrases += [f"needs the tag {tag}; nodes have {_kinds(tags)}" for tag in wants.tags if tag not in tags]
    if all(each.slots == 0 for each in infos):
        phrases.append("no node has a slot")
    if phrases:
        return phrases
    lacks = [f"{each.name}: {', '.join(wants.unmet_by(each)) or 'no slot'}" for each in infos[:NAMED]]
    return ["no node has all that it needs at once", *lacks, *_more(len(infos) - NAMED)]


def _why_not_granted(node: NodeState) -> str:
    if not isinstance(node.presence, Ready):
        return f"{_name(node)} is just joining"
    return f"{_name(node)} takes no work now" + (f": {node.reason}" if node.reason else "")


def _why_busy(books: Books, job: JobState, ready: list[NodeState]) -> list[str]:
    others: Counter[str] = Counter()
    higher = False
    for node in ready:
        for lease in node.leases.values():
            if lease.job is not job:
                others[_title(lease.job)] += lease.reserved
                higher |= lease.job.priority > job.priority
    phrases = []
    avoided = [_name(node) for node in books.nodes.values() if node.id in job.work_class.avoided]
    if avoided:
        phrases.append(f"{_list(avoided)} lacked what it needs")
    if job.careful:
        alone = [index for index in job.drains if index in job.careful]
        if alone:
            phrases.append(f"task {alone[0]} took nodes down and waits for an empty one")
        else:
            phrases.append(
                f"{_count(len(job.careful), 'task')} that failed before {_be(len(job.careful))} to be tried elsewhere"
            )
    that_match = "the only node" if len(ready) == 1 else f"all {len(ready)} nodes"
    if others:
        rank = " of higher priority" if higher else ""
        phrases.append(
            f"{that_match} that could run it {_be(len(ready))} busy with work{rank}: {_list([name for name, _ in others.most_common()])}"
        )
    elif job.leases:
        phrases.append(
            f"{_count(job.pending_count, 'task')} wait for {that_match} that can run them to get through what is out"
        )
    ahead = job.work_class.peek()
    if ahead is not None and ahead is not job:
        phrases.append(f"{_title(ahead)} is before it in the queue")
    return phrases or ["it starts now"]


# --- words --------------------------------------------------------------------------------------


def _title(job: JobState) -> str:
    return f"{job.spec.name or job.spec.function_name} ({job.id[:12]})"


def _name(node: NodeState) -> str:
    return node.info.name or node.id[:12]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _list(names: list[str]) -> str:
    shown = names[:NAMED]
    return ", ".join(shown) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _more(count: int) -> list[str]:
    return [f"… and {_count(count, 'more node')}"] if count > 0 else []


def _kinds(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words))) or "none"
