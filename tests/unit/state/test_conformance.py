"""What every `State` does. Each test runs against memory, SQLite and PostgreSQL."""

import threading

import pytest

from fallow.model.changes import (
    AddInputs,
    AddJob,
    AddLease,
    AddLogs,
    AddResults,
    AddToken,
    DeleteJob,
    DropCheckpoint,
    DropSession,
    EndJob,
    EndLease,
    HoldBlob,
    LogEntry,
    RevokeToken,
    SaveCheckpoint,
    SaveSettled,
    SealJob,
)
from fallow.model.job import Counting
from fallow.model.lease import Lease
from fallow.model.ranges import RangeSet
from fallow.model.requirements import Requirements
from fallow.model.token import Token

ALL = [(0, 10**9)]


def read_all(state, job, wanted=ALL, limit_bytes=10**9):
    """Return the pages and in how many calls they came."""
    pages, after, calls = [], 0, 0
    while after is not None:
        some, after = state.result_pages(job, wanted, after=after, limit_bytes=limit_bytes)
        pages += some
        calls += 1
    return pages, calls


def test_a_new_state_is_empty(opened):
    recovered = opened.recovered()
    assert (recovered.jobs, recovered.leases, recovered.tokens, recovered.sessions) == ((), (), (), ())


def test_each_opening_has_a_higher_epoch(opened):
    first = opened.recovered().epoch
    assert opened.recovered().epoch == first + 1


def test_a_job_comes_back_as_it_was(opened, make):
    spec = make.spec(
        name="sweep",
        inputs=Counting(5, 2),
        stages=("map", "reduce"),
        sources={"tools": make.digest(7)},
        requirements=Requirements(cores=2, tags=("lab",)),
        priority=-3,
        timeout_s=1.5,
    )
    opened.state.commit([AddJob(spec)])
    (job,) = opened.recovered().jobs
    assert job.spec == spec
    assert (job.accepted, job.size, job.input_ended, job.settled, job.failed) == (0, None, False, (), ())


def test_jobs_come_back_in_order_of_creation(opened, make):
    for number in (5, 1, 3):
        opened.state.commit([AddJob(make.spec(number))])
    assert [job.spec.id for job in opened.recovered().jobs] == [make.job_id(number) for number in (5, 1, 3)]


def test_a_job_that_is_there_stays_as_it_is(opened, make):
    opened.state.commit([AddJob(make.spec(priority=1)), AddInputs(make.inputs(1, 0, 5))])
    opened.state.commit([AddJob(make.spec(priority=2))])
    (job,) = opened.recovered().jobs
    assert (job.spec.priority, job.accepted) == (1, 5)


def test_inputs_are_counted_and_read_back(opened, make):
    opened.state.commit([AddJob(make.spec())])
    opened.state.commit([AddInputs(make.inputs(1, 0, 10, b"a")), AddInputs(make.inputs(1, 10, 15, b"b"))])
    opened.state.commit([AddInputs(make.inputs(1, 15, 40, b"c"))])
    assert opened.recovered().jobs[0].accepted == 40
    read = lambda start, stop: [page.data for page in opened.state.input_pages(make.job_id(1), start, stop)]
    assert read(0, 40) == [b"a", b"b", b"c"]
    assert read(9, 10) == [b"a"]
    assert read(10, 11) == [b"b"]
    assert read(12, 16) == [b"b", b"c"]
    assert read(39, 100) == [b"c"]
    assert read(40, 100) == read(7, 7) == []


def test_an_input_page_comes_back_whole(opened, make):
    page = make.inputs(
        1, 0, 10, None, blob=make.digest(1), refs=(make.digest(2), make.digest(3)), kept=(0, 3), counts=(1, 2, 5, 9)
    )
    opened.state.commit([AddJob(make.spec()), AddInputs(page)])
    opened.recovered()
    assert opened.state.input_pages(page.job, 0, 10) == [page]


def test_an_input_page_that_is_there_stays_as_it_is(opened, make):
    opened.state.commit([AddJob(make.spec()), AddInputs(make.inputs(1, 0, 10, b"first"))])
    opened.state.commit([AddInputs(make.inputs(1, 0, 10, b"again")), AddInputs(make.inputs(1, 10, 20))])
    assert [page.data for page in opened.state.input_pages(make.job_id(1), 0, 10)] == [b"first"]
    assert opened.recovered().jobs[0].accepted == 20


def test_sealing_sets_the_size(opened, make):
    opened.state.commit([AddJob(make.spec(1)), AddJob(make.spec(2))])
    opened.state.commit([SealJob(make.job_id(1), 7), SealJob(make.job_id(2), 3, input_ended=True)])
    assert [(job.size, job.input_ended) for job in opened.recovered().jobs] == [(7, False), (3, True)]


def test_results_settle_without_a_snapshot(opened, make):
    opened.state.commit([AddJob(make.spec())])
    opened.state.commit([AddResults(make.job_id(1), (make.stored(10, 20), make.stored(0, 5)))])
    opened.state.commit([AddResults(make.job_id(1), (make.stored(4, 12, counts=(5, 10)),))])
    assert opened.recovered().jobs[0].settled == (0, 20)


def test_a_snapshot_and_the_results_after_it_settle(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec()), AddResults(job, (make.stored(0, 4),))])
    opened.state.commit([
        SaveSettled(job, (0, 4, 6, 7), (6, 7), (make.failure(6),)),
        AddResults(job, (make.stored(10, 20, failures=(make.failure(12),)),)),
    ])  # fmt: skip
    opened.state.commit([AddResults(job, (make.stored(4, 6),))])
    (recovered,) = opened.recovered().jobs
    assert recovered.settled == (0, 7, 10, 20)
    assert recovered.failed == (6, 7, 12, 13)
    assert [failure.index for failure in recovered.first_failures] == [6, 12]
    opened.state.commit([AddResults(job, (make.stored(7, 10),))])  # numbering goes on after a restart
    assert opened.recovered().jobs[0].settled == (0, 20)


def test_only_failures_that_count_are_counted(opened, make):
    failures = tuple(make.failure(index, traceback="t", exception=b"e") for index in (1, 4, 8))
    job = make.job_id(1)
    page = make.stored(0, 10, counts=(0, 2, 6, 10), failures=failures)
    opened.state.commit([AddJob(make.spec()), AddResults(job, (page,))])
    (recovered,) = opened.recovered().jobs
    assert recovered.failed == (1, 2, 8, 9)
    assert recovered.first_failures == (failures[0], failures[2])


def test_the_first_hundred_failures_are_kept_and_of_all_the_indices(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec())])
    for start in range(0, 300, 60):
        failures = tuple(make.failure(index) for index in range(start, start + 60))
        opened.state.commit([AddResults(job, (make.stored(start, start + 60, None, None, failures=failures),))])
    (recovered,) = opened.recovered().jobs
    assert recovered.failed == (0, 300)
    assert [failure.index for failure in recovered.first_failures] == list(range(100))
    snapshot = SaveSettled(job, recovered.settled, recovered.failed, recovered.first_failures)
    pages = [make.stored(start, start + 1, data=None, failures=(make.failure(start),)) for start in (305, 303)]
    opened.state.commit([snapshot, *(AddResults(job, (page,)) for page in pages)])
    assert opened.recovered().jobs[0].failed == (0, 300, 303, 304, 305, 306)


def test_result_pages_come_in_order_of_start_over_rows_that_overlap(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec())])
    opened.state.commit([AddResults(job, (make.stored(50, 60), make.stored(0, 10), make.stored(90, 95)))])
    opened.state.commit([AddResults(job, (make.stored(20, 50),)), AddResults(job, (make.stored(10, 20),))])
    opened.state.commit([AddResults(job, (make.stored(80, 90), make.stored(60, 80)))])
    for limit_bytes in (1, 250, 10**9):
        pages, calls = read_all(opened.state, job, limit_bytes=limit_bytes)
        assert [stored.page.start for stored in pages] == [0, 10, 20, 50, 60, 80, 90]
        assert calls == {1: 7, 250: 3, 10**9: 1}[limit_bytes]


def test_result_pages_that_count_for_nothing_wanted_are_left_out(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec())])
    for start in range(0, 100, 10):
        opened.state.commit([AddResults(job, (make.stored(start, start + 10, counts=(start + 3, start + 7)),))])
    starts = lambda wanted: [stored.page.start for stored in read_all(opened.state, job, wanted)[0]]
    assert starts([(0, 4), (27, 33), (45, 46), (66, 73)]) == [0, 40, 60]
    assert starts([(7, 13)]) == []
    assert starts([(99, 1000)]) == []
    assert starts([]) == []


def test_a_wide_page_before_what_is_wanted_is_found(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec()), AddResults(job, (make.stored(10, 12),))])
    opened.state.commit([AddResults(job, (make.stored(12, 1000, partial=True),))])
    opened.state.commit([AddResults(job, (make.stored(1000, 1001),))])
    pages, _ = read_all(opened.state, job, [(999, 1001)])
    assert [stored.page.start for stored in pages] == [12, 1000]


def test_pages_of_one_start_are_not_parted(opened, make):
    job = make.job_id(1)
    halves = [make.stored(0, 10, counts=(0, 5)), make.stored(0, 10, counts=(5, 10)), make.stored(10, 20)]
    opened.state.commit([AddJob(make.spec()), *(AddResults(job, (page,)) for page in halves)])
    pages, after = opened.state.result_pages(job, ALL, limit_bytes=1)
    assert [stored.counts for stored in pages] == [(0, 5), (5, 10)]
    pages, after = opened.state.result_pages(job, ALL, after=after, limit_bytes=1)
    assert [stored.page.start for stored in pages] == [10]
    assert after is None


def test_a_result_page_comes_back_whole(opened, make):
    job = make.job_id(1)
    page = make.stored(
        0, 10, (0, 9), None, blob=make.digest(5), kept=(0, 3), partial=True, elapsed_s=0.25,
        failures=(make.failure(4, traceback="at line 1", exception=b"\x00", exit_code=-9, signal="SIGKILL"),),
    )  # fmt: skip
    large = make.stored(10, 20, data=b"x" * 50_000)
    opened.state.commit([AddJob(make.spec()), AddResults(job, (page, large))])
    opened.recovered()
    assert read_all(opened.state, job)[0] == [page, large]


def test_results_that_are_there_are_not_added_again(opened, make):
    job = make.job_id(1)
    group = [
        AddJob(make.spec()),
        AddInputs(make.inputs(1, 0, 10)),
        AddResults(job, (make.stored(0, 10, failures=(make.failure(3),)),)),
        AddToken(Token(id="a", role="user", name="n", hash="h", created_at=0.0)),
    ]
    opened.state.commit(group)
    opened.state.commit(group)
    recovered = opened.recovered()
    assert recovered.jobs[0].failed == (3, 4)
    assert len(recovered.tokens) == 1
    assert len(read_all(opened.state, job)[0]) == 1


def test_leases_come_back_until_they_end(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec())])
    leases = [Lease(1 << 32 | number, job, number * 10, number * 10 + 10) for number in range(4)]
    opened.state.commit([AddLease(lease, f"node {number}") for number, lease in enumerate(leases)])
    opened.state.commit([EndLease(leases[1].id), AddLease(leases[2], "another"), EndLease(12345)])
    assert opened.recovered().leases == tuple((leases[number], f"node {number}") for number in (0, 2, 3))


def test_a_lease_added_and_ended_in_one_group_is_gone(opened, make):
    lease = Lease(7, make.job_id(1), 0, 1)
    opened.state.commit([AddJob(make.spec()), AddLease(lease, "n"), EndLease(7)])
    assert opened.recovered().leases == ()
    opened.state.commit([AddLease(lease, "n"), EndLease(7), AddLease(lease, "m")])
    assert opened.recovered().leases == ((lease, "m"),)


def test_an_ended_job_is_found_and_its_leases_are_forgotten(opened, make):
    spec = make.spec(name="sweep")
    opened.state.commit([AddJob(spec), AddInputs(make.inputs(1, 0, 3)), SealJob(spec.id, 3)])
    opened.state.commit([AddLease(Lease(1, spec.id, 0, 3), "n")])
    assert opened.state.find_job(spec.id) is None
    assert opened.state.job_named("sweep") is None
    opened.state.commit([SaveSettled(spec.id, (0, 3), (2, 3), (make.failure(2),)), EndJob(spec.id, "done", 12.5)])
    recovered = opened.recovered()
    assert (recovered.jobs, recovered.leases) == ((), ())
    for ended in (opened.state.find_job(spec.id), opened.state.job_named("sweep"), opened.state.ended_jobs(limit=5)[0]):
        assert ended.spec == spec
        assert (ended.state, ended.ended_at, ended.size, ended.accepted) == ("done", 12.5, 3, 3)
        assert (ended.settled, ended.failed, ended.first_failures) == ((0, 3), (2, 3), (make.failure(2),))


def test_ended_jobs_come_latest_first(opened, make):
    for number, ended_at in ((1, 10.0), (2, 30.0), (3, 20.0), (4, 30.0)):
        opened.state.commit([AddJob(make.spec(number)), EndJob(make.job_id(number), "cancelled", ended_at)])
    opened.state.commit([AddJob(make.spec(5))])
    numbers = lambda **bounds: [int(job.spec.id, 16) for job in opened.state.ended_jobs(**bounds)]
    assert numbers(limit=10) == [4, 2, 3, 1]
    assert numbers(limit=2) == [4, 2]
    assert numbers(limit=10, before=30.0) == [3, 1]
    assert numbers(limit=1, before=20.0) == [1]


def test_the_latest_ended_job_of_a_name_is_found(opened, make):
    for number in (1, 2, 3):
        opened.state.commit(
            [AddJob(make.spec(number, name="same")), EndJob(make.job_id(number), "done", 10.0 - number)]
        )
    assert opened.state.job_named("same").spec.id == make.job_id(1)
    assert opened.state.job_named("other") is None


def test_deleting_a_job_leaves_nothing_of_it(opened, make):
    job, other = make.job_id(1), make.job_id(2)
    group = [
        AddInputs(make.inputs(1, 0, 10, None, blob=make.digest(1), refs=(make.digest(2),))),
        AddResults(job, (make.stored(0, 5, data=None, blob=make.digest(3)),)),
        AddLogs(job, (LogEntry(0, "hello"),)),
        AddLease(Lease(1, job, 5, 10), "n"),
    ]
    opened.state.commit([AddJob(make.spec(1)), AddJob(make.spec(2)), *group, AddInputs(make.inputs(2, 0, 4))])
    opened.state.commit([DeleteJob(job), *group, SealJob(job, 5), SaveSettled(job, (0, 1), (), ()), DeleteJob(job)])
    opened.state.commit([EndJob(job, "done", 1.0)])
    recovered = opened.recovered()
    assert [(each.spec.id, each.accepted) for each in recovered.jobs] == [(other, 4)]
    assert recovered.leases == ()
    assert opened.state.find_job(job) is None
    assert opened.state.input_pages(job, 0, 10) == []
    assert read_all(opened.state, job)[0] == []
    assert opened.state.logs(job) == ([], None)
    assert opened.state.blobs_held_by(job) == []
    digests = [make.digest(number) for number in (1, 2, 3)]
    assert opened.state.unreferenced_blobs(digests) == digests


def test_a_job_may_be_added_again_after_it_was_deleted(opened, make):
    job = make.job_id(1)
    first = [AddJob(make.spec()), AddInputs(make.inputs(1, 0, 10, b"old")), AddResults(job, (make.stored(0, 10),))]
    opened.state.commit([*first, DeleteJob(job), AddJob(make.spec()), AddInputs(make.inputs(1, 0, 4, b"new"))])
    (recovered,) = opened.recovered().jobs
    assert (recovered.accepted, recovered.settled) == (4, ())
    assert [page.data for page in opened.state.input_pages(job, 0, 10)] == [b"new"]


def test_changes_of_unknown_jobs_are_ignored(opened, make):
    job = make.job_id(9)
    opened.state.commit([
        AddInputs(make.inputs(9, 0, 10)), SealJob(job, 10), AddResults(job, (make.stored(0, 10),)),
        SaveSettled(job, (0, 10), (), ()), EndJob(job, "done", 1.0), AddLease(Lease(1, job, 0, 10), "n"),
        AddLogs(job, (LogEntry(1, "x"),)), DeleteJob(job), EndLease(5), RevokeToken("none"), DropSession("none"),
    ])  # fmt: skip
    recovered = opened.recovered()
    assert (recovered.jobs, recovered.leases) == ((), ())
    assert opened.state.logs(job) == ([], None)


def test_logs_come_in_order_and_in_parts(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec(1)), AddJob(make.spec(2))])
    entries = [LogEntry(number, f"line {number}\n\0é", "desk") for number in range(7)]
    opened.state.commit([AddLogs(job, tuple(entries[:3])), AddLogs(make.job_id(2), (LogEntry(0, "other"),))])
    opened.recovered()
    opened.state.commit([AddLogs(job, tuple(entries[3:5])), AddLogs(job, tuple(entries[5:]))])
    assert opened.state.logs(job) == (entries, None)
    first, after = opened.state.logs(job, limit=3)
    rest, end = opened.state.logs(job, after=after, limit=4)
    assert (first + rest, end) == (entries, None)
    assert opened.state.logs(job, after=len(entries)) == ([], None)
    assert opened.state.logs(job, after=-2) == (entries[-2:], None)
    assert opened.state.logs(job, after=-4, limit=3) == (entries[-4:-1], 6)
    assert opened.state.logs(job, after=-20) == (entries, None)
    assert opened.state.logs(make.job_id(3), after=-2) == ([], None)
    size = (len(entries), sum(len(entry.text.encode()) for entry in entries))
    assert opened.state.log_size(job) == size
    assert opened.state.log_size(make.job_id(3)) == (0, 0)


def test_tokens_stay_until_revoked(opened):
    tokens = [Token(id=name, role="user", name=name, hash="h" * 64, created_at=1.0) for name in "abc"]
    opened.state.commit([AddToken(token) for token in tokens])
    opened.state.commit([RevokeToken("b"), AddToken(Token(id="a", role="admin", name="", hash="", created_at=2.0))])
    assert sorted(opened.recovered().tokens, key=lambda token: token.id) == [tokens[0], tokens[2]]


def test_blobs_are_referred_to_by_jobs_and_sessions(opened, make):
    digests = [make.digest(number) for number in range(8)]
    spec = make.spec(function=digests[0], sources={"m": digests[1]}, refs=(digests[2],), session="s1")
    opened.state.commit([AddJob(spec), AddInputs(make.inputs(1, 0, 1, None, blob=digests[3], refs=(digests[4],)))])
    opened.state.commit([AddResults(spec.id, (make.stored(0, 1, data=None, blob=digests[5]),))])
    opened.state.commit([HoldBlob(digests[6], "s2"), HoldBlob(digests[0], "s2"), HoldBlob(digests[0], "s2")])
    assert opened.recovered().sessions == ("s1", "s2")
    assert opened.state.unreferenced_blobs(digests) == [digests[7]]
    assert opened.state.blobs_held_by(spec.id) == digests[:6]
    assert opened.state.blobs_held_by("s2") == [digests[0], digests[6]]
    opened.state.commit([DeleteJob(spec.id)])
    assert opened.state.unreferenced_blobs(digests) == [*digests[1:6], digests[7]]
    opened.state.commit([DropSession("s2")])
    assert opened.state.unreferenced_blobs(digests) == digests
    assert opened.recovered().sessions == ()


def test_room_in_a_file_of_ours_that_deleted_rows_leave_is_told(opened, make):
    spec = make.spec()
    opened.state.commit([AddJob(spec), *(AddInputs(make.inputs(1, i, i + 1, bytes(900_000))) for i in range(4))])
    before = opened.state.reusable_bytes()
    opened.state.commit([DeleteJob(spec.id)])
    left = opened.state.reusable_bytes() - before
    assert left >= 3_500_000 if opened.kind == "sqlite" else left == 0


def test_sessions_of_named_jobs_need_no_watching(opened, make):
    opened.state.commit([AddJob(make.spec(1, session="s1")), AddJob(make.spec(2, session="s2", name="kept"))])
    opened.state.commit([EndJob(make.job_id(1), "done", 1.0)])
    assert opened.recovered().sessions == ("s1",)


def test_an_empty_group_changes_nothing(opened):
    opened.state.commit([])
    assert opened.recovered().jobs == ()


@pytest.mark.slow
def test_readers_see_whole_groups_while_another_thread_commits(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec())])
    done = threading.Event()
    errors = []

    def read():
        while not done.is_set():
            accepted = opened.state.input_pages(job, 0, 10**6)
            results, _ = opened.state.result_pages(job, ALL, limit_bytes=10**9)
            stops = [page.stop for page in accepted]
            if stops != list(range(10, len(stops) * 10 + 10, 10)) or len(stops) % 2:
                errors.append(stops)
            settled = RangeSet((stored.page.start, stored.page.stop) for stored in results)
            if settled.run_count > 1 or len(results) % 2:
                errors.append(settled)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 2000, 20):
        opened.state.commit([
            AddInputs(make.inputs(1, start, start + 10)), AddInputs(make.inputs(1, start + 10, start + 20)),
            AddResults(job, (make.stored(start, start + 10),)), AddResults(job, (make.stored(start + 10, start + 20),)),
        ])  # fmt: skip
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []


def test_of_the_checkpoints_of_a_task_the_latest_is_kept(opened, make):
    one, two = make.job_id(1), make.job_id(2)
    opened.state.commit([AddJob(make.spec(1)), AddJob(make.spec(2)), SaveCheckpoint(one, 7, make.digest(1))])
    opened.state.commit([SaveCheckpoint(one, 7, make.digest(2)), SaveCheckpoint(one, 7, make.digest(3))])
    opened.state.commit([SaveCheckpoint(two, 7, make.digest(4)), SaveCheckpoint(one, 3, make.digest(3))])
    assert opened.recovered().checkpoints == (
        (one, 3, make.digest(3)),
        (one, 7, make.digest(3)),
        (two, 7, make.digest(4)),
    )


def test_a_checkpoint_that_is_dropped_is_gone_and_may_come_back(opened, make):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec()), SaveCheckpoint(job, 7, make.digest(1)), DropCheckpoint(job, 7)])
    assert opened.recovered().checkpoints == ()
    opened.state.commit([SaveCheckpoint(job, 7, make.digest(1)), SaveCheckpoint(job, 8, make.digest(1))])
    opened.state.commit([DropCheckpoint(job, 7), DropCheckpoint(job, 99), DropCheckpoint(make.job_id(9), 1)])
    assert opened.recovered().checkpoints == ((job, 8, make.digest(1)),)
    opened.state.commit([DropCheckpoint(job, 8), SaveCheckpoint(job, 8, make.digest(2))])
    assert opened.recovered().checkpoints == ((job, 8, make.digest(2)),)


@pytest.mark.parametrize("end", [lambda job: EndJob(job, "cancelled", 1.0), DeleteJob])
def test_the_checkpoints_of_a_job_go_with_it(opened, make, end):
    job = make.job_id(1)
    opened.state.commit([AddJob(make.spec()), SaveCheckpoint(job, 7, make.digest(1))])
    opened.state.commit([SaveCheckpoint(job, 8, make.digest(2)), end(job)])
    assert opened.recovered().checkpoints == ()
    assert opened.state.unreferenced_blobs([make.digest(1), make.digest(2)]) == [make.digest(1), make.digest(2)]
    opened.state.commit([SaveCheckpoint(make.job_id(9), 7, make.digest(1))])  # of an unknown job
    assert opened.recovered().checkpoints == ()


def test_a_checkpoint_holds_its_blob(opened, make):
    job, first, second = make.job_id(1), make.digest(1), make.digest(2)
    opened.state.commit([AddJob(make.spec()), SaveCheckpoint(job, 0, first), SaveCheckpoint(job, 1, first)])
    assert opened.state.unreferenced_blobs([first, second]) == [second]
    assert opened.state.blobs_held_by(job) == sorted([first, make.spec().function])
    opened.state.commit([SaveCheckpoint(job, 0, second), DropCheckpoint(job, 1)])
    assert opened.state.unreferenced_blobs([first, second]) == [first]
