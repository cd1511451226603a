"""Environments as users name them: which Python and which packages their tasks shall have."""

import os
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fallow.model.errors import BadRequest

OLDEST = 11
"""Minor version that slots need, as all of Fallow."""
_PYTHON = re.compile(r"3\.\d{1,3}")


@dataclass(frozen=True, init=False)
class Environment:
    """Packages, and a Python, for tasks: `grid.map(f, xs, env=Environment(packages=["numpy==2.3", "scipy"]))`.

    It is resolved and locked once, on this computer, by uv (`pip install "fallow[envs]"`); each node builds it once, from
    wheels whose hashes the lock names, and shares it between all jobs that ask for it.
    """

    python: str | None
    """Minor version, such as "3.12"; None: that of this interpreter, which pickled functions need anyway."""
    packages: tuple[str, ...]
    """What pip takes: names with versions; also paths of wheels, and of folders of projects, which travel as wheels."""
    files: tuple[Path, ...]
    """Files with requirements."""
    builder: str
    text: str
    is_capture: bool
    constraints: tuple[str, ...]

    def __init__(
        self,
        packages: Sequence[str] = (),
        *,
        python: str | None = None,
        builder: str = "uv",
        text: str = "",
    ) -> None:
        """Name an environment.

        packages: requirements such as "numpy==2.3" or "pandas[excel]>=2", and paths that begin with "." or "/" of projects
        and of wheels. python: minor version, such as "3.12". builder, text: for builders of your own, which get the
        text as it is. Raises BadRequest.
        """
        if isinstance(packages, str):
            raise BadRequest(f"packages={packages!r} is one text; pass a list, such as [{packages!r}]")
        if python is not None and not (isinstance(python, str) and _PYTHON.fullmatch(python)):
            raise BadRequest(f'python={python!r} is not a minor version such as "3.12"')
        if python is not None and int(python.removeprefix("3.")) < OLDEST:
            raise BadRequest(f"python={python!r}: tasks need Python 3.{OLDEST} or newer")
        for each in packages:
            if not isinstance(each, str) or not each.strip() or "\n" in each or each.lstrip().startswith("-"):
                raise BadRequest(f'packages: {each!r} is not a requirement such as "numpy==2.3"')
        if builder != "uv" and packages:
            raise BadRequest(f"packages= are for uv; tell the builder {builder!r} what it needs by text=")
        self._set(python=python, packages=tuple(each.strip() for each in packages), builder=builder, text=text)

    def _set(self, **fields: Any) -> None:
        defaults = {"files": (), "is_capture": False, "constraints": ()}
        for name, value in (defaults | fields).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_project(
        cls, path: str | os.PathLike[str] = ".", *, python: str | None = None, extras: Sequence[str] = ()
    ) -> "Environment":
        """Return the environment of a project: a folder, its pyproject.toml, or a file of requirements.

        A project that is a package itself travels too, as a wheel that is built here whenever its files have changed. extras:
        optional dependencies to include. Raises BadRequest if there is no such file.
        """
        given = Path(path)
        place = given.absolute()
        if place.is_dir():
            names = ("pyproject.toml", "requirements.txt")
            place = next((place / name for name in names if (place / name).is_file()), place / names[0])
        if not place.is_file():
            raise BadRequest(f"{given}: there is no pyproject.toml or requirements.txt")
        if place.name != "pyproject.toml":
            if extras:
                raise BadRequest(f"{given}: a file of requirements has no extras")
            return _made(cls(python=python), files=(place,))
        try:
            project = tomllib.loads(place.read_text())
        except ValueError as error:
            raise BadRequest(f"{place}: {error}") from error
        if "build-system" in project:
            chosen = f"[{','.join(extras)}]" if extras else ""
            return cls([f"{place.parent}{chosen}"], python=python)
        table = project.get("project", {})
        packages = [*table.get("dependencies", [])]
        for extra in extras:
            if extra not in table.get("optional-dependencies", {}):
                raise BadRequest(f"{place}: there is no extra {extra!r}")
            packages += table["optional-dependencies"][extra]
        return cls(packages, python=python)

    @classmethod
    def capture(cls, packages: Sequence[str] = ()) -> "Environment":
        """Return what the functions that it is used for need of the packages that this interpreter has, in their versions.

        Which these are is found from the modules that a function, and the local modules that it uses, import. packages: what
        can't be seen there, such as "pandas[excel]", also in the versions of here. Raises BadRequest.
        """
        return _made(cls(packages), is_capture=True)


def _made(base: Environment, **fields: Any) -> Environment:
    made = object.__new__(Environment)
    made._set(python=base.python, packages=base.packages, builder=base.builder, text=base.text, **fields)
    return made


def with_packages(environment: Environment, packages: Sequence[str], constraints: Sequence[str]) -> Environment:
    """Return a captured environment as one of these packages."""
    base = Environment([*environment.packages, *packages], python=environment.python)
    return _made(base, constraints=tuple(constraints))


def check_environment(value: object) -> Environment | None:
    """Check the `env` option; raises BadRequest."""
    if value is None or isinstance(value, Environment):
        return value
    raise BadRequest(f'env={value!r:.80} is not a fallow.Environment, such as Environment(packages=["numpy"])')


def check_python_of(environment: Environment, function_name: str) -> None:
    """Raise BadRequest if functions of this interpreter can't be unpickled in that environment."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if environment.python not in {None, own}:
        raise BadRequest(
            f"{function_name} is pickled by Python {own}, and can't be unpickled by the environment's Python "
            f'{environment.python}: leave out python="{environment.python}", or run this program with Python '
            f"{environment.python}"
        )
