"""Pages are sent in their order, in whatever order their blobs are kept."""

import asyncio
from types import SimpleNamespace

import pytest

from fallow.client import page_sender
from fallow.client.inputs import Page
from fallow.client.page_sender import PageSender
from fallow.model.errors import TooLarge
from fallow.model.ids import Digest
from fallow.model.page import INLINE_BYTES

LARGE = bytes(INLINE_BYTES + 1)


class Session:
    """Records what is sent; blobs are kept when the test says so."""

    def __init__(self, loop):
        self.blobs = self
        self.incoming = None
        self.offered = []
        self.sent = []
        self.cancelled = []
        self._loop = loop

    def keep_page(self, digest, source):
        self.offered.append(self._loop.create_future())
        return self.offered[-1]

    def add_input(self, feed, page):
        self.sent.append(page.start)

    def cancel(self, job):
        self.cancelled.append(job)


class State:
    def __init__(self):
        self.errors = []

    def on_error(self, error):
        self.errors.append(error)


class Scene:
    def __init__(self):
        loop = asyncio.get_running_loop()
        self.session, self.state = Session(loop), State()
        engine = SimpleNamespace(post=lambda callback, *args: callback(*args))
        core = SimpleNamespace(engine=engine, session=self.session, digests=lambda names: tuple(map(Digest, names)))
        self.sender = PageSender(core, SimpleNamespace(spec=SimpleNamespace(id="job")), self.state)

    async def send(self, *contents):
        for start, content in enumerate(contents):
            self.sender.send(Page(start, start + 1, [content], ()))
        await settle()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_pages_wait_for_those_before_them():
    async def scene():
        it = Scene()
        await it.send(b"0", LARGE, b"2", LARGE + b"3", b"4")
        assert it.session.sent == [0]
        it.session.offered[1].set_result(None)
        await settle()
        assert it.session.sent == [0]
        it.session.offered[0].set_result(None)
        await settle()
        assert it.session.sent == [0, 1, 2, 3, 4]
        assert await it.sender._finish()

    asyncio.run(scene())


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_nothing_is_sent_behind_a_page_that_the_hub_refuses(first_to_end):
    async def scene():
        it = Scene()
        await it.send(LARGE, LARGE + b"1", b"2")
        for at in (first_to_end, 1 - first_to_end):
            if at == 0:
                it.session.offered[at].set_exception(TooLarge("no"))
            else:
                it.session.offered[at].set_result(None)
            await settle()
        assert it.session.sent == []
        assert it.session.cancelled == ["job"]
        assert [type(error) for error in it.state.errors] == [TooLarge]
        assert not await it.sender._finish()

    asyncio.run(scene())


def test_a_blob_that_waited_for_long_is_offered_again(monkeypatch):
    monkeypatch.setattr(page_sender, "SWEEP_S", 0.0)

    async def scene():
        it = Scene()
        await it.send(LARGE, LARGE + b"1")
        it.session.offered[1].set_result(None)
        await settle()
        it.session.offered[0].set_result(None)
        await settle()
        assert it.session.sent == [0]
        assert len(it.session.offered) == 3
        it.session.offered[2].set_result(None)
        await settle()
        assert it.session.sent == [0, 1]

    asyncio.run(scene())
