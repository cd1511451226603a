from math import dist, isclose

import pytest

from fallow.demo.nbody import MAX_DRIFT, SOFTENING, accelerations, plummer_sphere, simulate


def test_two_bodies_pull_each_other_as_newton_says():
    pulls, potential = accelerations([(-1.0, 0.0, 0.0), (1.0, 0.0, 0.0)], opening_angle=0)
    softened = 4 + SOFTENING**2
    assert isclose(pulls[0][0], 0.5 * 2 / softened**1.5)
    assert isclose(pulls[1][0], -pulls[0][0])
    assert isclose(potential, -0.25 / softened**0.5)


def test_bodies_at_one_place_do_not_pull_each_other():
    pulls, _ = accelerations([(1.0, 1.0, 1.0)] * 3)
    assert pulls == [(0.0, 0.0, 0.0)] * 3


def test_cells_as_one_mass_come_close_to_all_pairs():
    places, _ = plummer_sphere(1, 200)
    exact, exact_potential = accelerations(places, opening_angle=0)
    close, close_potential = accelerations(places)
    size = sum(dist(pull, (0, 0, 0)) for pull in exact) / len(exact)
    error = sum(dist(a, b) for a, b in zip(exact, close, strict=True)) / len(exact)
    assert 0 < error < 0.01 * size
    assert isclose(close_potential, exact_potential, rel_tol=1e-3)


def test_opening_every_cell_sums_all_pairs():
    places, _ = plummer_sphere(2, 20)
    pulls, _ = accelerations(places, opening_angle=0)
    by_hand = [0.0, 0.0, 0.0]
    for other in places[1:]:
        softened = dist(places[0], other) ** 2 + SOFTENING**2
        for axis in range(3):
            by_hand[axis] += (other[axis] - places[0][axis]) / softened**1.5 / 20
    assert pulls[0] == pytest.approx(by_hand)


def test_a_cluster_starts_at_rest_around_the_origin():
    for vectors in plummer_sphere(3, 50):
        assert [sum(axis) for axis in zip(*vectors, strict=True)] == pytest.approx([0, 0, 0], abs=1e-9)


def test_energy_is_kept():
    outcome = simulate(4, bodies=32, steps=20)
    assert outcome.seed == 4
    assert abs(outcome.drift) < MAX_DRIFT
    assert 0.5 < outcome.half_mass_radius < 3


def test_the_same_seed_gives_the_same_outcome():
    assert simulate(5, bodies=8, steps=3) == simulate(5, bodies=8, steps=3)
    assert simulate(5, bodies=8, steps=3) != simulate(6, bodies=8, steps=3)
