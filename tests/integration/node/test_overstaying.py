"""Batches that run much longer than expected: what waits in them is taken back."""

import operator
import time

import pytest

from fallow.node import enforcer

pytestmark = pytest.mark.slow
OVER_ALL_CHANNELS = True


def slow_at_700(folder):
    """Return a function that returns its argument, for 700 only once a file is there; the file that says it is at 700, and that file."""
    gate, started = folder / "gate", folder / "started"

    def work(x):
        if x == 700:
            started.touch()
            while not gate.exists():
                time.sleep(0.01)
        return x

    return work, started, gate


@pytest.mark.parametrize("kind", ["pages", "counting", "filter", "calls", "reduce"])
async def test_tasks_that_wait_behind_a_slow_one_go_to_another_slot(hub, tmp_path, kind):
    work, started, gate = slow_at_700(tmp_path)
    match kind:
        case "pages":
            spec = hub.job(["map"], [work], range(2000))
        case "counting":
            spec = hub.job(["map"], [work])
        case "filter":
            spec = hub.job(["map", "filter"], [work, lambda x: x % 3], range(2000), page_items=300)
        case "calls":
            spec = hub.job(["call"], [work], calls=[((x,), {}) for x in range(2000)])
        case "reduce":
            spec = hub.job(["map", "reduce"], [work, operator.add], range(2000))
    async with hub.node(slots=2, cores=2):
        await hub.slots_ready()
        hub.grant(spec, 0, 2000)
        # All others are finished, or wait for the slow one as part of its batch's results, before that ends.
        await hub.until(lambda: started.exists() and not unbegun(hub), lambda: unbegun(hub))
        gate.touch()
        await hub.finish(spec, 2000)
    assert not hub.failures(spec)
    pages_of_results = sorted((page.start, page.stop) for page in hub.result_pages(spec))
    assert [start for start, _ in pages_of_results] == [0, *(stop for _, stop in pages_of_results[:-1])], "once each"
    if kind == "reduce":
        assert sum(hub.values(spec).values()) == sum(range(2000))
    else:
        expected = [x for x in range(2000) if kind != "filter" or x % 3]
        assert hub.values(spec) == {x: x for x in expected}


def unbegun(hub):
    """Return what is unfinished above the slow task."""
    held = hub.agent._dispatcher.held()
    ranges = [(a, b) for each in held for a, b in zip(each.unfinished[::2], each.unfinished[1::2], strict=True)]
    return [(max(a, 701), b) for a, b in ranges if b > 701]


@pytest.mark.parametrize("kind", ["pages", "filter", "failures", "calls"])
async def test_results_do_not_wait_for_a_slow_task_behind_them(hub, tmp_path, kind):
    gate, started = tmp_path / "gate", tmp_path / "started"

    def work(x):
        if x == 700:
            started.touch()
            while not gate.exists():
                time.sleep(0.01)
        if kind == "failures" and x % 7 == 0:
            raise ValueError(x)
        return x

    match kind:
        case "filter":
            spec = hub.job(["map", "filter"], [work, lambda x: x % 3], range(2000), page_items=300)
        case "calls":
            spec = hub.job(["call"], [work], calls=[((x,), {}) for x in range(2000)])
        case _:
            spec = hub.job(["map"], [work], range(2000))
    async with hub.node():
        await hub.slots_ready()
        hub.grant(spec, 0, 2000)
        await hub.until(lambda: started.exists() and hub.settled(spec).within(0, 700) == [(0, 700)])
        assert not hub.settled(spec).within(700, 701)
        gate.touch()
        await hub.finish(spec, 2000)
    failed = {x for x in range(2000) if kind == "failures" and x % 7 == 0}
    assert set(hub.failures(spec)) == failed
    expected = [x for x in range(2000) if x not in failed and (kind != "filter" or x % 3)]
    assert hub.values(spec) == {x: x for x in expected}


async def test_an_answer_to_an_earlier_request_gives_back_nothing_that_was_sent_since(hub, tmp_path, monkeypatch):
    work, started, gate = slow_at_700(tmp_path)
    monkeypatch.setattr(enforcer, "OVERSTAY_S", 3600.0)
    spec = hub.job(["map"], [work], range(2000))
    async with hub.node(slots=1, cores=1):
        await hub.slots_ready()
        hub.grant(spec, 0, 2000)
        (slot,) = hub.agent._dispatcher.pool
        await hub.until(lambda: started.exists() and len(slot.batches) == 2, lambda: slot.batches)
        head, behind = slot.batches
        slot.cut()
        hub.agent._dispatcher._settler.slot_gave(slot, head.number, head.stop, head.number)
        assert list(slot.batches) == [head, behind]
        await hub.until(lambda: behind not in slot.batches, lambda: slot.batches)
        gate.touch()
        await hub.finish(spec, 2000)
    assert not hub.failures(spec)
    assert hub.values(spec) == {x: x for x in range(2000)}
