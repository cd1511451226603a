"""What has ended leaves the hub's memory: departed nodes and clients, finished tasks.

A real hub process under fake agents (benchmarks/load). $FALLOW_GROWTH multiplies the sizes: 10 gives 10,000 departed
nodes and five million mapped tasks in each round; `python benchmarks/load/scale.py growth` prints the figures.
"""

import os
import sys
from pathlib import Path
from statistics import median

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "load"))

import growth
import load_processes

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1200)]

SIZE = int(os.environ.get("FALLOW_GROWTH", "1"))
ROUNDS = 4
"""After the first, which fills caches. The median is judged: threads and readers' caches still grow in single steps."""
CONNECTION_BYTES = 12_000
"""What the hub needs for a link at least, while it is open; a departed one must not leave a fraction of it."""


@pytest.fixture
def hub(tmp_path):
    with load_processes.Hub(tmp_path, core=None) as hub:
        yield hub


def test_nothing_stays_of_a_departed_node(hub):
    growths = growth.per_departed_node(hub, ROUNDS, 1_000 * SIZE)
    assert median(growths) < CONNECTION_BYTES / 20, growths


def test_nothing_stays_of_a_departed_client(hub):
    """Its last events are kept for a while (1,200 bytes), as those of everybody."""
    growths = growth.per_departed_client(hub, ROUNDS, 70 * SIZE)
    assert median(growths) < CONNECTION_BYTES / 3, growths


def test_finished_maps_that_stay_cost_under_5_MB_per_million_tasks(hub):
    growths = growth.per_mapped_task(hub, ROUNDS, 500_000 * SIZE)
    assert median(growths) < 5, growths


def test_finished_submits_with_futures_held_cost_under_30_MB_per_million(hub):
    growths = growth.per_submit(hub, ROUNDS, 50_000 * SIZE)
    assert median(growths) < 30, growths
