"""How long a killed hub takes to answer again: 100 jobs of 1,000,000 tasks, each half done.

python benchmarks/restart.py [--jobs 100] [--batch 1000]

The state is written as a hub writes it (a row per batch of results, a snapshot every 64 rows, some leases out), by a process that
is killed before it can fold its write-ahead log. The time is from the start of `fallow hub` to its answer to `GET /api/v1/jobs`, which
is checked. Once with the first half of each job done, once with every second batch.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from fallow.model.changes import AddJob, AddLease, AddResults, SaveSettled, SealJob
from fallow.model.job import Counting, JobSpec
from fallow.model.lease import Lease
from fallow.model.page import ResultPage, StoredPage
from fallow.model.ranges import RangeSet
from fallow.scheduler.settings import SchedulerSettings
from fallow.state.sql import SqlState

TASKS = 1_000_000
LEASES = 4
SECRET = "flw_admin-for-the-benchmark-0123"


def fill(folder: Path, jobs: int, batch: int, step: int) -> None:
    """Write the state. step: every step-th batch is done, from the first on, until half of the tasks are."""
    state = SqlState(folder)
    state.recover()
    for number in range(jobs):
        spec = JobSpec(
            id=f"{number + 1:032x}", stages=("map",), function="f" * 64, function_name="f", inputs=Counting(0, 1),
            name=f"job {number}", owner="a", created_at=time.time(),
        )  # fmt: skip
        changes = [AddJob(spec), SealJob(spec.id, TASKS)]
        settled = RangeSet()
        starts = range(0, TASKS, batch * step)[: TASKS // batch // 2]
        for row, start in enumerate(starts, 1):
            stop = start + batch
            settled.add(start, stop)
            page = ResultPage(start, stop, b"x" * batch, elapsed_s=0.1)
            changes.append(AddResults(spec.id, (StoredPage(page, (start, stop)),)))
            if row % SchedulerSettings().snapshot_rows == 0:
                changes.append(SaveSettled(spec.id, tuple(settled.flat()), (), ()))
        for lease in range(LEASES):
            at = TASKS - (lease + 1) * batch
            changes.append(
                AddLease(Lease((7 << 32) + number * LEASES + lease, spec.id, at, at + batch), f"{lease:032x}")
            )
        state.commit(changes)
    os.kill(os.getpid(), signal.SIGKILL)


def seconds_to_answer(folder: Path, jobs: int) -> tuple[float, float]:
    """Start a hub on the state; return the seconds until it has listed all jobs, right, and those of CPU in them."""
    environment = {**os.environ, "FALLOW_ADMIN_TOKEN": SECRET, "FALLOW_JOIN_TOKEN": SECRET[::-1]}
    command = [sys.executable, "-m", "fallow", "hub", "--state", str(folder), "--port", "0", "--reserve", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as hub:
        try:
            assert hub.stdout is not None
            url = next(line for line in hub.stdout if line.startswith("A browser")).split()[-1]
            headers = {"Authorization": f"Bearer {SECRET}"}
            found = httpx.get(f"{url}/api/v1/jobs?limit=1000", headers=headers, trust_env=False).json()["jobs"]
            took = time.perf_counter() - began
            used = psutil.Process(hub.pid).cpu_times()
            assert [(job["size"], job["settled"]) for job in found] == [(TASKS, TASKS // 2)] * jobs
        finally:
            hub.kill()
    return took, used.user + used.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1000, help="tasks of a row of results")
    parser.add_argument("--fill", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fill:
        fill(Path(given.fill[0]), given.jobs, given.batch, int(given.fill[1]))
    for step, words in ((1, "the first half done"), (2, "every second batch done")):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--jobs", str(given.jobs), "--batch", str(given.batch), "--fill", folder, str(step)]
            done = subprocess.run([sys.executable, __file__, *options], check=False)
            assert done.returncode == -signal.SIGKILL
            size = sum(path.stat().st_size for path in Path(folder).rglob("*"))
            times = sorted(seconds_to_answer(Path(folder), given.jobs) for _ in range(5))
            (median, cpu), (least, _), (most, _) = times[2], times[0], times[-1]
            print(
                f"{given.jobs} jobs of {TASKS:,}, {words}, {size / 1e6:.0f} MB: answers after {median:.2f} s "
                f"({least:.2f} to {most:.2f}), of which {cpu:.2f} s of CPU"
            )


if __name__ == "__main__":
    main()
