"""Break a grid of real processes at random for a while, then check everything: `make chaos SECONDS=60 SEED=1`.

Exit code 0 if nothing was lost, wrong, or run again after it was acknowledged; 1 otherwise, with the evidence kept.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import httpx
from faults import Faults
from fleet import ADMIN, CLIENTS, Fleet
from ledger import facts

from fallow import Grid

FINISH_S = 120.0
"""How long the clients may take to end what they do, once nothing is broken any more."""


async def run(folder: Path, seed: str, seconds: float) -> list[str]:
    """Return the violations; prints the counts."""
    fleet = Fleet(folder, seed)
    faults = Faults(fleet, seed, seconds)
    try:
        await fleet.open()
        await faults.run()
        stuck = await finish(fleet, faults)
        checked, lost, wrong = (0, [], []) if stuck else await asyncio.to_thread(check, fleet)
    finally:
        await fleet.close()
    return report(fleet, faults, stuck, checked, lost, wrong)


async def finish(fleet: Fleet, faults: Faults) -> list[str]:
    """Let the clients end; return what did not come to an end."""
    (fleet.folder / "stop").touch()
    watch = asyncio.create_task(faults.supervise())
    deadline = time.monotonic() + FINISH_S
    while any(client.is_running for client in fleet.clients()) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    watch.cancel()
    if all(not client.is_running for client in fleet.clients()):
        return []
    stuck = [
        f"client {client.name} did not finish: {client.tail(1500)}" for client in fleet.clients() if client.is_running
    ]
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(headers=headers, timeout=10) as http:
        for path in ("jobs", "nodes"):
            answer = await http.get(f"{fleet.url}/api/v1/{path}")
            stuck.append(f"/{path}: {answer.text[:3000]}")
        for job in _unfinished(await http.get(f"{fleet.url}/api/v1/jobs")):
            reasons = await http.get(f"{fleet.url}/api/v1/jobs/{job['id']}/explain")
            stuck += [f"{job['name']} ({job['settled']} of {job['size']}): {reasons.text}"]
    return stuck


def _unfinished(answer: httpx.Response) -> list[dict]:
    return [job for job in answer.json()["jobs"] if job["state"] not in {"done", "cancelled"}]


def check(fleet: Fleet) -> tuple[int, list[str], list[str]]:
    with Grid(fleet.url, token=ADMIN) as grid:
        return fleet.ledger.check_results(grid)


def report(
    fleet: Fleet, faults: Faults, stuck: list[str], checked: int, lost: list[str], wrong: list[str]
) -> list[str]:
    ledger, noted = fleet.ledger, facts(fleet.folder)
    executions = ledger.executions()
    causes, unexplained = ledger.repeats(faults.hub_kills)
    excused, again = ledger.run_again()
    lost += [f"{fact['label']} was acknowledged and is not found" for fact in noted if fact["what"] == "lost"]
    lost += ledger.lost()
    ended = [fact for fact in noted if fact["what"] == "ended"]
    wrong += [f"{fact['label']} ({fact['kind']}): {fact['wrong']}" for fact in ended if fact["wrong"]]
    print("faults")
    for kind, count in sorted(faults.counts.items()):
        print(f"  {count:6} {kind}")
    refused = sum(fact["what"] == "refused" for fact in noted)
    print("work")
    print(f"  {len(ended):6} jobs read to their end by clients, {refused} times refused or out of reach at first")
    print(f"  {len(executions):6} tasks, {sum(map(len, executions.values()))} executions")
    print(f"  {sum(fact['checked'] for fact in ended) + checked:6} results compared with the truth")
    print(f"  {len(lost):6} lost")
    print(f"  {len(wrong):6} wrong")
    print(f"  {sum(causes.values()):6} executed more than once")
    for cause, count in causes.most_common():
        print(f"         {count:6} {cause}")
    print(f"  {excused:6} begun after they were durable, on a node that did not hear of it")
    print(f"  {len(again):6} run again after acknowledgement")
    findings = {"stuck": stuck, "lost": lost, "wrong": wrong, "run again": again, "ended": faults.findings}
    if unexplained:
        print("without an explanation:", *unexplained[:10], sep="\n  ")
    return [f"{what}: {each}" for what, found in findings.items() for each in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    given = parser.parse_args()
    replay = f"make chaos SECONDS={given.seconds:g} SEED={given.seed}"
    print(f"{replay}   ({', '.join(CLIENTS)} and the faults go by this seed)", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="fallow-chaos-"))
    violations = asyncio.run(run(folder, given.seed, given.seconds))
    if violations:
        print(f"{len(violations)} violations; evidence in {folder}; again with: {replay}")
        print(*(f"- {each}" for each in violations[:20]), sep="\n")
        return 1
    shutil.rmtree(folder)
    print("nothing lost, nothing wrong, nothing run again that was acknowledged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
