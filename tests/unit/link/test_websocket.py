"""What waits in a link goes out in the right order: control frames together and first, then bulk, one at a time."""

import asyncio

import pytest

from fallow.link import queueing
from fallow.link.codec import MAX_MESSAGE_BYTES, FrameDecoder
from fallow.link.frames import BlobChunk, Forget, ToNode
from fallow.link.queueing import BULK_HIGH_WATER, QueueingLink
from fallow.model.ids import Digest, JobId


class Link(QueueingLink):
    """Queues alone, with no connection behind them."""

    def __init__(self):
        super().__init__("test", FrameDecoder(ToNode))

    def _wake(self):
        pass

    def messages(self):
        """Return the frames of each message that would go out now."""
        decoder, found = FrameDecoder(ToNode), []
        while (message := self._next_message()) is not None:
            assert len(message) <= MAX_MESSAGE_BYTES
            found.append(decoder.decode(message))
        return found


class WritingLink(QueueingLink):
    """Writes at once what is queued: a list of frames for each message."""

    def __init__(self):
        super().__init__("test", FrameDecoder(ToNode))
        self.written = []

    def _flush(self):
        while (message := self._next_message()) is not None:
            self.written.append(FrameDecoder(ToNode).decode(message))

    async def wrote(self, count):
        async with asyncio.timeout(60):
            while len(self.written) < count:
                await asyncio.sleep(0.001)
        return self.written


@pytest.fixture
def link():
    return Link()


def chunk(number, size=1000):
    return BlobChunk(Digest("d" * 64), number, 10**9, bytes(size))


def control(number, padding=""):
    return Forget(JobId(f"{number:032x}{padding}"))


def test_control_frames_overtake_bulk(link):
    link.send(chunk(0), bulk=True)
    link.send(chunk(1), bulk=True)
    link.send(control(0))
    link.send(control(1))
    assert link.messages() == [[control(0), control(1)], [chunk(0)], [chunk(1)]]


def test_a_control_frame_waits_for_one_bulk_frame_at_most(link):
    decode = FrameDecoder(ToNode).decode
    for number in range(3):
        link.send(chunk(number), bulk=True)
    assert decode(link._next_message()) == [chunk(0)]
    link.send(control(0))
    assert decode(link._next_message()) == [control(0)]
    assert link.messages() == [[chunk(1)], [chunk(2)]]


def test_control_frames_over_the_limit_of_a_message_go_in_several_and_still_first(link):
    link.send(chunk(0), bulk=True)
    sent = [control(number, "x" * 300_000) for number in range(7)]
    for frame in sent:
        link.send(frame)
    *controls, last = link.messages()
    assert [frame for message in controls for frame in message] == sent
    assert [len(message) for message in controls] == [3, 3, 1]
    assert last == [chunk(0)]


def test_a_sender_of_bulk_is_held_back_while_too_much_waits(link):
    async def main():
        for number in range(BULK_HIGH_WATER):
            assert link._room.is_set()
            link.send(chunk(number), bulk=True)
        for number in range(100):
            link.send(control(number))
        waiting = asyncio.create_task(link.drained())
        await asyncio.sleep(0)
        link._next_message()
        await asyncio.sleep(0)
        assert not waiting.done(), "control frames make no room"
        link._next_message()
        await asyncio.wait_for(waiting, 60)

    asyncio.run(main())


def test_what_is_sent_later_goes_with_the_next_frame_and_before_it(monkeypatch):
    monkeypatch.setattr(queueing, "LATER_S", 3600.0)

    async def main():
        link = WritingLink()
        link.send_later("a", control(0))
        link.send_later("b", control(1))
        link.send_later("a", control(2))
        await asyncio.sleep(0)
        assert link.written == []
        link.send(control(3))
        link.send_later("a", control(4))
        assert await link.wrote(1) == [[control(2), control(1), control(3), control(4)]]
        link.send_later("a", control(5))
        link.close()
        assert (await link.wrote(2))[1:] == [[control(5)]]

    asyncio.run(main())


def test_what_is_sent_later_goes_by_itself_if_nothing_else_does():
    async def main():
        link = WritingLink()
        link.send_later("a", control(0))
        assert await link.wrote(1) == [[control(0)]]
        link.send_later("a", control(1))
        assert await link.wrote(2) == [[control(0)], [control(1)]]

    asyncio.run(main())
