"""How many tasks a lease has."""

import pytest


def test_the_first_leases_are_a_couple_of_tasks_per_slot(bench):
    assert bench.node(slots=3).job("j", 1000).granted == [("a", 0, 6)]


def test_few_tasks_are_spread_over_the_nodes(bench):
    for name in "abcd":
        bench.node(name)
    assert bench.job("j", 4, counting=True).granted == [(name, index, index + 1) for index, name in enumerate("abcd")]


def test_leases_grow_by_a_bounded_factor_and_then_reach_the_target(bench):
    bench.node(slots=2).job("j", 10_000_000, counting=True)
    sizes, grants = [], bench.grants
    while len(sizes) < 8:
        grant = grants.pop(0)
        size = grant.lease.stop - grant.lease.start
        sizes.append(size)
        bench.done(grant, elapsed_s=size * 1e-5)
        grants += bench.grants
    assert sizes[:3] == [4, 64, 16 * (4 + 64)]
    assert sizes[-1] * 1e-5 / 2 == pytest.approx(1.0, rel=0.05), "one second of work for each slot"


def test_a_million_trivial_tasks_take_few_leases(bench):
    bench.node(slots=2).job("j", 1_000_000, counting=True)
    leases, grants = 0, bench.grants
    while grants:
        grant = grants.pop(0)
        leases += 1
        bench.done(grant, elapsed_s=(grant.lease.stop - grant.lease.start) * 1e-6)
        grants += bench.grants
    assert bench.ends == [("j", "done")]
    assert leases < 20


def test_large_leases_end_at_the_edge_of_a_page(bench):
    bench.node(slots=2).job("j", 1_000_000, counting=True)
    grants = bench.grants
    for _ in range(6):
        grant = grants.pop(0)
        bench.done(grant, elapsed_s=(grant.lease.stop - grant.lease.start) * 1e-5)
        grants += bench.grants
    large = [each for each in grants if each.lease.stop - each.lease.start > 3 * 4096]
    assert large
    assert all(each.lease.stop % 4096 == 0 for each in large)


def test_over_the_tail_leases_shrink_with_what_is_left(bench):
    for name in "ab":
        bench.node(name)
    bench.job("j", 2000, counting=True)
    sizes, grants = [], bench.grants
    while grants:
        grant = grants.pop(0)
        size = grant.lease.stop - grant.lease.start
        sizes.append(size)
        bench.done(grant, elapsed_s=size * 0.005)
        grants += bench.grants
    largest = sizes.index(max(sizes))
    assert sum(sizes) == 2000
    assert sizes[largest:-1] == sorted(sizes[largest:-1], reverse=True)
    assert sizes[-2] < max(sizes) / 8


def test_a_lease_fills_the_free_slots_even_if_tasks_are_long(bench):
    bench.node(slots=8).job("j", 100)
    (first,) = bench.grants
    grants = []
    for index in range(16):
        bench.done(first, index, index + 1, elapsed_s=50.0)
        grants += bench.grants
    assert sum(lease.reserved for lease in bench.held_by("a")) == 8
    bench("on_node_changed", "a", bench.info(slots=64), True, "")
    assert [each.lease.stop - each.lease.start for each in bench.grants] == [56]


def test_a_node_found_slow_at_a_job_gets_smaller_leases(bench):
    bench.node("a").node("b").job("j", 1_000_000, counting=True)
    sizes, grants = {"a": [], "b": []}, bench.grants
    for _ in range(40):
        grant = grants.pop(0)
        size = grant.lease.stop - grant.lease.start
        sizes[grant.node].append(size)
        bench.done(grant, elapsed_s=size * (0.001 if grant.node == "a" else 0.004), after=0.1)
        grants += bench.grants
    assert sizes["b"][-1] < sizes["a"][-1] / 2


def test_absurd_times_are_ignored(bench):
    bench.node().job("j", 100)
    grants = bench.grants
    for elapsed_s in (float("nan"), float("inf"), -1.0, 0.0):
        grant = grants.pop(0)
        bench.done(grant, elapsed_s=elapsed_s)
        grants += bench.grants
    assert grants
