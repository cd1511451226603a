"""A state that refuses commits again and again is opened again at a pace that leaves the computer alone."""

import asyncio
import errno
import itertools

import pytest

from fallow.hub.core import hub as hubs_hub
from fallow.model.changes import RevokeToken

FIRST_S, MOST_S = 0.02, 0.08


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "sqlite"])
def test_the_wait_before_the_state_is_opened_again_doubles_while_commits_are_refused(hubs, kit, monkeypatch, memory):
    async def main():
        monkeypatch.setattr(hubs_hub, "REOPENING_FIRST_S", FIRST_S)
        monkeypatch.setattr(hubs_hub, "REOPENING_MOST_S", MOST_S)
        async with hubs(memory=memory) as hub:
            refused, opened, commit, recover = [], [], hub.state.commit, hub.state.recover

            def full(changes):
                if changes:
                    refused.append(hub.now())
                    raise OSError(errno.ENOSPC, "no space left on device")

            def noted():
                opened.append(hub.now())
                return recover()

            monkeypatch.setattr(hub.state, "commit", full)
            monkeypatch.setattr(hub.state, "recover", noted)
            for number in itertools.count(1):
                hub.journal.append(RevokeToken("nobody"))
                await kit.until(lambda number=number: len(opened) == number and not hub._is_recovering)
                if number == 5:
                    break
            waits = [there - here for here, there in zip(refused, opened, strict=True)]
            for wait_s, least_s in zip(waits, (0, FIRST_S, 2 * FIRST_S, MOST_S, MOST_S), strict=True):
                assert wait_s >= least_s - 0.001, waits
            monkeypatch.setattr(hub.state, "commit", commit)
            assert len(await hub.front.jobs(kit.ADMIN)) == 0

    asyncio.run(main())
