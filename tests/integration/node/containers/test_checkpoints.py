"""Checkpoints leave containers and enter them, and programs ended for a limit there tell their last words."""

import json
import sys
import time

import pytest

from fallow.link.frames import Cancel, Checkpoint, Grant, TaskBroke
from fallow.model.containment import Containment, parse_limits
from fallow.model.lease import Lease, TaskCheckpoint
from fallow.model.requirements import Requirements

pytestmark = [pytest.mark.slow, pytest.mark.service("dockerd"), pytest.mark.usefixtures("docker")]

NEEDS = Requirements(sandbox="container")


async def test_a_task_goes_on_in_another_container(hub):
    def run(_):
        import fallow

        saved = fallow.checkpoint() / "state"
        begun = saved.read_text() if saved.exists() else None
        saved.write_text("in the container")
        fallow.save_checkpoint()
        while begun is None:
            time.sleep(0.01)
        return begun

    spec = hub.job(["map"], [run], [0], requirements=NEEDS)
    async with hub.node():
        hub.grant(spec, 0, 1)
        digest = (await hub.until(lambda: hub.all(Checkpoint)))[0].digest
        hub.send(Cancel(spec.id))
        again = hub.job(["map"], [run], [0], requirements=NEEDS)
        lease = Lease(next(hub._leases), again.id, 0, 1)
        hub.send(Grant(lease, again, tuple(hub.pages[again.id]), (TaskCheckpoint(0, digest),)))
        await hub.finish(again, 1)
    assert hub.values(again) == {0: "in the container"}


async def test_a_program_over_its_memory_tells_its_last_words(hub):
    code = "print('about to hold', flush=True); held = [bytearray(b'x' * 5_000_000) for _ in range(600)]"
    program = {"command": [sys.executable, "-c", code]}
    limited = Containment(limits=parse_limits({"memory": "200MB"}))
    async with hub.node():
        spec = hub.job(["run"], json.dumps(program), items=[{}], codec="json", requirements=NEEDS, containment=limited)
        hub.grant(spec, 0, 1)
        (broke,) = await hub.until(lambda: hub.all(TaskBroke))
        assert broke.failure.kind == "limit"
        assert broke.failure.message.endswith(": about to hold")
