"""One client of the fault harness: makes jobs, checks what they return, and comes back to them after it was killed.

Everything that it saw goes as JSON lines into its facts, which outlive it.
"""

import faulthandler
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import chaos_tasks as tasks

from fallow import FallowError, Grid, HubFull, InputEnded, JobNotFound, Unavailable

KINDS = [
    "range",
    "items",
    "generator",
    "filter",
    "reduce",
    "chain",
    "large",
    "prints",
    "raises",
    "crashes",
    "submits",
    "ref",
]
UNNAMED = {"reduce", "submits"}
MAX_RETRIES = 100  # the harness kills slots at random: that must not fail a task
RETRY_S = 0.3
DUMP_AFTER_S = 60


class Client:
    def __init__(self, url: str, token: str, folder: Path, name: str, seed: str) -> None:
        self.url, self.token, self.folder, self.name, self.seed = url, token, folder, name, seed
        self.facts_path = folder / f"{name}.facts"
        lines = self.facts_path.read_text().splitlines() if self.facts_path.exists() else []
        self.facts = [json.loads(line) for line in lines if line.endswith("}")]
        self.grid = None

    def note(self, what: str, label: str, **more) -> None:
        line = json.dumps({"what": what, "label": label, "at": time.time(), **more}) + "\n"
        handle = os.open(self.facts_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)

    def seen(self, what: str, label: str) -> int:
        return sum(fact["what"] == what and fact["label"] == label for fact in self.facts)

    def run(self) -> None:
        number = 0
        while not (self.folder / "stop").exists():
            label = f"{self.name}-{number}"
            if not self.seen("ended", label):
                self.keep_trying(label, number)
            number += 1
        if self.grid is not None:
            self.grid.close()

    def keep_trying(self, label: str, number: int) -> None:
        while True:
            chance = random.Random(f"{self.seed}/{self.name}/{number}")
            try:
                if self.grid is None:
                    self.grid = Grid(self.url, token=self.token)
                self.round(label, chance)
                return
            except (HubFull, Unavailable) as error:
                self.note("refused", label, error=type(error).__name__)
                time.sleep(RETRY_S)

    def round(self, label: str, chance: random.Random) -> None:
        kind = chance.choice(KINDS)
        size = chance.choice([1, 7, 40, 150, 600])
        pause_s = chance.choice([0, 0.001, 0.01, 0.05]) if size < 600 else chance.choice([0, 0.001, 0.005])
        if kind == "large":
            size = chance.randrange(1, 6)
        faulthandler.dump_traceback_later(DUMP_AFTER_S, repeat=True)
        self.facts.append({"what": "begun", "label": label})
        self.note("begun", label, kind=kind, size=size)
        if kind in UNNAMED:
            found, wanted = self.unnamed(kind, f"{label}.{time.time_ns()}", size, pause_s)
        else:
            found, wanted = self.named(kind, label, size, pause_s)
        wrong = [] if found == wanted else _differences(found, wanted)
        self.note("ended", label, kind=kind, checked=len(wanted), wrong=wrong)
        if kind in {"large", "ref"} or (kind not in UNNAMED and chance.random() < 0.7):
            for each in (f"{label}-child", label) if kind == "chain" else (label,):
                self.note("deleting", each)
                self.grid.job(each).delete()

    def unnamed(self, kind: str, label: str, size: int, pause_s: float) -> tuple[list, list]:
        grid = self.grid.options(max_retries=MAX_RETRIES)
        task = tasks.Task(str(self.folder), label, pause_s)
        if kind == "reduce":
            wanted = [sum(each) for each in zip(*tasks.truth(kind, size), strict=True)]
            return list(grid.map(task, range(size)).reduce(tasks.add)), wanted
        futures = [grid.submit(task, index) for index in range(size)]
        return [future.result() for future in futures], tasks.truth(kind, size)

    def named(self, kind: str, label: str, size: int, pause_s: float) -> tuple[list, list]:
        """Make the job, or find it again; a found one must be there if it was acknowledged."""
        options = {"name": label, "if_exists": "attach", "max_retries": MAX_RETRIES}
        if self.seen("created", label):
            try:
                job = self.grid.job(label)
            except JobNotFound:
                self.note("lost", label)
                raise
        else:
            job = self.make(kind, label, size, pause_s, options)
            self.facts.append({"what": "created", "label": label})
            self.note("created", label, kind=kind, size=size)
        if kind == "chain":
            child = f"{label}-child"
            work = tasks.OfResult(str(self.folder), child, pause_s)
            job = job.map(work, **{**options, "name": child})
            if not self.seen("created", child):
                self.facts.append({"what": "created", "label": child})
                self.note("created", child, kind=kind, size=size)
        wanted = tasks.truth(kind, size)
        found = []
        try:
            for result in job.results(return_exceptions=True):
                found.append(tasks.plain(result))  # noqa: PERF401 -- what came before InputEnded counts
        except InputEnded:  # an earlier life of this client did not get to send all of it
            wanted = wanted[: len(found)]
            self.note("cut short", label, size=len(found))
        return found, wanted

    def make(self, kind: str, label: str, size: int, pause_s: float, options: dict):
        folder, grid = str(self.folder), self.grid
        given = (folder, label, pause_s)
        match kind:
            case "items":
                items = [(index, bytes([index % 256]) * (index * 997 % 9000)) for index in range(size)]
                return grid.map(tasks.OfItem(*given), items, **options)
            case "generator":
                return grid.map(tasks.Task(*given), (_slowly(index) for index in range(size)), **options)
            case "filter":
                return grid.filter(tasks.Keep(*given), range(size), **options)
            case "ref":
                ref = grid.put(bytes(tasks.LARGE_BYTES))
                return grid.map(tasks.WithRef(*given), list(range(size)), [ref] * size, **options)
        task = {"large": tasks.Large, "prints": tasks.Prints, "raises": tasks.Raises, "crashes": tasks.Crashes}
        return grid.map(task.get(kind, tasks.Task)(*given), range(size), **options)


def _slowly(index: int) -> int:
    time.sleep(0.002)
    return index


def _differences(found: list, wanted: list) -> list[str]:
    wrong = [f"{len(found)} results instead of {len(wanted)}"] if len(found) != len(wanted) else []
    pairs = enumerate(zip(found, wanted, strict=False))
    return wrong + [f"[{at}]: {got!r:.200} instead of {must!r:.80}" for at, (got, must) in pairs if got != must][:5]


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    url, folder, name, seed = sys.argv[1:]
    client = Client(url, os.environ["FALLOW_TOKEN"], Path(folder), name, seed)
    try:
        client.run()
    except FallowError as error:
        client.note("failed", "", error=f"{type(error).__name__}: {error}")
        raise
