"""The event board is bounded, numbered and resumable."""

import asyncio

from fallow.hub.core.events import KEPT_EVENTS, EventBoard
from fallow.model.events import JobDeleted
from fallow.model.ids import JobId


def event(i: int) -> JobDeleted:
    return JobDeleted(JobId(f"{i:032x}"))


def test_readers_resume_after_a_number():
    board = EventBoard()
    for i in range(5):
        board.post(event(i), at=float(i))
    assert [stamped.number for stamped in board.after(2)] == [3, 4, 5]
    assert board.after(5) == []


def test_old_events_go():
    board = EventBoard()
    for i in range(KEPT_EVENTS + 10):
        board.post(event(i), at=0.0)
    assert board.after(0)[0].number == 11


def test_subscribers_see_what_comes():
    async def main() -> list[int]:
        board = EventBoard()
        board.post(event(0), at=0.0)
        seen: list[int] = []

        async def watch() -> None:
            async for stamped in board.subscribe(after=0):
                seen.append(stamped.number)
                if len(seen) == 3:
                    return

        task = asyncio.create_task(watch())
        while not seen:
            await asyncio.sleep(0)
        board.post(event(1), at=0.0)
        board.post(event(2), at=0.0)
        await task
        return seen

    assert asyncio.run(main()) == [1, 2, 3]
