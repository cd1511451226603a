"""The simulator's own parts."""

import shlex
import statistics

import pytest
from typer.testing import CliRunner

from fallow.model.changes import AddJob, AddLease, AddResults, EndJob, SaveSettled
from fallow.model.failure import Failure
from fallow.model.job import JobSpec, Pages
from fallow.model.lease import Lease
from fallow.model.page import ResultPage, StoredPage
from fallow.scheduler.job_state import JobState
from fallow.simulator.__main__ import app
from fallow.simulator.clock import Clock
from fallow.simulator.durations import CLIP_MEDIANS, KINDS, draw
from fallow.simulator.fleet import Fleet
from fallow.simulator.journal import Journal
from fallow.simulator.plan import Plan, Work
from fallow.simulator.tail import ABLATIONS, ORDER_BOUND, order_bound_s, study
from fallow.state.memory import MemoryState


def test_time_jumps_from_event_to_event_in_order():
    clock, seen = Clock(), []
    clock.post(5.0, seen.append, "late")
    clock.post(1.0, seen.append, "first")
    clock.post(1.0, seen.append, "second")
    while clock.step():
        pass
    assert seen == ["first", "second", "late"]
    assert clock.now == 5.0


@pytest.mark.parametrize("kind", KINDS)
def test_durations_have_the_median_that_was_asked_for(kind):
    values = draw(kind, 4001, 2.0, seed=1)
    assert statistics.median(values) == pytest.approx(2.0, rel=0.1)
    assert max(values) <= 2.0 * CLIP_MEDIANS
    assert values == draw(kind, 4001, 2.0, seed=1)
    assert kind == "constant" or values != draw(kind, 4001, 2.0, seed=2)


@pytest.fixture
def journal():
    journal = Journal()
    journal.append(AddJob(JobSpec(id="j", stages=("map",), function="f", function_name="f", inputs=Pages())))
    return journal


def add(journal, *counts, start=0, stop=4, **page):
    journal.append(AddResults("j", (StoredPage(ResultPage(start, stop, **page), counts),)))
    journal.commit()


def test_the_journal_finds_what_is_accepted_twice(journal):
    add(journal, 0, 4)
    with pytest.raises(AssertionError, match="accepted twice"):
        add(journal, 3, 4)


def test_the_journal_finds_a_part_of_a_partial(journal):
    with pytest.raises(AssertionError, match="partial"):
        add(journal, 0, 2, partial=True)


def test_the_journal_finds_counts_outside_of_the_page(journal):
    with pytest.raises(AssertionError, match="outside"):
        add(journal, 0, 9)


def test_the_journal_finds_a_wrong_snapshot_and_a_wrong_end(journal):
    add(journal, 0, 4, failures=(Failure(index=1, kind="raised"),))
    journal.append(SaveSettled("j", (0, 3), (1, 2), ()))
    with pytest.raises(AssertionError, match="snapshot"):
        journal.commit()
    journal.append(SaveSettled("j", (0, 4), (2, 3), ()))
    with pytest.raises(AssertionError, match="failed, "):
        journal.commit()
    journal.append(EndJob("j", "done", 0.0))
    with pytest.raises(AssertionError, match="short of results"):
        journal.commit()


def test_what_is_not_committed_is_lost_in_a_crash(journal):
    journal.commit()
    journal.append(AddResults("j", (StoredPage(ResultPage(0, 4), (0, 4)),)))
    called = []
    journal.after_commit(lambda: called.append(1))
    assert journal.is_dirty
    journal.crash()
    journal.commit()
    assert len(journal.jobs["j"].done) == 0
    assert called == []


@pytest.mark.slow
def test_a_million_trivial_tasks_take_few_leases():
    work = Work(tasks=1_000_000, median_s=1e-6, durations="constant", counting=True)
    report = Fleet(Plan(work=(work,), nodes=1, slots=2)).run()
    assert report.leases < 100
    assert report.ratio < 1.3


@pytest.mark.slow
def test_a_large_fleet_shares_a_job_evenly():
    work = Work(tasks=3000, median_s=5.0, durations="uniform", counting=True)
    report = Fleet(Plan(work=(work,), nodes=300, fastest=3.5)).run()
    assert report.ratio < 1.35


@pytest.mark.slow
def test_a_heavy_tail_on_uneven_nodes_stays_near_what_any_order_of_arrival_allows():
    """No scheduler that does not know durations does better than to start tasks in order, each on the fastest node."""
    plan = Plan(
        work=(Work(tasks=2000, median_s=1.0, counting=True),), nodes=20, fastest=3.5, seed=3, check_every=10_000
    )
    report = Fleet(plan).run()
    total, started_s, least_s = 2.25 * 20, 0.0, 0.0
    for seconds in draw("pareto", 2000, 1.0, 3000):
        least_s = max(least_s, started_s + seconds / 3.5)
        started_s += seconds / total
    assert report.makespan_s < 1.35 * max(least_s, report.bound_s)


@pytest.mark.slow
def test_without_second_attempts_and_recall_the_tail_is_longer():
    def makespan(**options):
        return Fleet(Plan(work=(Work(tasks=500, **options),), nodes=20, fastest=3.5, seed=2)).run().makespan_s

    assert makespan() < makespan(speculate=False)


def test_the_command_prints_a_table():
    result = CliRunner().invoke(app, ["--nodes", "4", "--tasks", "50", "--runs", "2"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "makespan" in result.output
    assert "median" in result.output


def test_the_command_replays_a_scenario():
    result = CliRunner().invoke(app, ["--scenario", "--seed", "3"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output


def test_the_journal_finds_what_a_state_lost(journal):
    add(journal, 0, 4)
    journal.append(AddLease(Lease(1, "j", 4, 6), "n"))
    journal.commit()
    journal.epoch = 1
    state = MemoryState()
    spec = journal.jobs["j"].spec
    state.commit([AddJob(spec), AddResults("j", (StoredPage(ResultPage(0, 4), (0, 3)),))])
    with pytest.raises(AssertionError, match="settled was committed as"):
        journal.check_recovered(state.recover(), [])
    state = MemoryState()
    state.commit([AddJob(spec), AddResults("j", (StoredPage(ResultPage(0, 4), (0, 4)),))])
    with pytest.raises(AssertionError, match="the leases"):
        journal.check_recovered(state.recover(), [])
    with pytest.raises(AssertionError, match="start 1 has the number 2"):
        journal.check_recovered(state.recover(), [])


@pytest.mark.parametrize("options", [["--scenario"], ["--nodes", "25", "--tasks", "400", "--link-cut-s", "20"]])
def test_a_failing_seed_is_printed_with_the_command_that_replays_it(monkeypatch, options):
    """A scheduler that loses a task when it comes back: found at once, on small fleets and on larger ones, and again."""
    put_back = JobState.put_back
    monkeypatch.setattr(JobState, "put_back", lambda job, start, stop: put_back(job, start + 1, stop))

    def run(words):
        result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert result.exit_code == 1, result.output
        failed = next(line for line in result.output.splitlines() if " failed: " in line)
        return failed, next(line for line in result.output.splitlines() if line.startswith("replay: "))

    failed, replay = run([*options, "--seed", "3", "--runs", "20"])
    words = shlex.split(replay.removeprefix("replay: "))
    assert words[:3] == ["python", "-m", "fallow.simulator"]
    assert run(words[3:]) == (failed, replay)
    monkeypatch.undo()
    assert CliRunner().invoke(app, words[3:]).exit_code == 0


def test_the_order_bound_starts_tasks_in_order_each_on_the_fastest_node():
    assert order_bound_s([4.0, 4.0], total_speed=4.0, fastest=2.0) == 3.0
    assert order_bound_s([1.0] * 10, total_speed=5.0, fastest=5.0) == pytest.approx(2.0)
    assert order_bound_s([9.0, 1.0], 10.0, 3.0) < order_bound_s([1.0, 9.0], 10.0, 3.0)


def test_the_tail_study_names_every_part():
    plan = Plan(work=(Work(tasks=60),), nodes=4, fastest=2.0)
    rows = list(study(plan, range(2)))
    assert [each.name for each in rows] == [*ABLATIONS, ORDER_BOUND]
    assert all(1.0 <= each.median <= each.late for each in rows if each.name != ORDER_BOUND)


def test_the_command_compares_what_each_part_adds():
    result = CliRunner().invoke(app, ["--tail", "--nodes", "4", "--tasks", "50", "--runs", "2"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "no second attempts" in result.output
