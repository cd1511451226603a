"""Random fleets with random faults: nothing is lost, doubled or stuck, and the scheduler never contradicts itself.

Every event of these runs is followed by a full check of the scheduler; the hub commits to SQLite and recovers from it, and a
naive journal referees both.
`FALLOW_SCENARIOS=first:last` runs other seeds than the usual ones.
"""

import os

import pytest

from fallow.simulator.fleet import Fleet
from fallow.simulator.scenarios import random_plan

FIRST, LAST = map(int, os.environ.get("FALLOW_SCENARIOS", "0:40").split(":"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_random_faults(seed):
    try:
        report = Fleet(random_plan(seed)).run()
    except AssertionError as error:
        pytest.fail(f"{error}\nreplay: python -m fallow.simulator --scenario --seed {seed}")
    assert report.makespan_s > 0
