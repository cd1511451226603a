"""What a hub refuses of a job that is on its way: sent again where it only came too early."""

import asyncio

import pytest

from fallow.client import session as sessions
from fallow.client.session import ClientSession, JobFeed
from fallow.link.frames import PROTOCOL_VERSION, Accepted, ClientHello, Refused, Seal, Welcome
from fallow.link.memory import memory_pair
from fallow.model.errors import BadRequest
from fallow.model.job import JobSpec, Pages
from fallow.model.page import InputPage

SPEC = JobSpec(id="a" * 32, stages=("map",), function="f" * 64, function_name="f", inputs=Pages())


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_seal_that_overtook_its_page_is_sent_again_also_if_the_page_was_acknowledged_first(monkeypatch, is_complete):
    monkeypatch.setattr(sessions, "FULL_RETRY_S", 0.001)

    async def main():
        ours, theirs = memory_pair(asyncio.get_running_loop())
        seals, errors, again = [], [], asyncio.Event()

        def hub(frame):
            if isinstance(frame, ClientHello):
                theirs.send(Welcome(PROTOCOL_VERSION, 1, "0"))
            elif isinstance(frame, Seal):
                seals.append(frame)
                if len(seals) == 1:
                    theirs.send(Accepted(SPEC.id, 2 if is_complete else 1))
                    theirs.send(Refused(BadRequest.code, "it has 1 input", SPEC.id, None, frame.size))
                else:
                    again.set()

        async def connect():
            return ours

        theirs.start(hub, lambda reason: None)
        session = ClientSession("session", connect, "3.11")
        await session.open()
        feed = JobFeed(
            SPEC, "error", lambda progress: None, lambda e: (errors.append(e), again.set()), lambda stop: None
        )
        session.create_job(feed)
        session.add_input(feed, InputPage(SPEC.id, 0, 2 if is_complete else 1, b""))
        session.seal(feed, 2)
        async with asyncio.timeout(60):
            await again.wait()
        assert len(seals) == (2 if is_complete else 1)
        assert len(errors) == (0 if is_complete else 1)  # a page that never was can't come: that is an error
        await session.close()

    asyncio.run(main())
