"""What goes on working in every sandbox: functions, programs' children, large inputs and results, crashes that are told, warm slots."""

import os

import numpy as np
import pytest

from fallow.model.requirements import Requirements

pytestmark = pytest.mark.slow


@pytest.fixture(params=["process", "confined", pytest.param("bubblewrap", marks=pytest.mark.service("bubblewrap"))])
def level(request):
    return request.param


async def test_functions_run_with_large_inputs_results_and_objects(contained, hostile):
    big = np.arange(400_000, dtype=np.float64)
    held = contained.hub.put_object(big)
    async with contained.node():
        spec = contained.hub.job(
            ["map"],
            [lambda x: np.concatenate([x, held[:2]])],
            [big],
            requirements=Requirements(sandbox=contained.level),
        )
        await contained.hub.run(spec, 1)
        assert contained.hub.failures(spec) == {}
        assert np.array_equal(contained.hub.values(spec)[0], np.concatenate([big, big[:2]]))
        assert contained.hub.result_pages(spec)[0].blob is not None
        assert (
            await contained.run(lambda: __import__("subprocess").check_output(["sh", "-c", "echo hello"])) == b"hello\n"
        )


async def test_slots_stay_warm_and_are_never_shared_between_users(contained, hostile):
    async with contained.node():
        runs = [await contained.run(hostile.where, owner="anna") for _ in range(3)]
        assert len({tuple(run) for run in runs}) == 1
        (slot,) = contained.hub.slots()
        pid = slot.process.pid
        await contained.run(hostile.where, owner="bert")
        (slot,) = contained.hub.slots()
        assert (slot.process.pid == pid) == (contained.level == "process")


async def test_how_a_slot_died_is_told(contained):
    async with contained.node():
        for end, code, signal_name in (
            (lambda: os._exit(7), 7, None),
            (lambda: os.kill(os.getpid(), 11), None, "SIGSEGV"),
            (lambda: os.kill(os.getpid(), 9), None, "SIGKILL"),
            (lambda: os.abort(), None, "SIGABRT"),
        ):
            failure = await contained.run(end)
            assert (failure.kind, failure.exit_code, failure.signal) == ("crashed", code, signal_name)
            assert failure.message == (
                f"the process that ran it was ended by {signal_name}"
                if signal_name
                else "the process that ran it ended with exit code 7"
            )
            assert failure.peak_memory_bytes is None or failure.peak_memory_bytes > 5_000_000
        slow = await contained.run(lambda: __import__("time").sleep(600), timeout_s=0.5)
        assert slow.kind == "timeout"
        assert slow.message == "ran longer than its timeout of 0.5 s"


async def test_memory_processes_and_disk_are_limited(contained, hostile):
    async with contained.node():
        failure = await contained.run(hostile.use_memory, 3_000_000_000, limits={"memory": "150MB"})
        assert (failure.kind, failure.message[:42]) == ("limit", "went over its limit of 150 MB of memory: i")
        assert failure.peak_memory_bytes > 100_000_000
        failure = await contained.run(hostile.start_processes, 100, limits={"processes": 20})
        assert (failure.kind, failure.message) == ("limit", "went over its limit of 20 processes and threads")
        job = contained.job(hostile.fill_disk_of_its_slot, 60_000_000, limits={"disk": "20MB"})
        await contained.hub.run(job, 1)
        failure = contained.hub.failures(job)[0]
        assert (failure.kind, failure.message[:48]) == ("limit", "went over its limit of 20 MB of disk space in it")


async def test_processors_are_shared_out(contained, hostile):
    async with contained.node():
        used_s = await contained.run(hostile.burn, 1.0, limits={"cpus": 0.2})
        assert used_s < 0.6
