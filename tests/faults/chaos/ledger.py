"""What was executed, what was durable when, and whether the two agree."""

import json
import shutil
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import chaos_tasks as tasks
from cable import Cable

from fallow import InputEnded
from fallow.model.ranges import RangeSet
from fallow.state.database import FILE_NAME
from fallow.state.sql import SqlState

SENT_BIT_BY_BIT = {"items", "generator", "ref"}
"""Kinds of jobs whose inputs end where they are if their client dies; ranges are accepted whole or not at all."""
SLACK_S = 5.0
"""A node that heard the hub well for so long knows what the hub knows."""


@dataclass
class Durable:
    """What the database of a killed hub held: nothing of it may be lost or run again."""

    at: float
    settled: dict[str, RangeSet] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)


def read_database(folder: Path, at: float) -> Durable:
    """Read a copy, so that the next hub finds what the killed one left."""
    found = Durable(at)
    with tempfile.TemporaryDirectory() as name:
        for path in folder.glob(f"{FILE_NAME}*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, name)
        state = SqlState(Path(name))
        try:
            recovered = state.recover()
            for job in [*recovered.jobs, *state.ended_jobs(limit=1_000_000)]:
                if job.spec.name is not None:
                    found.settled[job.spec.name] = RangeSet.from_flat(job.settled)
                    found.accepted[job.spec.name] = job.accepted
        finally:
            state.close()
    return found


def facts(folder: Path) -> list[dict]:
    """Return what the clients noted."""
    lines = [line for path in sorted(folder.glob("*.facts")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.endswith("}")]


class Ledger:
    """Collects evidence while the faults go on; judges at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.durable: list[Durable] = []
        self.acknowledged: list[tuple[float, str, RangeSet]] = []
        self.agents: dict[int, tuple[str, Cable]] = {}
        self.deaths: dict[int, list[float]] = defaultdict(list)
        """When processes were killed, by pid."""

    def executions(self) -> dict[tuple[str, int], list[tuple[float, int, int]]]:
        """Return (time, pid, pid of the agent) of every execution, by task."""
        found = defaultdict(list)
        path = self._folder / "ledger"
        for line in path.read_text().splitlines() if path.exists() else []:
            label, index, pid, agent, at = line.rsplit(" ", 4)
            found[label, int(index)].append((float(at), int(pid), int(agent)))
        return {task: sorted(times) for task, times in found.items()}

    def lost(self) -> list[str]:
        """Return what was durable or acknowledged once, and later was not."""
        deleted = {fact["label"] for fact in facts(self._folder) if fact["what"] == "deleting"}
        wrong = []
        for before, after in zip(self.durable, self.durable[1:], strict=False):
            for label, settled in before.settled.items():
                if label in deleted:
                    continue
                if label not in after.settled:
                    wrong.append(f"job {label} was durable at {before.at:.3f} and gone at {after.at:.3f}")
                    continue
                missing = [each for each in settled.ranges() if after.settled[label].within(*each) != [each]]
                if missing or after.accepted[label] < before.accepted[label]:
                    wrong.append(f"job {label} lost results {missing} or inputs between two kills of the hub")
        for at, label, settled in self.acknowledged:
            after = next((durable for durable in self.durable if durable.at >= at), None)
            if after is None or label in deleted:
                continue
            missing = [
                each for each in settled.ranges() if after.settled.get(label, RangeSet()).within(*each) != [each]
            ]
            if missing:
                wrong.append(f"results {missing} of {label} were acknowledged before the hub was killed, and are lost")
        return wrong

    def run_again(self) -> tuple[int, list[str]]:
        """Return how often a task ran that had been durable, with an excuse, and those without.

        The excuse: its node could not know, because within the last SLACK_S it did not hear the hub.
        """
        excused, wrong = 0, []
        executions = self.executions()
        for durable in self.durable:
            for (label, index), times in executions.items():
                settled = durable.settled.get(label)
                if settled is None or index not in settled:
                    continue
                for at, pid, agent in times:
                    if at <= durable.at:
                        continue
                    name, cable = self.agents.get(agent, ("an agent that is gone", None))
                    heard = cable is not None and cable.was_good(at - SLACK_S, at)
                    if heard and at - SLACK_S > durable.at:
                        wrong.append(f"{label}[{index}] was durable at {durable.at:.3f} and ran on {name} at {at:.3f}")
                    else:
                        excused += 1
        return excused, sorted(set(wrong))

    def repeats(self, hub_kills: list[float]) -> tuple[Counter, list[str]]:
        """Return why tasks were executed more than once, and the cases that have no explanation."""
        causes: Counter = Counter()
        crashers = {fact["label"] for fact in facts(self._folder) if fact.get("kind") == "crashes"}
        unexplained = []
        for (label, index), times in self.executions().items():
            for (first, pid, agent), (second, other_pid, other_agent) in zip(times, times[1:], strict=False):
                name, cable = self.agents.get(agent, ("?", None))
                if (self._folder / f"crashed-{label}-{index}").exists():
                    causes["the task took its own process down"] += 1
                elif label in crashers and pid != other_pid:
                    causes["another task took its process down before their batch was reported"] += 1
                elif any(first <= at <= second for at in self.deaths[pid]):
                    causes["its slot or its node was killed"] += 1
                elif any(first - 1 <= at <= second for at in hub_kills):
                    causes["the hub was killed before the result was durable"] += 1
                elif cable is None or not cable.was_good(first - 1, second):
                    causes["its node was out of reach"] += 1
                elif agent != other_agent:
                    causes["second attempt or recall on another node"] += 1
                else:
                    causes["unexplained"] += 1
                    unexplained.append(f"{label}[{index}] {first:.3f} {pid} and {second:.3f} {other_pid} on {name}")
        return causes, unexplained

    def check_results(self, grid) -> tuple[int, list[str], list[str]]:
        """Read every named job again that clients left; return how many results were right, and what is lost or wrong."""
        noted = facts(self._folder)
        deleted = {fact["label"] for fact in noted if fact["what"] == "deleting"}
        created = {fact["label"]: fact for fact in noted if fact["what"] == "created"}
        cut_short = {fact["label"]: fact["size"] for fact in noted if fact["what"] == "cut short"}
        read = {fact["label"] for fact in noted if fact["what"] == "ended"}
        checked, lost, wrong = 0, [], []
        for label, fact in created.items():
            if label in deleted:
                continue
            found = []
            size = cut_short.get(label.removesuffix("-child"))
            try:
                for each in grid.job(label).results(return_exceptions=True, timeout=60):
                    found.append(tasks.plain(each))  # noqa: PERF401 -- what came before InputEnded counts
            except InputEnded:
                if fact["kind"] in SENT_BIT_BY_BIT and label not in read:  # its client died, and never came back to it
                    size = len(found)
            except Exception as error:
                lost.append(f"{label}: {type(error).__name__}: {error}")
                continue
            wanted = tasks.truth(fact["kind"], fact["size"])[:size]
            checked += len(wanted)
            if found != wanted:
                wrong.append(f"{label} ({fact['kind']}): {len(found)} results of {len(wanted)}")
        return checked, lost, wrong
