"""From what the state has to a scheduler that goes on: the part of a hub's start that does no I/O.

The hub and the simulator start through this same code. Reading the state is the caller's part.
"""

from collections.abc import Mapping

from fallow.hub.core.job_book import EndedView
from fallow.model.ids import JobId
from fallow.model.job import ResultsOf
from fallow.scheduler.effects import Effects
from fallow.scheduler.scheduler import Scheduler
from fallow.state.state import Recovered


def absent_parents(recovered: Recovered) -> list[JobId]:
    """Return the jobs that are not among the unfinished ones, whose results are inputs of those."""
    known = {job.spec.id for job in recovered.jobs}
    parents = [job.spec.inputs.parent for job in recovered.jobs if isinstance(job.spec.inputs, ResultsOf)]
    return [each for each in dict.fromkeys(parents) if each not in known]


def restore(scheduler: Scheduler, recovered: Recovered, parents: Mapping[JobId, EndedView], now: float) -> Effects:
    """Give a new scheduler what the last hub left: jobs, then the leases that nodes may still hold.

    parents: those of `absent_parents` that the state has.
    """
    effects: Effects = []
    for job in recovered.jobs:
        inputs = job.spec.inputs
        if isinstance(inputs, ResultsOf) and inputs.parent in parents:
            effects += restore_parent(scheduler, parents[inputs.parent], now)
        effects += scheduler.restore(job, now)
    for lease, node in recovered.leases:
        effects += scheduler.restore_lease(lease, node, now)
    return effects


def restore_parent(scheduler: Scheduler, parent: EndedView, now: float) -> Effects:
    """Let the scheduler know an ended job again, whose results are another's inputs."""
    info = parent.info
    return scheduler.on_parent_recovered(
        info.spec,
        now,
        size=info.progress.size,
        settled=parent.settled.ranges(),
        failed=parent.failed.ranges(),
        first_failures=info.first_failures,
        state=info.progress.state,
        input_ended=info.progress.input_ended,
    )
