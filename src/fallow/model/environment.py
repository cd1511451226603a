"""Locked environments: exactly which Python and which packages a job's tasks run with.

A lock comes from whoever submits, and nodes make files and command lines from it. So it holds words that are checked, never
lines of a requirements file, which could name options, folders or hosts.
"""

import re

import msgspec

from fallow.model.errors import BadRequest
from fallow.model.ids import Digest

MAX_PACKAGES = 2_000
MAX_HASHES = 2_000
"""Hashes of one package: one for each file of its version. Those with the most wheels have some hundreds."""
MAX_TEXT = 1 << 20
"""Characters of `text`."""
MAX_LOCK_BYTES = 16 << 20

_PYTHON = re.compile(r"3\.\d{1,3}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,199}")
_MARKER = re.compile(r"[\w.,'\"<>=!~()+* -]{1,4000}", re.ASCII)
_WHEEL = re.compile(r"[A-Za-z0-9][\w.+!-]{0,240}\.whl", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class LockedPackage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One package of an index, in one version."""

    name: str
    version: str
    sha256: tuple[str, ...]
    """Of every file that will do, in hex."""
    marker: str = ""
    """Where it is needed (PEP 508), such as "sys_platform == 'win32'"; empty: everywhere."""


class LockedWheel(msgspec.Struct, frozen=True):
    """A wheel that travels with the job, as a blob: a project of the user's own."""

    filename: str
    blob: Digest
    sha256: str


class EnvironmentLock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node builds. Equal locks have one digest and one environment on a node."""

    python: str
    """Minor version, such as "3.11"."""
    packages: tuple[LockedPackage, ...] = ()
    wheels: tuple[LockedWheel, ...] = ()
    builder: str = "uv"
    """Name of the builder that understands it."""
    text: str = ""
    """For builders of other kinds: whatever they lock with. The one for uv has no use for it."""


def encode_lock(lock: EnvironmentLock) -> bytes:
    """Write a lock; equal locks give equal bytes."""
    return msgspec.json.encode(lock)


def decode_lock(data: bytes) -> EnvironmentLock:
    """Read and check a lock from outside; raises BadRequest."""
    if len(data) > MAX_LOCK_BYTES:
        raise BadRequest(f"the environment's lock is over the limit of {MAX_LOCK_BYTES} bytes")
    try:
        lock = msgspec.json.decode(data, type=EnvironmentLock)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"the environment's lock is none: {error}") from error
    check_lock(lock)
    return lock


def check_lock(lock: EnvironmentLock) -> None:
    """Raise BadRequest unless every word of a lock is what it should be."""
    _check("Python version", lock.python, _PYTHON)
    _check("builder", lock.builder, _NAME)
    if len(lock.packages) > MAX_PACKAGES or len(lock.wheels) > MAX_PACKAGES or len(lock.text) > MAX_TEXT:
        raise BadRequest(f"an environment has up to {MAX_PACKAGES} packages, and a text of up to {MAX_TEXT} characters")
    for package in lock.packages:
        _check("package", package.name, _NAME)
        _check("version", package.version, _VERSION)
        if package.marker and ("--" in package.marker or not _MARKER.fullmatch(package.marker)):
            raise BadRequest(f"the environment's lock has a marker {package.marker[:80]!r}, which is none")
        if not 0 < len(package.sha256) <= MAX_HASHES:
            raise BadRequest(f"the environment's lock has {len(package.sha256)} hashes of {package.name}")
        for sha256 in package.sha256:
            _check("hash", sha256, _SHA256)
    for wheel in lock.wheels:
        _check("wheel", wheel.filename, _WHEEL)
        _check("digest", wheel.blob, _DIGEST)
        _check("hash", wheel.sha256, _SHA256)


def _check(what: str, word: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(word):
        raise BadRequest(f"the environment's lock has a {what} {word[:80]!r}, which is none")
