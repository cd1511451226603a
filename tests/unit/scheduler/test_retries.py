"""What is tried again, where, and how often."""

from fallow.model.failure import Failure


def run_out(bench, **about):
    """Let the one task crash until it fails; return the nodes that it ran on."""
    nodes = []
    while bench.grants:
        nodes.append(bench.grant.node)
        bench.broke(bench.grant, **about)
    return nodes


def test_a_raised_exception_is_retried_as_often_as_asked(bench):
    bench.node().job("j", 1, retries=2)
    for _ in range(2):
        bench.done(bench.grant, failures=(0,))
        assert bench.counts == []
    bench.done(bench.grant, failures=(0,))
    assert bench.counts == [(0, 1)]
    assert bench.failures[0].attempts == 3


def test_a_retry_that_succeeds_leaves_nothing_behind(bench):
    bench.node(slots=2).job("j", 4, retries=1, seal=False)
    bench.done(bench.grant, failures=(1,))
    assert bench.counts == [(0, 1, 2, 4)]
    assert bench.failures == []
    assert bench.granted == [("a", 1, 2)], "at the front"
    bench.done(bench.grant)
    assert bench.progress().failed == 0
    assert bench.scheduler._books.jobs["j"].troubles == {}


def test_a_timeout_counts_as_the_tasks_own_failure(bench):
    bench.node().job("j", 1, retries=1)
    bench.broke(bench.grant, kind="timeout")
    assert bench.failures == []
    bench.broke(bench.grant, kind="timeout", message="ran over its timeout of 3 s")
    assert [(each.kind, each.attempts) for each in bench.failures] == [("timeout", 2)]
    assert bench.ends == [("j", "done")]


def test_a_crash_blames_exactly_its_task(bench):
    bench.node(slots=2).job("j", 4, seal=False)
    grant = bench.grant
    bench.broke(grant, 1)
    assert bench.granted == [], "the node is full"
    assert bench.done(grant, 2, 4).counts == [(2, 4)]
    assert bench.progress().failed == 0


def test_a_crashed_task_goes_elsewhere_if_there_is_an_elsewhere(bench):
    bench.node("a").node("b").node("c").job("j", 1)
    assert sorted(run_out(bench)[:3]) == ["a", "b", "c"]


def test_a_crashed_task_is_tried_on_the_same_node_if_it_is_the_only_one(bench):
    bench.node("a").job("j", 1, max_retries=2)
    assert run_out(bench) == ["a", "a", "a"]
    assert bench.ends == [("j", "done")]


def test_a_task_that_crashes_each_time_runs_four_times_by_default(bench):
    assert run_out(bench.node("a").job("j", 1)) == ["a"] * 4
    assert [(each.kind, each.attempts) for each in bench.failures] == [("crashed", 4)]


def test_the_record_of_a_crash_says_all_that_is_known(bench):
    bench.node("a").node("b").job("j", 1, max_retries=1)
    run_out(bench, signal="SIGSEGV", peak_memory_bytes=1_200_000_000, output="loading…\n")
    (failure,) = bench.failures
    assert failure.kind == "crashed"
    assert failure.attempts == 2
    for part in ("SIGSEGV", "1.2 GB", "2 times", "a, b", "loading…"):
        assert part in failure.message


def test_the_nodes_own_words_stand_first_in_the_record(bench):
    bench.node().job("j", 1, max_retries=0)
    bench.broke(bench.grant, exit_code=3, message="the slot ended")
    assert bench.failures[0].message.startswith("the slot ended; its process died with exit code 3; tried 1 times")


def test_a_crash_without_details(bench):
    bench.node().job("j", 1, max_retries=0)
    bench.broke(bench.grant)
    assert bench.failures[0].message == "its process died; tried 1 times on a"


def test_crashes_and_raises_are_counted_apart(bench):
    bench.node().job("j", 1, retries=1, max_retries=1)
    bench.broke(bench.grant)
    bench.done(bench.grant, failures=(0,))
    bench.broke(bench.grant)
    assert bench.failures[0].attempts == 3
    assert bench.failures[0].kind == "crashed"


def test_stale_reports_are_dropped(bench):
    bench.node("a").node("b").job("j", 1)
    old = bench.grant
    bench("on_link_closed", old.node).after(6)
    assert bench.broke(old).effects == []
    assert bench.returned(old, (0, 1)).effects == []
    new = bench.held_by("b" if old.node == "a" else "a")[0]
    assert bench("on_task_broke", "nobody", new.id, "j", bench_failure(0)).effects == []
    assert bench("on_task_broke", new.node.id, new.id, "j", bench_failure(55)).effects == []


def bench_failure(index):
    from fallow.model.failure import Failure

    return Failure(index=index, kind="crashed")


def test_a_task_in_trouble_does_not_wait_for_the_long_queue_of_its_job(bench):
    bench.node("a").node("b").job("j", 1_000_000, counting=True)
    grants = bench.grants
    for _ in range(20):
        grant = grants.pop(0)
        bench.done(grant, elapsed_s=1e-5 * (grant.lease.stop - grant.lease.start))
        grants += bench.grants
    bench.broke(grants[0])
    index = grants[0].lease.start
    bench.done(next(each for each in grants if each.node != grants[0].node), elapsed_s=0.1)
    assert index in [each.lease.start for each in bench.grants]


def test_tasks_in_trouble_wait_behind_those_of_higher_priority(bench):
    bench.node("a").job("j", 1)
    grant = bench.grant
    bench.job("urgent", 50, priority=2)
    urgent = bench.grants
    bench.broke(grant)
    assert bench.grants == []
    while urgent:
        grant = urgent.pop(0)
        bench.done(grant, elapsed_s=2.0 * (grant.lease.stop - grant.lease.start))
        urgent += [each for each in bench.grants if each.lease.job == "urgent"]
    assert [each.lease.job for each in bench.grants] == ["j"]


def test_attempts_are_held_only_of_what_failed_lately(bench):
    bench.node(slots=2).job("j", 3000, counting=True, retries=1)
    grants, (job,) = bench.grants, bench.scheduler._books.jobs.values()
    while grants:
        grant = grants.pop(0)
        size = grant.lease.stop - grant.lease.start
        bench.done(grant, failures=tuple(range(grant.lease.start, grant.lease.stop)), elapsed_s=0.1 * size)
        assert len(job.troubles) <= 40, "two leases of a second"
        grants += bench.grants
    assert (job.failed, job.troubles) == (3000, {})


# --- nodes that lack what a job needs -----------------------------------------------------------


def lacks(bench, node):
    """The first task of the node's first lease finds no program there."""
    lease = bench.held_by(node)[0]
    fault = {"kind": "environment", "type_name": "NodeFault", "message": "there is no x", "is_of_node": True}
    bench("on_task_broke", node, lease.id, lease.job.id, Failure(index=lease.unfinished.first, **fault))


def avoided(bench):
    return bench.scheduler._books.jobs["j"].work_class.avoided


def test_a_node_that_lacks_the_program_gets_no_more_of_the_job_while_another_can_take_it(bench):
    bench.node("poor").node("rich").job("j", 40)
    (todo,) = [each for each in bench.grants if each.node == "rich"]
    lacks(bench, "poor")
    assert bench.grants == []
    todo = [todo]
    while todo:
        bench.done(todo.pop())
        assert {each.node for each in bench.grants} <= {"rich"}
        todo += bench.grants
    left = sum(len(lease.unfinished) for lease in bench.held_by("poor"))
    assert (bench.progress().settled, bench.progress().failed) == (40 - left, 0)


def test_it_is_asked_for_the_rest_of_what_it_has(bench):
    bench.node("poor", slots=4).job("j", 40)
    grant = bench.grant
    bench.node("rich")
    lacks(bench, "poor")
    assert [(each.node, each.lease) for each in bench.recalls] == [("poor", grant.lease.id)]


def test_other_jobs_go_on_there(bench):
    bench.node("poor").node("rich").job("j", 2)
    lacks(bench, "poor")
    assert avoided(bench) == {"poor"}
    assert bench.job("k", 1).granted == [("poor", 0, 1)]


def test_when_no_node_has_it_all_are_tried_and_named(bench):
    bench.node("a").node("b").job("j", 1)
    nodes = []
    while bench.grants:
        nodes.append(bench.grant.node)
        lacks(bench, nodes[-1])
    assert len(nodes) == 4
    assert set(nodes[:2]) == {"a", "b"}
    assert bench.failures[0].message == f"there is no x on nodes {nodes[0]}, {nodes[1]}; tried 4 times"


def test_a_node_that_has_run_tasks_of_the_job_is_not_avoided(bench):
    bench.node("a").node("b").job("j", 400)
    for grant in bench.grants:
        if grant.node == "a":
            bench.done(grant)
    lacks(bench, "a")
    assert avoided(bench) == frozenset()


def test_a_node_that_comes_later_takes_them_and_those_avoided_are_back_when_it_has_gone(bench):
    bench.node("poor", slots=2).job("j", 4)
    lacks(bench, "poor")
    assert avoided(bench) == frozenset(), "there is no other"
    bench.node("rich")
    lacks(bench, "poor")
    assert avoided(bench) == {"poor"}
    assert "poor lacked what it needs" in bench.explain()
    bench("on_link_closed", "rich")
    assert avoided(bench) == frozenset()
