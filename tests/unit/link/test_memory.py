"""In-process links deliver in order and close both ends."""

import asyncio

from fallow.link.memory import memory_pair


def test_frames_arrive_in_order_also_those_sent_before_start():
    async def main() -> None:
        one, two = memory_pair(asyncio.get_running_loop())
        got: list[object] = []
        one.send("a")
        two.start(got.append, lambda reason: got.append(("closed", reason)))
        one.start(lambda frame: None, lambda reason: None)
        one.send("b", bulk=True)
        one.send("c")
        await one.drained()
        assert got == ["a", "b", "c"]
        one.close("bye")
        while len(got) < 4:
            await asyncio.sleep(0)
        assert got[-1] == ("closed", "bye")
        two.send("lost")  # into the void, not an error

    asyncio.run(main())


def test_frames_before_close_are_delivered():
    async def main() -> None:
        one, two = memory_pair(asyncio.get_running_loop())
        got: list[object] = []
        closed = asyncio.Event()
        one.start(lambda frame: None, lambda reason: None)
        two.start(got.append, lambda reason: closed.set())
        for i in range(10):
            one.send(i)
        one.close()
        await closed.wait()
        assert got == list(range(10))

    asyncio.run(main())
