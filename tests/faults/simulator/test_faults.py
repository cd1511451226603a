"""One fault at a time, on a small fleet that is checked after every event."""

import pytest

from fallow.simulator.fleet import Fleet, Stuck
from fallow.simulator.plan import Faults, Plan, Work
from fallow.state.writer import Writer

pytestmark = pytest.mark.slow


def run(*work, nodes=6, seed=1, state="sql", **faults):
    plan = Plan(
        work=work or (Work(tasks=300, median_s=0.5),), seed=seed, nodes=nodes, slots=2, fastest=2.0,
        faults=Faults(**faults), calm_after_s=600.0, limit_s=20_000.0, state=state,
    )  # fmt: skip
    fleet = Fleet(plan)
    return fleet.run(), fleet


def test_without_faults_nothing_is_repeated():
    report, _ = run()
    assert report.executed == report.tasks == 300
    assert report.failed == report.repeated == 0


@pytest.mark.parametrize(
    "faults",
    [
        {"agent_killed_s": 20.0}, {"node_gone_s": 60.0}, {"node_leaves_s": 20.0}, {"link_cut_s": 5.0}, {"link_mute_s": 30.0},
        {"slowdown_s": 20.0}, {"hub_killed_s": 10.0}, {"lost": 0.05}, {"doubled": 0.3}, {"delayed": 0.2},
    ],
    ids=lambda faults: next(iter(faults)),
)  # fmt: skip
def test_no_task_fails_for_what_happens_around_it(faults):
    report, _ = run(**faults)
    assert report.failed == 0
    assert report.tasks == 300


def test_a_crash_of_the_hub_repeats_only_what_it_had_not_acknowledged():
    report, fleet = run(hub_killed_s=5.0)
    assert report.hub_starts > 1
    assert report.repeated <= 12 * report.hub_starts, "at most what the slots ran"


@pytest.mark.parametrize("state", ["memory", "sql"])
def test_a_hub_dies_between_any_two_effects(state):
    """After each start the state has what was committed, no more and no less: `Journal.check_recovered`."""
    report, fleet = run(
        Work(tasks=2000, median_s=0.5, page=40, page_gap_s=0.1), hub_killed_s=3.0, raising=0.1, state=state
    )
    assert report.hub_starts > report.torn + 1 > 4
    assert report.failed == len(fleet.hub.journal.jobs["job0"].failures) > 0


def test_what_a_state_forgets_is_found(monkeypatch):
    """The referee is not the state: a lease that is not written, say, shows at the next start."""
    monkeypatch.setattr(Writer, "_add_lease", lambda self, change: None)
    with pytest.raises(AssertionError, match=r"the leases .* came back as \{\}"):
        run(hub_killed_s=3.0)


def test_a_task_that_takes_nodes_down_is_stopped():
    report, fleet = run(Work(tasks=40, median_s=0.5, speculate=False), killers=1)
    (row,) = fleet.hub.journal.jobs.values()
    assert list(row.failures.values()) == ["lost_nodes"]
    assert report.failed == 1


def test_tasks_that_raise_are_counted_exactly():
    report, fleet = run(Work(tasks=2000, median_s=0.001), raising=0.3)
    (row,) = fleet.hub.journal.jobs.values()
    assert len(row.failures) == report.failed
    assert 400 < report.failed < 800


def test_with_retries_hardly_any_fails():
    report, _ = run(Work(tasks=300, median_s=0.05, retries=8), raising=0.2)
    assert report.failed == 0


def test_slots_that_die_are_tried_again():
    report, _ = run(Work(tasks=300, median_s=0.5), crashing=0.05)
    assert report.failed == 0


def test_a_chain_of_jobs_survives_crashes_of_the_hub():
    parent = Work(tasks=200, median_s=0.2)
    report, fleet = run(
        parent, Work(tasks=200, median_s=0.1, follows=0), Work(tasks=200, follows=1, reduces=True), hub_killed_s=8.0
    )
    assert report.hub_starts > 1
    assert [row.state for row in fleet.hub.journal.jobs.values()] == ["done"] * 3


def test_a_run_that_can_not_end_says_why():
    plan = Plan(work=(Work(tasks=1, counting=True),), nodes=1, faults=Faults(lost=1.0), limit_s=50.0)
    with pytest.raises(Stuck, match="no node has joined"):
        Fleet(plan).run()


def test_the_same_seed_gives_the_same_run():
    first, _ = run(seed=5, link_cut_s=10.0, lost=0.02)
    second, _ = run(seed=5, link_cut_s=10.0, lost=0.02)
    assert (first.makespan_s, first.leases, first.frames) == (second.makespan_s, second.leases, second.frames)
