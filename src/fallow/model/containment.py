"""How far a task is kept from the computer that runs it: the level of its sandbox, its limits, its image."""

from collections.abc import Mapping
from typing import Any

import msgspec

from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.model.levels import Level, parse_level, strongest
from fallow.model.requirements import MAX_CORES, MAX_MEMORY_BYTES, MAX_WORD, SHOWN, parse_size

MAX_IMAGE = 500
"""Characters in the name of an image."""
MAX_PROCESSES = 1 << 22
"""Linux knows no more process ids."""


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one task may use at most; None: no limit of its own. A task over its memory is ended."""

    memory_bytes: int | None = None
    cpus: float | None = None
    """Share of processors, 1.5 for one and a half."""
    processes: int | None = None
    """Processes and threads at a time."""
    disk_bytes: int | None = None
    """Files in its working folder."""


class Containment(msgspec.Struct, frozen=True, omit_defaults=True):
    """What contains the tasks of a job, beside the level that its requirements ask for."""

    network: bool | None = None
    """None: as the level has it (off from "bubblewrap" on)."""
    limits: Limits = Limits()
    image: str | None = None
    """Name of a container image."""
    image_archive: Digest | None = None
    """Blob with a container image as a tar file."""
    python: str | None = None
    """Minor version that functions need of the image's interpreter, such as "3.11"; None: any will do."""

    @property
    def wants_image(self) -> bool:
        return self.image is not None or self.image_archive is not None


def parse_limits(given: Mapping[str, Any] | None) -> Limits:
    """Read the `limits=` of a call; raises BadRequest that names the faulty key."""
    if given is not None and not isinstance(given, Mapping):
        raise BadRequest(f'limits={given!r:.{SHOWN}} is not a mapping such as {{"memory": "200MB"}}')
    wanted = dict(given or {})
    memory, disk = (
        None if (size := wanted.pop(key, None)) is None else parse_size(size, f"limits: {key}")
        for key in ("memory", "disk")
    )
    cpus, processes = wanted.pop("cpus", None), wanted.pop("processes", None)
    if cpus is not None and (not isinstance(cpus, (int, float)) or isinstance(cpus, bool)):
        raise BadRequest(f"limits: cpus={cpus!r:.{SHOWN}} is not a number above 0")
    if processes is not None and (not isinstance(processes, int) or isinstance(processes, bool)):
        raise BadRequest(f"limits: processes={processes!r:.{SHOWN}} is not a whole number of at least 1")
    if wanted:
        known = "memory, cpus, processes, disk"
        raise BadRequest(f"limits: unknown key {', '.join(map(repr, wanted)):.{SHOWN}}; known are {known}")
    limits = Limits(memory, None if cpus is None else float(cpus), processes, disk)
    check_limits(limits)
    return limits


def parse_containment(given: Mapping[str, Any], image: str | None) -> Containment:
    """Read the `network=` and `limits=` of a call; raises BadRequest that names the faulty one. image: its container's name."""
    network = given.get("network")
    if network is not None and not isinstance(network, bool):
        raise BadRequest(f"network={network!r:.80} is not True or False")
    containment = Containment(network=network, limits=parse_limits(given.get("limits")), image=image)
    check_containment(containment)
    return containment


def minimum_level(given: Mapping[str, Any], containment: Containment, *, has_image: bool) -> Level | None:
    """Return the weakest sandbox that does what is asked for."""
    sandbox = given.get("sandbox")
    level = None if sandbox is None else parse_level(sandbox)
    if has_image:
        if level not in {None, "container"}:
            raise BadRequest(f'sandbox={level!r} with a container image: leave it out, or say "container"')
        return "container"
    if containment.network is False:  # nothing weaker can keep a task from it
        return strongest([level or "bubblewrap", "bubblewrap"])
    return level


def check_limits(limits: Limits) -> None:
    """Raise BadRequest unless all numbers are in bounds."""
    for what, size in (("memory", limits.memory_bytes), ("disk", limits.disk_bytes)):
        if size is not None and not 0 < size < MAX_MEMORY_BYTES:
            raise BadRequest(f"limits: {what} of {size} bytes is not above 0 and within bounds")
    if limits.cpus is not None and not 0 < limits.cpus <= MAX_CORES:
        raise BadRequest(f"limits: cpus={limits.cpus} is not above 0 and up to {MAX_CORES}")
    if limits.processes is not None and not 0 < limits.processes <= MAX_PROCESSES:
        raise BadRequest(f"limits: processes={limits.processes} is not from 1 to {MAX_PROCESSES}")


def check_containment(containment: Containment) -> None:
    """Raise BadRequest unless a containment from outside is one that a hub can keep."""
    check_limits(containment.limits)
    image, archive = containment.image, containment.image_archive
    if image is not None and not (0 < len(image) <= MAX_IMAGE and image.isprintable() and " " not in image):
        raise BadRequest(f"the image name {image[:SHOWN]!r} is not a word of 1 to {MAX_IMAGE} characters")
    if containment.python is not None and len(containment.python) > MAX_WORD:
        raise BadRequest(
            f"containment: the python {containment.python:.{SHOWN}}… is over the limit of {MAX_WORD} characters"
        )
    if image is not None and archive is not None:
        raise BadRequest("an image is given by its name or as an archive, not both")
