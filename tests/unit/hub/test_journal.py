"""The journal groups what arrives while a commit runs, and calls back only after it."""

import asyncio
import threading

import pytest

from fallow.hub.core import journal as journal_module
from fallow.hub.core.journal import Journal
from fallow.model.changes import EndLease
from fallow.model.errors import HubFull, Unavailable
from fallow.model.ids import LeaseId


class RecordingState:
    """Holds commits until told to go on, as a slow disk does."""

    def __init__(self, *, is_durable: bool) -> None:
        self.is_durable = is_durable
        self.groups: list[list[object]] = []
        self.gate = threading.Event()
        self.fails = False

    def commit(self, changes):
        if self.is_durable:
            assert self.gate.wait(60)
        if self.fails:
            raise OSError(28, "No space left on device")
        self.groups.append(list(changes))


def change(i: int) -> EndLease:
    return EndLease(LeaseId(i))


def test_changes_that_arrive_during_a_commit_go_as_one_group():
    async def main() -> None:
        state = RecordingState(is_durable=True)
        journal = Journal(state, pytest.fail)
        journal.start()
        journal.append(change(0))
        journal.after_commit(lambda: None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first commit is in the writer's hands
        for i in range(1, 100):
            journal.append(change(i))
        done = []
        journal.after_commit(lambda: done.append(len(state.groups)))
        assert done == []
        state.gate.set()
        await journal.barrier()
        assert [len(group) for group in state.groups] == [1, 99]
        assert done == [2]
        await journal.stop()

    asyncio.run(main())


def test_what_nobody_waits_for_is_committed_too():
    async def main() -> None:
        state = RecordingState(is_durable=True)
        state.gate.set()
        journal = Journal(state, pytest.fail)
        journal.start()
        done = asyncio.Event()
        journal.append(change(0))
        journal.after_commit(done.set, is_urgent=False)
        journal.append(change(1))
        async with asyncio.timeout(60):
            await done.wait()
        assert [len(group) for group in state.groups] == [2]
        await journal.stop()

    asyncio.run(main())


@pytest.mark.parametrize("many", [False, True])
def test_it_waits_no_longer_once_somebody_waits_or_there_are_many(monkeypatch, many):
    monkeypatch.setattr(journal_module, "LINGER_S", 3600.0)

    async def main() -> None:
        state = RecordingState(is_durable=True)
        state.gate.set()
        journal = Journal(state, pytest.fail)
        journal.start()
        done = asyncio.Event()
        journal.after_commit(done.set, is_urgent=False)
        count = journal_module.LINGER_CHANGES if many else 5
        for i in range(count):
            journal.append(change(i))
        if not many:
            journal.after_commit(lambda: None)
        async with asyncio.timeout(60):
            await done.wait()
        assert [len(group) for group in state.groups] == [count]
        journal.append(change(0))
        await journal.stop()  # nor when it ends
        assert len(state.groups) == 2

    asyncio.run(main())


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_failed_commit_is_reported_and_nothing_is_acknowledged(is_durable):
    async def main() -> None:
        state = RecordingState(is_durable=is_durable)
        state.fails = True
        state.gate.set()
        failures: list[BaseException] = []
        failed = asyncio.Event()
        journal = Journal(state, lambda error: (failures.append(error), failed.set()))
        journal.start()
        journal.append(change(0))
        told = []
        journal.after_commit(lambda: told.append(True))
        async with asyncio.timeout(60):
            with pytest.raises(HubFull):
                await journal.barrier()
            await failed.wait()
        assert told == []
        assert isinstance(failures[0], OSError)
        with pytest.raises(Unavailable):
            await journal.barrier()
        assert state.groups == []
        await journal.stop()

    asyncio.run(main())


def test_without_durability_commits_happen_at_the_end_of_the_turn():
    async def main() -> None:
        state = RecordingState(is_durable=False)
        journal = Journal(state, pytest.fail)
        journal.start()
        journal.append(change(0))
        journal.append(change(1))
        assert state.groups == []
        await journal.barrier()
        assert [len(group) for group in state.groups] == [2]
        await journal.stop()

    asyncio.run(main())
