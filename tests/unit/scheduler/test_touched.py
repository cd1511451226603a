"""The check of what an event touched: silent while all is well, and it finds a wrong book of a touched job, node or lease."""

import pytest

from fallow.model.changes import AddResults
from fallow.scheduler.effects import Persist
from fallow.scheduler.node_state import Away


class Watched:
    """A bench whose every event is followed by the check of what it touched."""

    def __init__(self, bench):
        self.bench = bench
        self.check = bench.scheduler.touched_check()
        event = type(bench).__call__

        def call(name, *args, **options):
            event(bench, name, *args, **options)
            self.look(name, *args)
            return bench

        bench.call = call

    def look(self, name="", *args):
        spec_id = getattr(args[0], "id", args[0]) if args else None
        about = {"jobs": [spec_id]} if "job" in name or "inputs" in name or "tasks_c" in name else {}
        if name.startswith(
            ("on_node", "on_leases", "on_heart", "on_link", "on_results", "on_task_broke", "on_returned")
        ):
            about = {"nodes": [args[0]], "jobs": [args[2]] if name in {"on_results", "on_task_broke"} else []}
        self.check.check(self.bench.effects, **about)


@pytest.fixture
def watched(bench, monkeypatch):
    """Two nodes, a job that is half done, and all of it checked as it came."""
    watched = Watched(bench)
    monkeypatch.setattr(type(bench), "__call__", lambda self, name, *args, **options: self.call(name, *args, **options))
    bench.node("a", slots=2).node("b").job("j", 40)
    watched.grant = bench.grants[0]
    bench.done(watched.grant, watched.grant.lease.start, watched.grant.lease.start + 1)
    return watched


@pytest.fixture
def books(watched):
    return watched.bench.scheduler._books


def found(watched, text, **about):
    with pytest.raises(AssertionError, match=text):
        watched.check.check([], **about)


def lease_of(books, node):
    return next(iter(books.nodes[node].leases.values()))


def test_all_is_silent_while_the_books_are_right(watched):
    bench = watched.bench
    bench.broke(watched.grant, watched.grant.lease.start + 1).beats(2, "a", "b")
    bench("on_link_closed", "b").after(20)
    assert bench.scheduler.nodes() == []
    bench.node("a", slots=2).node("b").beats(2, "a", "b")
    bench.job("k", 3, requires={"memory_bytes": 5}).job("l", follows="k").job("m", 3)
    bench("on_job_cancelled", "j")("on_job_deleted", "k")
    bench("on_job_cancelled", "m").job("p").job("q", follows="p", priority=1)
    bench("on_inputs_added", "p", 1).done(bench.grant)
    bench("on_job_sealed", "p", 1)("on_job_cancelled", "q")
    assert watched.check._leases == watched.check._jobs == {}


def test_a_task_that_vanishes_from_a_lease_is_found(watched, books):
    lease = lease_of(books, "a")
    lease.unfinished.discard(lease.unfinished.first, lease.unfinished.first + 1)
    found(watched, "accounted for", nodes=["a"])


def test_a_task_in_two_leases_is_found(watched, books):
    other = lease_of(books, "b")
    lease_of(books, "a").unfinished.add(other.unfinished.first, other.unfinished.first + 1)
    found(watched, "and another", nodes=["a"])


def test_a_leased_task_that_is_pending_too_is_found(watched, books):
    lease = lease_of(books, "a")
    books.jobs["j"].front.add(lease.unfinished.first, lease.unfinished.first + 1)
    found(watched, "accounted for", leases=[lease.id])


def test_a_pending_task_that_vanishes_is_found(watched, books):
    fresh = books.jobs["j"].fresh
    fresh.discard(fresh.first, fresh.first + 1)
    found(watched, "tasks are accounted for, of 40", jobs=["j"])


def test_a_settled_task_that_is_pending_again_is_found(watched, books):
    job = books.jobs["j"]
    start = job.settled.first
    job.settled.discard(start, start + 1)
    job.fresh.add(start, start + 1)
    found(watched, "not any more", jobs=["j"])


def test_a_job_that_should_have_ended_is_found(watched, books):
    job = books.jobs["j"]
    job.life = type(job.life)(1, input_ended=False)
    found(watched, "has not ended", jobs=["j"])


def test_failures_of_tasks_that_are_not_settled_are_found(watched, books):
    books.jobs["j"].failed_set.add(0, 40)
    found(watched, "more failed", jobs=["j"])


def test_a_job_missing_in_its_queue_is_found(watched, books):
    books.jobs["j"].work_class.jobs.clear()
    found(watched, "missing in its class", jobs=["j"])


def test_a_lease_missing_at_its_job_is_found(watched, books):
    lease = lease_of(books, "a")
    del books.jobs["j"].leases[lease.id]
    found(watched, "missing at its job", nodes=["a"])


def test_a_lease_missing_at_its_node_is_found(watched, books):
    lease = lease_of(books, "a")
    del books.nodes["a"].leases[lease.id]
    found(watched, "missing at its node", nodes=["a"])


def test_a_lease_that_only_its_node_and_its_job_know_is_found(watched, books):
    lease = lease_of(books, "a")
    del books.leases[lease.id]
    found(watched, "accounted for|stale lease", leases=[lease.id])


def test_a_stale_lease_at_a_job_is_found(watched, books):
    books.jobs["j"].leases[99] = lease_of(books, "a")
    found(watched, "stale lease", jobs=["j"])


def test_a_lease_that_goes_without_a_word_is_found(watched, books):
    books.leases.popitem()
    found(watched, "without a word")


def test_a_wrong_count_by_priority_is_found(watched, books):
    books.priorities[0] += 1
    found(watched, "by priority")


def test_a_node_that_goes_with_its_leases_is_found(watched, books):
    del books.nodes["a"]
    found(watched, "at a node that is gone|is gone and has leases", nodes=["a"])


def test_an_ended_job_with_leases_is_found(watched, books):
    del books.jobs["j"]
    found(watched, "has ended and has leases|a job that is gone", jobs=["j"])


def test_a_reservation_beyond_capacity_is_found(watched, books):
    lease_of(books, "b").reserved += 1
    found(watched, "reserve", nodes=["b"])


def test_a_node_that_is_not_ready_and_still_matched_is_found(watched, books):
    books.nodes["a"].presence = Away(99.0)
    found(watched, "wrong classes", nodes=["a"])


def test_a_node_missing_in_its_class_is_found(watched, books):
    del books.jobs["j"].work_class.ready["a"]
    found(watched, "missing in a class", nodes=["a"])


def test_a_wrong_rank_is_found(watched, books):
    work_class = books.jobs["j"].work_class
    work_class.hungry.put(books.nodes["a"], 3)
    found(watched, "another rank", nodes=["a"])


@pytest.mark.parametrize("name", ["slots", "power"])
def test_wrong_sums_of_a_class_are_found(watched, books, name):
    work_class = books.jobs["j"].work_class
    setattr(work_class, name, getattr(work_class, name) + 1)
    found(watched, f"{name} (is|are) counted wrong", nodes=["a"])


def test_an_idle_node_beside_pending_work_is_found(watched, books):
    node, job = books.nodes["b"], books.jobs["j"]
    (lease,) = node.leases.values()
    job.front.add(*next(lease.unfinished.ranges()))
    books.leases.pop(lease.id), job.leases.pop(lease.id), node.leases.pop(lease.id)
    books.priorities[0] -= 1
    job.work_class.requeue(job)
    books.rank(node, job.work_class)
    found(watched, "which has room", nodes=["b"])


def test_a_copy_that_has_more_than_its_original_is_found(make_bench):
    bench = make_bench()
    bench.node("a").job("j", 6, counting=True)
    bench.node("b")
    check = bench.scheduler.touched_check()
    books = bench.scheduler._books
    original = lease_of(books, "a")
    copy = books.grant(
        books.jobs["j"], books.nodes["b"], original.unfinished.first, original.unfinished.end, original=original
    )
    check.check(books.effects, nodes=["a", "b"])
    original.unfinished.discard(original.unfinished.first, original.unfinished.first + 1)
    with pytest.raises(AssertionError, match="more than its original"):
        check.check([], leases=[copy.id])


def test_results_name_their_job(watched, books):
    books.jobs["j"].fresh.discard(39, 40)
    with pytest.raises(AssertionError, match="accounted for"):
        watched.check.check([Persist(AddResults("j", ()))])
