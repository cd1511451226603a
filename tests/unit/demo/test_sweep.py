import csv
from math import exp, isclose
from xml.etree import ElementTree

import pytest

from fallow.demo.sweep import (
    TOLERANCE,
    Outbreak,
    Point,
    as_csv,
    as_svg,
    expected_share,
    mean_major,
    outbreak,
    points,
)


def test_the_sweep_covers_every_pair_once():
    found = points(values=3, seeds=2)
    assert found == [Point(r0, seed) for r0 in (0.5, 2.25, 4.0) for seed in (0, 1)]
    assert points(values=1, seeds=1) == [Point(0.5, 0)]


def test_an_outbreak_is_the_same_wherever_it_runs():
    assert outbreak(Point(2.0, 1)) == outbreak(Point(2.0, 1))
    assert 0 < outbreak(Point(2.0, 1)).reached <= 1


@pytest.mark.parametrize("r0", [1.1, 1.5, 2.0, 4.0])
def test_expected_share_solves_the_final_size_equation(r0):
    share = expected_share(r0)
    assert 0 < share < 1
    assert isclose(share, 1 - exp(-r0 * share), rel_tol=1e-6)


def test_no_major_outbreak_is_expected_up_to_1():
    assert expected_share(0.5) == expected_share(1) == 0


@pytest.mark.slow
def test_major_outbreaks_come_close_to_the_large_population():
    means = mean_major(outbreak(Point(r0, seed)) for r0 in (2.0, 3.0) for seed in range(30))
    for r0, mean in means.items():
        assert abs(mean - expected_share(r0)) < TOLERANCE


def test_minor_outbreaks_do_not_count_in_the_mean():
    assert mean_major([Outbreak(2.0, 0, 0.8), Outbreak(2.0, 1, 0.001), Outbreak(0.5, 0, 0.01)]) == {2.0: 0.8}


def test_table_has_a_line_for_each_outbreak():
    rows = list(csv.reader(as_csv([Outbreak(2.0, 0, 0.75)]).splitlines()))
    assert rows == [["r0", "seed", "reached"], ["2.0", "0", "0.75"]]


def test_plot_has_a_dot_for_each_outbreak():
    outbreaks = [Outbreak(r0, seed, 0.5) for r0 in (1.0, 2.0) for seed in range(3)]
    tree = ElementTree.fromstring(as_svg(outbreaks))
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}circle")) == 6
    ElementTree.fromstring(as_svg(outbreaks[:1]))
