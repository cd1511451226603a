"""Random plans with faults, each from its seed alone, so that a failing one is replayed by its number."""

from random import Random

from msgspec.structs import replace

from fallow.model.requirements import Requirements
from fallow.simulator.plan import Faults, Plan, Work

CALM_AFTER_S = 3000.0
"""Faults end then, so that every run can come to its end."""

LIMIT_S = 60_000.0
"""A run that has not ended by then is stuck."""


def random_plan(seed: int) -> Plan:
    """Return a small fleet with one to three jobs and any mixture of faults."""
    random = Random(f"scenario {seed}")
    slots = random.choice([1, 2, 4])
    work: list[Work] = []
    for _ in range(random.randint(1, 3)):
        work.append(_random_work(random, work, slots))
    return Plan(
        seed=seed,
        work=tuple(work),
        nodes=random.randint(1, 8),
        slots=slots,
        slowest=1.0,
        fastest=random.choice([1.0, 3.5]),
        score_error=random.choice([0.0, 0.5]),
        join_over_s=random.choice([0.0, 20.0]),
        latency_s=random.choice([0.0005, 0.05]),
        commit_s=random.choice([0.001, 0.1]),
        faults=_random_faults(random),
        calm_after_s=CALM_AFTER_S,
        limit_s=LIMIT_S,
        state="sql",
    )


def _random_work(random: Random, before: list[Work], slots: int) -> Work:
    median_s = 10 ** random.uniform(-4, 1)
    tasks = int(min(3000, random.uniform(5, 60) / median_s + 1))
    wants = [Requirements(), Requirements(memory_bytes=3_000_000_000), Requirements(cores=min(2, slots))]
    work = Work(
        tasks=tasks,
        median_s=median_s,
        durations=random.choice(["pareto", "constant", "exponential"]),
        page=random.choice([1, 10, 4096]) if tasks < 300 else 64,
        page_gap_s=random.choice([0.0, 0.05]),
        at_s=random.uniform(0, 10),
        priority=random.choice([0, 0, 1]),
        retries=random.choice([0, 2]),
        reduces=random.random() < 0.2,
        counting=random.random() < 0.2,
        requirements=random.choice(wants) if before else Requirements(),
    )
    if before and not before[0].reduces and random.random() < 0.5:
        return replace(work, follows=0, tasks=before[0].tasks, counting=False)
    return work


def _random_faults(random: Random) -> Faults:
    def sometimes(low_s: float, high_s: float) -> float:
        return random.choice([0.0, 0.0, random.uniform(low_s, high_s)])

    return Faults(
        agent_killed_s=sometimes(30, 300),
        node_gone_s=sometimes(60, 600),
        node_leaves_s=sometimes(60, 600),
        link_cut_s=sometimes(10, 100),
        link_mute_s=sometimes(60, 300),
        slowdown_s=sometimes(30, 200),
        hub_killed_s=sometimes(20, 200),
        lost=random.choice([0.0, 0.0, 0.01, 0.05]),
        doubled=random.choice([0.0, 0.02, 0.1]),
        delayed=random.choice([0.0, 0.02, 0.1]),
        raising=random.choice([0.0, 0.0, 0.02, 0.3]),
        crashing=random.choice([0.0, 0.0, 0.02]),
        killers=random.choice([0, 0, 0, 1]),
    )
