"""Corners that the other files pass by."""

from fallow.model.page import ResultPage


def test_a_node_whose_slots_are_all_on_long_tasks_is_not_granted_more(bench):
    bench.node(slots=1).job("j", 100_000, counting=True)
    grants = bench.grants
    for _ in range(3):
        grant = grants.pop(0)
        bench.done(grant, elapsed_s=0.001 * (grant.lease.stop - grant.lease.start))
        grants += bench.grants
    last = grants[-1]
    for grant in grants[:-1]:
        bench.done(grant, elapsed_s=0.001 * (grant.lease.stop - grant.lease.start))
    bench.now += 3
    bench.beat("a", running=[(last.lease.id, last.lease.start, 3.0)])
    lease = bench.scheduler._books.leases[last.lease.id]
    bench.returned(last, (last.lease.start + 1, last.lease.stop))
    assert len(lease.unfinished) == 1
    assert bench.grants == [], "one task is left there, but the slot is on it for who knows how long"


def test_fragments_that_come_back_are_all_granted_again(bench):
    bench.node(slots=1).job("x", 100)
    first = bench.grant
    bench.done(first, elapsed_s=2e-6)
    (second,) = bench.grants
    bench.done(second, second.lease.start, second.lease.start + 20, elapsed_s=2e-5)
    last = bench.grants[0] if bench.grants else second
    bench.returned(last, *((index, index + 1) for index in range(last.lease.start + 21, last.lease.stop, 2)))
    assert len(bench.grants) == 23, "each fragment is a lease of its own"


def test_a_draining_node_is_left_alone_until_it_is_empty(bench):
    bench.node("busy", slots=2, tags=("x",)).job("other", 2, requires={"tags": ("x",)}).job("j", 1)
    other = bench.held_by("busy")[0]
    for number in range(3):
        bench.node(f"n{number}")
        for lease in bench.held_by(f"n{number}"):
            bench.beat(f"n{number}", running=[(lease.id, 0, 1.5)])
        bench.now += 2
        bench("on_link_closed", f"n{number}").after(5.5)
        bench.beat("busy")
    node = bench.scheduler._books.nodes["busy"]
    if node.drains_for is None:
        bench.beat("busy")
    assert node.drains_for is not None
    bench("on_results", "busy", other.id, "other", (ResultPage(0, 1, b"", elapsed_s=1.0),))
    assert bench.grants == []
    bench("on_results", "busy", other.id, "other", (ResultPage(1, 2, b"", elapsed_s=1.0),))
    assert bench.granted == [("busy", 0, 1)]


def test_one_node_drains_for_a_suspect_task_and_stops_when_another_run_settles_it(bench):
    for name in ("one", "two"):
        bench.node(name, slots=2, tags=("x",))
    bench.job("other", 4, requires={"tags": ("x",)}, counting=True).job("j", 1, seal=False)
    late = None
    for number in range(3):
        bench.node(f"n{number}")
        (lease,) = bench.held_by(f"n{number}")
        late = late or lease
        bench.beat(f"n{number}", running=[(lease.id, 0, 1.5)])
        bench.now += 2
        bench("on_link_closed", f"n{number}").after(5.5)
        bench.beat("one")
        bench.beat("two")
    draining = [node for node in bench.scheduler._books.nodes.values() if node.drains_for]
    assert len(draining) == 1
    bench("on_results", "n0", late.id, "j", (ResultPage(0, 1, b""),))
    assert bench.counts == [(0, 1)]
    bench.beat(draining[0].id)
    bench("on_inputs_added", "j", 2)
    for lease in bench.held_by(draining[0].id):
        bench(
            "on_results",
            draining[0].id,
            lease.id,
            lease.job.id,
            (ResultPage(lease.unfinished.first, lease.unfinished.end, b"", elapsed_s=1.0),),
        )
    assert draining[0].drains_for is None


def test_two_suspect_tasks_run_alone_one_after_the_other(bench):
    bench.job("j", 2)
    for number in range(3):
        bench.node(f"n{number}", slots=2)
        for lease in bench.held_by(f"n{number}"):
            for index in range(lease.unfinished.first, lease.unfinished.end):
                lease.running[index] = bench.now
        bench("on_link_closed", f"n{number}").after(5.5)
    assert bench.node("z", slots=2).granted == [("z", 0, 1)]
    assert bench.done(bench.grant).granted == [("z", 1, 2)]
    assert bench.done(bench.grant).ends == [("j", "done")]


def test_tasks_in_trouble_do_not_pile_up_at_one_full_node(bench):
    bench.node("a", slots=1).job("j", 100_000, counting=True)
    grants = bench.grants
    for _ in range(4):
        grant = grants.pop(0)
        bench.done(grant, elapsed_s=1e-3 * (grant.lease.stop - grant.lease.start))
        grants += bench.grants
    last = grants[-1]
    for index in range(last.lease.start, last.lease.start + 5):
        bench.broke(last, index)
    assert sum(lease.is_careful for lease in bench.held_by("a")) == 1


def test_a_job_keeps_its_place_by_the_oldest_inputs_that_still_wait(bench):
    bench.job("x").job("y")
    bench("on_inputs_added", "x", 1)
    bench("on_inputs_added", "y", 1)
    bench("on_inputs_added", "x", 40)
    bench.node(slots=1)
    assert bench.granted == [("a", 0, 2)]
    bench.done(bench.grant, elapsed_s=20.0)
    assert [each.lease.job for each in bench.grants] == ["y"]


def test_a_joining_nodes_beat_reclaims_nothing(bench):
    bench.node().job("j", 1)
    bench("on_link_closed", "a")("on_node_joined", "a", bench.info())
    bench.now += 4
    bench("on_heartbeat", "a", (), ())
    assert bench.progress().leased == 1


def test_a_job_whose_only_task_takes_nodes_down_ends_with_the_last_of_them(bench):
    bench.job("j", 1)
    for number in range(4):
        bench.node(f"n{number}")
        (lease,) = bench.held_by(f"n{number}")
        bench.beat(f"n{number}", running=[(lease.id, 0, 1.0)])
        bench("on_link_closed", f"n{number}").after(5.5)
    assert bench.ends == [("j", "done")]
    assert bench.failures[0].kind == "lost_nodes"


def test_a_recovered_parent_that_nobody_reads_can_be_deleted(bench):
    bench.job("k", 1).job("c", follows="q")
    bench("on_parent_recovered", bench.spec("p"), size=2, settled=[(0, 2)])
    bench("on_job_deleted", "p")
    assert set(bench.scheduler._books.jobs) == {"k", "c"}


def test_a_failure_of_a_task_that_is_settled_is_left_out_of_the_page(bench):
    bench.node(slots=4).job("j", 4)
    grant = bench.grant
    bench.done(grant, 1, 2)
    bench.done(grant, 0, 4, failures=(1, 3))
    assert bench.counts == [(0, 1, 2, 4)]
    assert [each.index for each in bench.failures] == [3]


def test_a_part_that_comes_back_from_a_reduction_that_is_repeated_elsewhere(bench):
    bench.node("a").node("b").job("j", 40, counting=True, stages=("reduce",))
    grants, last = bench.grants, None
    while grants:
        grant = grants.pop(0)
        if bench.progress().settled > 20 and last is None and grant.lease.stop - grant.lease.start > 1:
            last = grant
            continue
        bench.done(grant, elapsed_s=0.5 * (grant.lease.stop - grant.lease.start), partial=True)
        grants += bench.grants
    bench.beats(60, "a", "b")
    copy = bench.grants[-1]
    bench.returned(last, (last.lease.stop - 1, last.lease.stop))
    for grant in [copy, *bench.grants]:
        bench.done(grant, grant.lease.start, min(grant.lease.stop, last.lease.stop), partial=True)
    assert bench.ends == [("j", "done")] or bench.progress().settled > 20


def test_a_reduction_of_unknown_length_is_not_repeated(bench):
    bench.node("a").job("j", 1, stages=("reduce",)).node("b").beats(30, "a", "b")
    assert bench.grants == []


def test_a_node_that_is_alone_in_one_class_still_helps_in_another(bench):
    bench.node("a", slots=6, tags=("x",)).node("b", slots=6)
    bench.job("only", 1, requires={"tags": ("x",)}).job("j", 2)
    bench.beats(2, "a", "b")
    assert bench.recalls == []
    assert bench.progress("only").leased == 1
