"""How much a hub grows: with nodes that come and go, with finished tasks of maps, and with single submits.

What is measured is the memory of a real hub process (USS) after a first round that fills its caches. The same functions
serve `scale.py growth`, at full size, and tests/faults/memory, at a size that fits a test.
"""

import time
from itertools import pairwise

import httpx
from load_processes import ADMIN, Agents

WAVE = 250
"""Nodes that come at a time, and go when the next have come."""
DEADLINE_S = 60.0
POLL_S = 0.1
TASKS_PER_WAVE = 1000
FIRST_CLIENTS = 250
"""Clients of the first round at least: so many fill what the hub keeps of the last ones."""


def seven(_):
    return 7


def _wait_until(is_so, what):
    deadline = time.monotonic() + DEADLINE_S
    while not (seen := is_so()):
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:g} s for {what}; last: {seen!r}"
        time.sleep(POLL_S)


def per_departed_node(hub, rounds, nodes_per_round):
    """Return the bytes that the hub grew by per departed node, for each round after the first.

    Every wave of nodes runs a map, a task per lease, before their connections break.
    """
    with hub.grid() as grid, Agents(hub, 0) as agents:
        sizes = []
        for _ in range(rounds + 1):
            for _ in range(nodes_per_round // WAVE):
                agents.ask(f"join {WAVE}")
                assert sum(grid.map(seven, range(TASKS_PER_WAVE))) == 7 * TASKS_PER_WAVE
                agents.ask(f"leave {WAVE}")
            _wait_until(lambda: not _nodes(hub), "the hub to give up all nodes")
            sizes.append(hub.use.memory_mb)
    return _slopes(sizes, nodes_per_round)


def _nodes(hub):
    answer = httpx.get(f"{hub.url}/api/v1/nodes", headers={"Authorization": f"Bearer {ADMIN}"}, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()["nodes"]


def per_departed_client(hub, rounds, clients_per_round):
    """Return the bytes that the hub grew by per client that came, ran a task and left, for each round after the first."""
    with Agents(hub, 2):
        sizes = []
        for number in range(rounds + 1):
            for _ in range(clients_per_round if number else max(clients_per_round, FIRST_CLIENTS)):
                with hub.grid() as grid:
                    assert grid.submit(seven, 0).result(DEADLINE_S) == 7
            sizes.append(hub.use.memory_mb)
    return _slopes(sizes, clients_per_round)


def per_mapped_task(hub, rounds, tasks_per_round):
    """Return the bytes that the hub grew by per finished task of named maps, which stay, for each round after the first."""
    with hub.grid() as grid, Agents(hub, 20, seconds_per_task=1e-4):
        sizes = []
        for number in range(rounds + 1):
            job = grid.map(seven, range(tasks_per_round), name=f"map {number}")
            assert sum(job) == 7 * tasks_per_round
            sizes.append(hub.use.memory_mb)
    return _slopes(sizes, tasks_per_round)


def per_submit(hub, rounds, tasks_per_round):
    """Return the bytes that the hub grew by per finished single submit whose future is held, for each round after the first."""
    with hub.grid() as grid, Agents(hub, 20, seconds_per_task=1e-4):
        sizes, futures = [], []
        for _ in range(rounds + 1):
            fresh = [grid.submit(seven, number) for number in range(tasks_per_round)]
            assert sum(future.result(DEADLINE_S) for future in fresh) == 7 * tasks_per_round
            futures += fresh
            sizes.append(hub.use.memory_mb)
    return _slopes(sizes, tasks_per_round)


def _slopes(sizes_mb, count):
    return [(after - before) * 1e6 / count for before, after in pairwise(sizes_mb)]
