"""From creation to end: what is persisted and told, and in which order."""

import pytest

from fallow.model.changes import AddResults, DeleteJob, EndJob, SaveSettled, SealJob
from fallow.model.errors import JobNotFound
from fallow.model.events import JobCreated, JobDeleted, JobEnded, LeaseGranted, TasksSettled
from fallow.scheduler.effects import TellProgress, TellResults


def test_one_submit_is_one_grant_and_its_result_ends_the_job(bench):
    bench.node().job()
    assert bench.told == [JobCreated("j", None, "f")]
    assert bench("on_inputs_added", "j", 1).granted == [("a", 0, 1)]
    grant = bench.grant
    assert grant.lease.id == 7 << 32 | 1, "the epoch is the high half of a lease's id"
    assert bench.story == ["AddLease", "GrantLease", "Tell"]
    assert bench.told == [LeaseGranted(grant.lease.id, "j", "a", 0, 1)]
    assert bench.progress().state == "running"
    assert bench("on_job_sealed", "j", 1).changes(SealJob) == [SealJob("j", 1, False)]
    bench.done(grant)
    assert bench.story[:4] == ["EndLease", "AddResults", "SaveSettled", "EndJob"]
    assert bench.counts == [(0, 1)]
    assert bench.changes(SaveSettled) == [SaveSettled("j", (0, 1), (), ())]
    assert bench.changes(EndJob) == [EndJob("j", "done", 1000.0)]
    assert bench.told == [TasksSettled("j", "a", 0, 1, 0), JobEnded("j", "done", 1, 0)]
    assert bench.forgets == [("a", "j")]
    assert bench.of(TellProgress) == [TellProgress("j", True)]
    assert len(bench.of(TellResults)) == 1
    assert not bench.scheduler.has_job("j")
    with pytest.raises(JobNotFound):
        bench.progress()


def test_creating_a_known_job_changes_nothing(bench):
    bench.job().job()
    assert bench.effects == []


def test_inputs_that_are_there_already_change_nothing(bench):
    bench.node().job("j", 3, seal=False)
    assert bench("on_inputs_added", "j", 3).effects == []
    assert bench.scheduler.accepted("j") == 3


def test_an_empty_job_ends_when_it_is_sealed(bench):
    assert bench.job("j", 0).ends == [("j", "done")]


def test_inputs_beyond_the_seal_are_ignored_and_a_second_seal_too(bench):
    bench.job("j", 5)
    assert bench("on_job_sealed", "j", 9).effects == []
    assert bench("on_inputs_added", "j", 9).effects == []
    assert bench.progress().size == 5


def test_a_seal_below_what_was_accepted_is_raised_to_it(bench):
    bench.job("j", 5, seal=False)("on_job_sealed", "j", 3)
    assert bench.progress().size == 5


def test_a_job_may_be_sealed_before_its_inputs_came(bench):
    bench.node().job()("on_job_sealed", "j", 2)
    bench("on_inputs_added", "j", 2)
    assert bench.done(bench.grant).ends == [("j", "done")]


def test_a_range_as_input_is_available_once_sealed(bench):
    bench.node().job(counting=True)
    assert bench.progress().accepted == 0
    assert bench("on_job_sealed", "j", 2).granted == [("a", 0, 2)]


def test_a_job_whose_client_died_says_so(bench):
    bench.node().job("j", 2, seal=False)
    grant = bench.grants[0]
    bench("on_job_sealed", "j", 2, input_ended=True)
    assert bench.changes(SealJob) == [SealJob("j", 2, True)]
    assert bench.progress().input_ended
    assert bench.done(grant).ends == [("j", "done")]


def test_cancelling_ends_the_job_and_stops_its_work(bench):
    bench.node().job("j", 10)("on_job_cancelled", "j")
    assert bench.ends == [("j", "cancelled")]
    assert bench.cancels == [("a", "j", ())]
    assert bench.forgets == [("a", "j")]
    assert bench.story[:2] == ["SaveSettled", "EndJob"]
    assert bench.scheduler.jobs() == []
    assert bench("on_job_cancelled", "j").effects == []
    assert bench.job("k", 1).granted == [("a", 0, 1)], "the node is free for others at once"


def test_deleting_cancels_and_removes(bench):
    bench.node().job("j", 10)("on_job_deleted", "j")
    assert bench.ends == [("j", "cancelled")]
    assert bench.changes(DeleteJob) == [DeleteJob("j")]
    assert JobDeleted("j") in bench.told
    assert bench("on_job_deleted", "j").changes(DeleteJob) == [DeleteJob("j")], (
        "an ended job is the journal's to delete"
    )


def test_cancelled_tasks_settle_as_failures_and_are_stopped(bench):
    bench.node(slots=2).job("j", 10)
    bench("on_tasks_cancelled", "j", [(1, 3), (8, 20)])
    assert bench.counts == [(1, 3), (8, 10)]
    assert [(each.index, each.kind) for each in bench.failures] == [(i, "cancelled") for i in (1, 2, 8, 9)]
    assert bench.cancels == [("a", "j", (1, 3))], "only what is out is cancelled there"
    assert bench.progress().failed == 4
    assert bench("on_tasks_cancelled", "j", [(1, 3), (-5, 0)]).effects == []


def test_cancelling_all_that_is_left_ends_the_job(bench):
    bench.node().job("j", 3)
    assert bench("on_tasks_cancelled", "j", [(0, 3)]).ends == [("j", "done")]


def test_events_of_unknown_jobs_have_no_effect(bench):
    bench.node()
    for event, *args in (
        ("on_inputs_added", "x", 3), ("on_job_sealed", "x", 3), ("on_tasks_cancelled", "x", [(0, 1)]), ("on_job_cancelled", "x"),
    ):  # fmt: skip
        assert bench(event, *args).effects == []


def test_a_snapshot_comes_with_every_64th_row(bench):
    bench.node(slots=4).job("j", 1000)
    grants, snapshots, rows = bench.grants, 0, 0
    while rows < 130:
        grant = grants.pop(0)
        for index in range(grant.lease.start, grant.lease.stop):
            bench.done(grant, index, index + 1)
            grants += bench.grants
            rows += 1
            snapshots += len(bench.changes(SaveSettled))
            assert bool(bench.changes(SaveSettled)) == (rows % 64 == 0)
            if rows == 130:
                break
    assert snapshots == 2


def test_views(bench):
    bench.node(slots=2).job("j", 10)
    assert bench.scheduler.jobs() == ["j"]
    assert bench.scheduler.spec("j").id == "j"
    assert bench.scheduler.info("j").progress == bench.progress()
    progress = bench.progress()
    assert (progress.accepted, progress.size, progress.settled, progress.leased) == (10, 10, 0, 4)
    bench.done(bench.grant, 0, 1)
    assert list(bench.scheduler.settled("j").ranges()) == [(0, 1)]
    (view,) = bench.scheduler.nodes()
    assert (view.connected, view.accepting, view.finished_tasks, view.jobs) == (True, True, 1, ("j",))
    assert view.running_tasks <= 2 <= view.leased_tasks


def in_pieces(bench, tasks):
    """A job of which every other task was cancelled."""
    bench.job("j", tasks)("on_tasks_cancelled", "j", [(index, index + 1) for index in range(1, tasks, 2)])


def test_many_cancelled_tasks_are_few_changes_and_messages_however_they_lie(bench):
    in_pieces(bench, 10_000)
    assert len(bench.failures) == 5_000
    assert len(bench.changes(AddResults)) == len(bench.of(TellResults)) == 2, "4,096 at a time: each fits a message"


def test_a_node_holds_a_bounded_number_of_pieces_and_is_told_once_of_all_that_are_cancelled(bench):
    in_pieces(bench, 600)
    grants, most = bench.node().grants, 0
    while grants and most < 66:
        bench.done(grants.pop(0), elapsed_s=0.0001)
        grants += bench.grants
        most = max(most, len(bench.held_by("a")))
    for _ in range(50):
        bench.done(grants.pop(0), elapsed_s=0.0001)
        grants += bench.grants
        most = max(most, len(bench.held_by("a")))
    assert most == 66, "64, and two for its slot"
    bench("on_tasks_cancelled", "j", [(0, 600)])
    assert bench.ends == [("j", "done")]
    assert len(bench.cancels) == 1
