"""What a slot must be like to serve a job: a slot of another kind is replaced first."""

from collections.abc import Sequence

import msgspec

from fallow.model.containment import Containment
from fallow.model.ids import Digest
from fallow.model.job import JobSpec
from fallow.model.levels import Level, at_least, weakest


class SlotKind(msgspec.Struct, frozen=True):
    """Jobs of one kind share warm slots. Whose jobs is not part of it: see `Slot.owner`."""

    cores: int = 1
    """Threads of its numerical libraries."""
    environment: Digest | None = None
    """Of which the interpreter is; None: the node's own."""
    sandbox: Level = "process"
    containment: Containment = Containment()


def kind_of(spec: JobSpec, default: Level, levels: Sequence[Level]) -> SlotKind:
    """Return the kind of slot that a job's tasks need here.

    default: the level that tasks have here if nothing stronger is asked for. levels: those that work.
    """
    level, wanted = default, spec.requirements.sandbox
    if spec.containment.wants_image:
        level = "container"
    elif wanted is not None and not at_least(default, wanted):
        level = weakest([each for each in levels if at_least(each, wanted)] or [wanted])
    return SlotKind(spec.requirements.cores, spec.environment, level, spec.containment)
