"""What each level of sandbox costs: the start of a slot, a task in a warm slot, and reading the slot's limits.

    python benchmarks/sandboxes.py [--starts 15] [--tasks 2000]

Levels take turns, so that whatever else the computer does hits all of them; medians and quartiles.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fallow.model.containment import Containment, Limits
from fallow.model.ids import Digest, JobId
from fallow.model.job import Counting, JobSpec
from fallow.model.levels import LEVELS
from fallow.node.limits import LimitKeeper
from fallow.node.node_job import NodeJob
from fallow.node.sandbox import open_sandbox
from fallow.node.settings import NodeSettings
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_process import SlotProcess

LIMITS = Limits(memory_bytes=1 << 30, cpus=2.0, processes=100)


class OneSlot:
    """A slot of one level, and what it says."""

    def __init__(self, level, folder, guard=None):
        self.kind = SlotKind(sandbox=level, containment=Containment(limits=LIMITS if guard else Limits()))
        self.process = SlotProcess(self, 1, self.kind, folder)
        self.process.guard = guard
        self.said = asyncio.Queue()

    def slot_ready(self, process):
        self.said.put_nowait(None)

    def slot_done(self, process, key, numbers, body):
        self.said.put_nowait(None)

    def slot_died(self, process, exit_code, signal_name):
        self.said.put_nowait(RuntimeError(f"the slot died: {exit_code} {signal_name} {process.tail(-1)}"))

    def slot_printed(self, process, entries): ...
    def slot_gave(self, process, number, at): ...
    def slot_saved(self, process, index, path): ...
    def slot_progressed(self, process): ...
    def slot_faulty(self, process): ...

    async def hear(self):
        if (problem := await self.said.get()) is not None:
            raise problem


async def measure(level, sandbox, settings, folder, tasks, guard):
    """Return the milliseconds of a start, of its first task, and the microseconds of a task in the warm slot."""
    function = settings.folder / "function"
    function.write_text("builtins:abs")
    spec = JobSpec(
        id=JobId(level), stages=("map",), function=Digest("f"), function_name="abs", inputs=Counting(0, 1), codec="json"
    )
    begun = time.perf_counter()
    slot = OneSlot(level, folder, guard)
    job = NodeJob(1, spec, slot.kind)
    job.prepare(function, (), {})
    slot.process.start(sys.executable, sandbox, settings)
    try:
        await slot.hear()
        ready = time.perf_counter()
        slot.process.write(job.load_message(slot.process) + job.run_message(0, 1, -1, 1))
        await slot.hear()
        first = time.perf_counter()
        for number in range(tasks):
            slot.process.write(job.run_message(number + 1, number + 2, -1, number + 2))
            await slot.hear()
        return (ready - begun) * 1e3, (first - begun) * 1e3, (time.perf_counter() - first) / tasks * 1e6
    finally:
        slot.process.close()


async def main(starts, tasks):
    with tempfile.TemporaryDirectory() as name:
        settings = NodeSettings(folder=Path(name), name="benchmark", memory_bytes=1 << 30)
        keeper = LimitKeeper(settings.folder, print)
        keeper.open(may_move=False)
        found = {}
        opened = {level: open_sandbox(level, settings.folder) for level in LEVELS}
        levels = [level for level in LEVELS if await opened[level].obstacle() is None]
        if "bubblewrap" in levels:
            levels.insert(levels.index("bubblewrap") + 1, "bubblewrap with limits")
        for run in range(starts):
            for level in levels:
                folder = settings.folder / "slots" / f"{run}-{level[-6:]}-{level[:3]}"
                guard = keeper.guard(LIMITS, folder, needs_peak=True) if "limits" in level else None
                plain = level.partition(" ")[0]
                one = await measure(plain, opened[plain], settings, folder, tasks, guard)
                found.setdefault(level, []).append(one)
                if guard is not None:
                    keeper.release(guard)
        for sandbox in opened.values():
            sandbox.close()
        keeper.close()
    out = {}
    for level, runs in found.items():
        columns = list(zip(*runs, strict=True))
        out[level] = {
            name: {
                "median": round(statistics.median(column), 1),
                "quartiles": [round(q, 1) for q in statistics.quantiles(column)[::2]],
            }
            for name, column in zip(("start_ms", "first_task_ms", "warm_task_us"), columns, strict=True)
        }
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--tasks", type=int, default=2000)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.starts, arguments.tasks))
