"""From an environment as named to its lock: exact versions and hashes, worked out by uv, once per client.

The lock names no index: each node takes the packages from wherever it gets packages from, and the hashes make sure that they
are these.
"""

import asyncio
import hashlib
import io
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import blake3

from fallow.client.environments import Environment
from fallow.model.environment import EnvironmentLock, LockedWheel, check_lock, encode_lock
from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.packages.compiling import locked_lines, locked_package, prepare, run_uv
from fallow.packages.reaching import HubPackages, answers
from fallow.packages.uv import MISSING, find_uv, index_urls, uv_environment

RESOLVE_TIMEOUT_S = 600.0
PATIENCE_S = 1.0
"""When uv takes longer, this looks whether there is a package index at all: uv itself tries for long."""
HASTE = {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "3"}
"""Where there is none: what uv has kept may do."""
NO_SOLUTION = 1
"""uv's exit code if packages don't fit together, or there are none of such a name."""
ERROR_CHARS = 8_000
"""What is kept of uv's explanation."""
MAX_WHEEL_BYTES = 1 << 30
_EPOCH = "315532800"
"""The earliest time that a zip can hold: equal sources give equal wheels."""
_SKIPPED = {"__pycache__", "build", "dist", "node_modules"}
_FROM_FILE = re.compile(r"[A-Za-z0-9._-]+\s*@\s*(file:\S+)")
_INSTALLED = re.compile(r"^[^/]+\.data/(?:purelib|platlib)/")
_EXTRAS = re.compile(r"(.*?)(\[[\w.,\s-]*\])?")


@dataclass(frozen=True)
class Locked:
    """A lock with what travels beside it."""

    digest: Digest
    data: bytes
    wheels: Mapping[Digest, bytes]
    sources: frozenset[str]
    """Paths of the wheels' modules."""

    def lacks(self, name: str, archive: bytes) -> bool:
        """Whether a local module has to travel beside the wheels. By its file: a loose module of a package's name is another one."""
        files = {each for each in _names_in(archive) if each.endswith(".py")}
        roots = files & {f"{name}/__init__.py", f"{name}.py"}  # none in a namespace
        return not (roots or files) <= self.sources


class Locker:
    """Locks environments. Asked again, it answers at once, unless files that it has read have changed."""

    def __init__(self, hub: HubPackages | None = None) -> None:
        """hub: whose package index is used where this computer reaches none."""
        self._hub = hub
        self._locked: dict[tuple[object, ...], asyncio.Future[Locked]] = {}
        self._wheels: dict[Path, tuple[tuple[object, ...], str, bytes]] = {}

    async def lock(self, environment: Environment) -> Locked:
        """Return the lock. Raises BadRequest: it can't be resolved, a project can't be built, there is no uv."""
        key = (environment, stamp_of(environment))
        found = self._locked.get(key)
        if found is None:
            found = self._locked[key] = asyncio.ensure_future(self._lock(environment))
        try:
            return await asyncio.shield(found)
        except BaseException:
            if found.done():
                self._locked.pop(key, None)  # another time it may work
            raise

    async def _lock(self, environment: Environment) -> Locked:
        python = environment.python or f"{sys.version_info.major}.{sys.version_info.minor}"
        if environment.builder != "uv":
            lock = EnvironmentLock(python=python, builder=environment.builder, text=environment.text)
            return _locked(lock, {}, frozenset())
        uv = find_uv()
        if uv is None:
            raise BadRequest(MISSING)
        with tempfile.TemporaryDirectory(prefix="fallow-lock-") as name:
            folder = Path(name)
            lines = [each for each in environment.packages if not _is_path(each)]
            wheels: dict[str, tuple[str, bytes]] = {}
            for each in _local(environment):
                filename, data = await self._wheel(uv, each)
                place = folder / f"wheel-{len(wheels)}" / filename
                place.parent.mkdir()
                place.write_bytes(data)
                wheels[place.as_uri()] = (filename, data)
                lines.append(f"{filename.partition('-')[0]}{_extras_of(each)} @ {place.as_uri()}")
            (folder / "constraints.txt").write_text("".join(f"{line}\n" for line in environment.constraints))
            command = prepare(uv, folder, python, lines)
            command += ["--constraints", "constraints.txt", *map(str, environment.files)]
            code, text, problem = await self._uv(command, folder)
        if code:
            raise BadRequest(f"the environment can't be resolved:\n{problem.replace(name + os.sep, '')}")
        return _read(text, python, wheels)

    async def _wheel(self, uv: str, requirement: str) -> tuple[str, bytes]:
        """Return name and bytes of a wheel: a file, or built from a project's folder."""
        path = _path_of(requirement)
        if path.suffix == ".whl":
            return path.name, _read_wheel(path)
        stamp = _stamp(path)
        found = self._wheels.get(path)
        if found is None or found[0] != stamp:
            with tempfile.TemporaryDirectory(prefix="fallow-wheel-") as name:
                # By way of an archive of the sources: setuptools puts files that were deleted long ago into wheels else.
                command = [uv, "build", "--python", sys.executable, "--out-dir", name, str(path)]
                code, _, problem = await self._uv(command, path, {"SOURCE_DATE_EPOCH": _EPOCH})
                made = sorted(Path(name).glob("*.whl"))
                if code or not made:
                    raise BadRequest(f"the project {path} can't be built:\n{problem}")
                found = self._wheels[path] = (stamp, made[0].name, _read_wheel(made[0]))
        return found[1], found[2]

    async def _uv(self, command: Sequence[str], folder: Path, more: Mapping[str, str] = {}) -> tuple[int, str, str]:
        """Run uv; return its exit code, its output and its explanation. If there is no package index here, with the hub's."""
        base = {**uv_environment(), **more}
        own = asyncio.ensure_future(_run(command, folder, base))
        try:
            await asyncio.wait({own}, timeout=PATIENCE_S)
            if (own.done() and own.result()[0] in {0, NO_SOLUTION}) or await answers(await index_urls()):
                return await own
        finally:
            own.cancel()
            await asyncio.gather(own, return_exceptions=True)
        code, output, problem = own.result() if not own.cancelled() else await _run(command, folder, base | HASTE)
        if not code:
            return code, output, problem
        reason = "this computer reaches no package index"
        if self._hub is not None:
            obstacle = await self._hub.obstacle()
            if obstacle is None:
                code, output, problem = await _run(command, folder, self._hub.variables(base))
                return code, output, problem.replace(self._hub.secret, "…")
            reason += f", and {obstacle}"
        return code, output, f"{problem}\n\n{reason}: set UV_DEFAULT_INDEX to the address of one that it does reach"


def stamp_of(environment: Environment) -> tuple[object, ...]:
    """Return what changes when a file or a project that an environment names does; raises BadRequest if one is not there."""
    return tuple(_stamp(path) for path in (*environment.files, *map(_path_of, _local(environment))))


def _read(text: str, python: str, wheels: Mapping[str, tuple[str, bytes]]) -> Locked:
    """Read what uv has put out."""
    packages, used = [], []
    for requirement, sha256 in locked_lines(text):
        own = _FROM_FILE.match(requirement)
        if own is not None and own[1] in wheels:
            used.append(wheels[own[1]])
        else:
            packages.append(locked_package(requirement, sha256))
    blobs = {Digest(blake3.blake3(data).hexdigest()): (filename, data) for filename, data in used}
    lock = EnvironmentLock(
        python=python,
        packages=tuple(packages),
        wheels=tuple(
            LockedWheel(filename, digest, hashlib.sha256(data).hexdigest())
            for digest, (filename, data) in blobs.items()
        ),
    )
    sources = frozenset(_INSTALLED.sub("", name) for _, data in used for name in _names_in(data))
    return _locked(lock, {digest: data for digest, (_, data) in blobs.items()}, sources)


def _locked(lock: EnvironmentLock, wheels: Mapping[Digest, bytes], sources: frozenset[str]) -> Locked:
    check_lock(lock)
    data = encode_lock(lock)
    return Locked(Digest(blake3.blake3(data).hexdigest()), data, wheels, sources)


async def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    code, output, problem = await run_uv(command, folder, environment, RESOLVE_TIMEOUT_S)
    return code, output, problem[-ERROR_CHARS:]


def _is_path(requirement: str) -> bool:
    return requirement.startswith((".", "/", "~")) or (os.name == "nt" and requirement[1:3] in {":\\", ":/"})


def _local(environment: Environment) -> list[str]:
    return [each for each in environment.packages if _is_path(each)]


def _path_of(requirement: str) -> Path:
    match = _EXTRAS.fullmatch(requirement)
    assert match is not None
    path = Path(match[1]).expanduser().absolute()
    if not path.exists():
        raise BadRequest(f"packages: there is no {match[1]}")
    if path.is_file() and path.suffix != ".whl":
        raise BadRequest(f"packages: {match[1]} is not a wheel or the folder of a project")
    return path


def _extras_of(requirement: str) -> str:
    match = _EXTRAS.fullmatch(requirement)
    return (match[2] or "") if match is not None else ""


def _stamp(path: Path) -> tuple[object, ...]:
    """Return what changes when a file does, or one of a project's folder."""
    if path.is_file():
        status = path.stat()
        return (path, status.st_mtime_ns, status.st_size)
    out: list[object] = [path]
    for parent, folders, files in os.walk(path):
        kept = [
            name for name in folders if name not in _SKIPPED and not name.startswith(".") and "egg-info" not in name
        ]
        folders[:] = sorted(name for name in kept if not Path(parent, name, "pyvenv.cfg").exists())
        for name in sorted(files):
            status = Path(parent, name).lstat()
            out.append((parent, name, status.st_mtime_ns, status.st_size))
    return tuple(out)


def _read_wheel(path: Path) -> bytes:
    if path.stat().st_size > MAX_WHEEL_BYTES:
        raise BadRequest(f"{path.name} is over the limit of {MAX_WHEEL_BYTES >> 20} MiB for wheels that travel")
    if not zipfile.is_zipfile(path):
        raise BadRequest(f"{path} is not a wheel")
    return path.read_bytes()


def _names_in(archive: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        return zipped.namelist()
