import asyncio

from fallow.link.frames import Done, Printed, TaskBroke
from fallow.model.changes import LogEntry
from fallow.model.failure import Failure
from fallow.model.page import ResultPage
from fallow.node.outbox import GROUP_BYTES, Outbox
from fallow.node.spool import Spool

JOB = "a" * 32


class RecordingLink:
    peer = "test"

    def __init__(self):
        self.sent = []

    def send(self, frame, *, bulk=False):
        self.sent.append(frame)

    def of(self, cls):
        return [frame for frame in self.sent if isinstance(frame, cls)]


def page(start, size=1, **fields):
    return ResultPage(start, start + 1, bytes(size), **fields)


def scene(script):
    """Run `script(outbox, link, offered)` on a loop, connected."""

    async def run():
        offered = []
        outbox = Outbox(Spool(None), offered.append)
        outbox.open()
        link = RecordingLink()
        outbox.connected(link)
        result = script(outbox, link, offered)
        if result is not None:
            await result
        outbox.close()

    asyncio.run(run())


def test_the_first_result_goes_at_once_and_the_next_wait_for_company(monkeypatch):
    monkeypatch.setattr("fallow.node.outbox.GROUP_S", 0.5)  # on a busy machine 10 ms can pass between two calls

    async def script(outbox, link, offered):
        outbox.add(1, JOB, page(0), at_once=False)
        assert len(link.of(Done)) == 1
        outbox.add(1, JOB, page(1), at_once=False)
        outbox.add(2, JOB, page(9), at_once=False)
        assert len(link.of(Done)) == 1
        while len(link.of(Done)) < 3:
            await asyncio.sleep(0.001)
        assert [(done.number, done.lease) for done in link.of(Done)] == [(1, 1), (2, 1), (3, 2)]

    scene(script)


def test_ends_of_leases_and_full_groups_do_not_wait():
    def script(outbox, link, offered):
        outbox.add(1, JOB, page(0), at_once=False)
        outbox.add(1, JOB, page(1), at_once=True)
        assert len(link.of(Done)) == 2
        outbox.add(1, JOB, page(2), at_once=False)
        outbox.add(1, JOB, page(3, GROUP_BYTES), at_once=False)
        assert [[p.start for p in done.pages] for done in link.of(Done)[2:]] == [[2], [3]], "no frame over its limit"

    scene(script)


def test_what_is_not_acknowledged_is_sent_again_on_the_next_link():
    def script(outbox, link, offered):
        for i in range(3):
            outbox.add(1, JOB, page(i), at_once=True)
        outbox.acknowledged(2)
        outbox.disconnected()
        outbox.add(1, JOB, page(3), at_once=True)
        outbox.broke(TaskBroke(1, JOB, Failure(index=4, kind="crashed")))
        again = RecordingLink()
        outbox.connected(again)
        assert [done.pages[0].start for done in again.of(Done)] == [2, 3]
        assert len(again.of(TaskBroke)) == 1
        outbox.acknowledged(again.of(Done)[-1].number)
        assert outbox.is_empty

    scene(script)


def test_a_result_with_a_blob_waits_until_the_hub_keeps_it():
    def script(outbox, link, offered):
        outbox.add(1, JOB, page(0, blob="d" * 64), at_once=True)
        outbox.add(1, JOB, page(1), at_once=True)
        assert [done.pages[0].start for done in link.of(Done)] == [1], "others overtake it"
        assert offered == ["d" * 64]
        assert list(outbox.undelivered()[1, JOB].ranges()) == [(0, 1)]
        outbox.blob_kept("d" * 64)
        assert [done.pages[0].start for done in link.of(Done)] == [1, 0]
        assert not outbox.undelivered()
        assert outbox.acknowledged(2) == ["d" * 64]
        assert outbox.is_empty

    scene(script)


def test_a_lost_blob_takes_its_result_along():
    def script(outbox, link, offered):
        outbox.add(1, JOB, page(0, blob="d" * 64), at_once=True)
        assert outbox.needs("d" * 64)
        outbox.blob_lost("d" * 64)
        assert outbox.is_empty
        assert not outbox.undelivered()

    scene(script)


def test_output_goes_before_the_result_it_belongs_to():
    def script(outbox, link, offered):
        outbox.add_printed(JOB, [LogEntry(0, "hello")])
        outbox.add(1, JOB, page(0), at_once=True)
        assert [type(frame) for frame in link.sent] == [Printed, Done]

    scene(script)


def test_output_without_a_link_is_bounded():
    def script(outbox, link, offered):
        outbox.disconnected()
        for _ in range(100):
            outbox.add_printed(JOB, [LogEntry(0, "x" * 10_000)])
        again = RecordingLink()
        outbox.connected(again)
        outbox.flush_printed()
        assert 0 < sum(len(e.text) for p in again.of(Printed) for e in p.entries) < 500_000

    scene(script)
