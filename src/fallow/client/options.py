"""The options common to map, filter, submit and the rest, checked where they are given."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from fallow.client.environments import Environment, check_environment
from fallow.model.containment import Containment, minimum_level, parse_containment
from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.model.job import MAX_CHECKPOINT_S, MAX_PRIORITY
from fallow.model.requirements import Requirements, parse_requirements

MAX_RETRIES = 1_000_000
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Minor version of this interpreter: what is pickled here can be unpickled there."""


class OptionDict(TypedDict, total=False):
    """Options as keyword arguments."""

    requires: Mapping[str, Any] | None
    priority: int
    retries: int
    max_retries: int
    timeout: float | None
    name: str | None
    if_exists: str
    speculate: bool
    sandbox: str | None
    network: bool | None
    limits: Mapping[str, Any] | None
    container: str | os.PathLike[str] | None
    env: Environment | None
    checkpoint_s: float


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Checked options of one job."""

    requirements: Requirements
    priority: int = 0
    retries: int = 0
    max_retries: int = 3
    timeout_s: float | None = None
    name: str | None = None
    if_exists: str = "error"
    speculate: bool = True
    containment: Containment = Containment()
    image_file: Path | None = None
    """A container image as a tar file, to travel with the job."""
    env: Environment | None = None
    checkpoint_s: float = 30.0
    executables: tuple[tuple[str, Digest], ...] = ()
    """Of a program, by platform."""

    def of_spec(self) -> dict[str, Any]:
        """Return what goes into a job's spec as it is."""
        fields = (
            "requirements", "priority", "retries", "max_retries", "timeout_s", "speculate", "containment", "checkpoint_s"
        )  # fmt: skip
        return {field: getattr(self, field) for field in fields} | {"executables": dict(self.executables)}


def parse_options(given: Mapping[str, Any]) -> Options:
    """Check options; raises BadRequest that names the faulty one."""
    unknown = set(given) - set(OptionDict.__annotations__)
    if unknown:
        known = ", ".join(OptionDict.__annotations__)
        raise BadRequest(f"unknown option {', '.join(sorted(unknown))}; known are {known}")
    timeout = given.get("timeout")
    if timeout is not None and not (_is_number(timeout) and 0 < timeout < float("inf")):
        raise BadRequest(f"timeout={timeout!r} is not a number of seconds above 0")
    checkpoint_s = given.get("checkpoint_s", 30.0)
    if not (_is_number(checkpoint_s) and 0 < checkpoint_s <= MAX_CHECKPOINT_S):
        raise BadRequest(f"checkpoint_s={checkpoint_s!r:.80} is not a number of seconds above 0")
    name = given.get("name")
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()):
        raise BadRequest(f"name={name!r} is not a printable text of 1 to 200 characters")
    if_exists = given.get("if_exists", "error")
    if if_exists not in {"error", "attach", "replace"}:
        raise BadRequest(f'if_exists={if_exists!r} is not "error", "attach" or "replace"')
    requirements = parse_requirements(given.get("requires"), PYTHON)
    name_of_image, image_file = _image(given.get("container"))
    containment = parse_containment(given, name_of_image)
    has_image = name_of_image is not None or image_file is not None
    level = minimum_level(given, containment, has_image=has_image)
    if level is not None:
        requirements = msgspec.structs.replace(requirements, sandbox=level)
    if has_image:  # the interpreter is the image's
        containment = msgspec.structs.replace(containment, python=requirements.python)
        requirements = msgspec.structs.replace(requirements, python=None)
    env = check_environment(given.get("env"))
    if env is not None:
        if has_image:
            raise BadRequest("env= with a container image: the image has its own packages; leave out one of the two")
        requirements = msgspec.structs.replace(requirements, python=None, builds=True)
    return Options(
        requirements=requirements,
        priority=_whole("priority", given.get("priority", 0), -MAX_PRIORITY, MAX_PRIORITY),
        retries=_whole("retries", given.get("retries", 0), 0, MAX_RETRIES),
        max_retries=_whole("max_retries", given.get("max_retries", 3), 0, MAX_RETRIES),
        timeout_s=None if timeout is None else float(timeout),
        name=name,
        if_exists=if_exists,
        speculate=bool(given.get("speculate", True)),
        containment=containment,
        image_file=image_file,
        env=env,
        checkpoint_s=float(checkpoint_s),
    )


def _image(container: object) -> tuple[str | None, Path | None]:
    """Return what `container=` names: an image, or its tar file, which is told by being a path."""
    if container is None:
        return None, None
    if isinstance(container, str) and not container.startswith(("/", "./", "../")):
        return container, None
    if not isinstance(container, (str, os.PathLike)):
        raise BadRequest(f"container={container!r:.80} is neither the name of an image nor the path of its tar file")
    path = Path(container).absolute()
    if not path.is_file():
        raise BadRequest(f"container: there is no file {path}")
    return None, path


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequest(f"{name}={value!r} is not a whole number from {low} to {high}")
    return value
