"""What a task needs of a node, and whether a node has it, in words that a user understands."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from fallow.model.errors import BadRequest
from fallow.model.levels import Level, at_least
from fallow.model.node import NodeInfo

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip
MAX_CORES = 1 << 20
MAX_MEMORY_BYTES = 1 << 62
MAX_WORD = 100
"""Characters of a tag, and of an os, arch or python."""
MAX_TAGS = 100
SHOWN = 80
"""Characters of a faulty value that an error repeats."""
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(value: int | str, what: str = "memory") -> int:
    """Read a size such as 4096, "4GB" or "512 MiB" as bytes; raises BadRequest otherwise."""
    too_large = f"{what} is over the limit of {format_size(MAX_MEMORY_BYTES)}"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        if value >= MAX_MEMORY_BYTES:
            raise BadRequest(too_large)
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].upper() not in _UNITS:
        raise BadRequest(
            f'{what}={value!r:.{SHOWN}} is not a size: write it as bytes (4000000000) or with a unit ("4GB", "512MiB")'
        )
    size = float(match[1]) * _UNITS[match[2].upper()]
    if size >= MAX_MEMORY_BYTES:
        raise BadRequest(too_large)
    return int(size)


def format_size(size_bytes: int) -> str:
    """Write bytes for people: 24_000_000_000 as "24 GB"."""
    size = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:  # what rounds to 1000 is 1 of the next unit
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 999.5 else f"{size:.0f} TB"


class Requirements(msgspec.Struct, frozen=True, omit_defaults=True):
    """What each task of a job needs. Equal requirements form one class in the scheduler's queue.

    cores and memory_bytes are reserved while a task runs; os, arch, python and tags select nodes.
    """

    cores: int = 1
    memory_bytes: int = 0
    os: str | None = None
    """"linux", "macos" or "windows"."""
    arch: str | None = None
    """"x86_64", "arm64", …, as `NodeInfo.arch` has it."""
    python: str | None = None
    """Minor version such as "3.11"; a function's own version unless the job says otherwise."""
    tags: tuple[str, ...] = ()
    """All of these must be among the node's tags. Sorted."""
    sandbox: Level | None = None
    """The weakest sandbox that will do."""
    builds: bool = False
    """Whether the node has to build an environment; the interpreter is that one's then."""
    platforms: tuple[str, ...] = ()
    """`NodeInfo.platform` must be one of these: the program has executables for them. Empty: any will do. Sorted."""

    def unmet_by(self, node: NodeInfo) -> list[str]:
        """Return what `node` lacks, one phrase each; empty if a task could run there."""
        lacks = []
        if self.cores > node.cores:
            lacks.append(f"needs {self.cores} cores, has {node.cores}")
        if self.memory_bytes > node.memory_bytes:
            lacks.append(f"needs {format_size(self.memory_bytes)}, has {format_size(node.memory_bytes)}")
        if self.os is not None and self.os != node.os:
            lacks.append(f"needs {self.os}, runs {node.os}")
        if self.arch is not None and self.arch != node.arch:
            lacks.append(f"needs {self.arch}, is {node.arch}")
        if self.python is not None and self.python not in node.pythons:
            lacks.append(f"needs Python {self.python}, has {', '.join(node.pythons) or 'none'}")
        if self.sandbox is not None and not any(at_least(level, self.sandbox) for level in node.sandboxes):
            lacks.append(f"needs the sandbox {self.sandbox}, has {', '.join(node.sandboxes) or 'none'}")
        if self.builds and not node.builds:
            lacks.append("needs a node that builds environments (one with uv)")
        if self.platforms and node.platform not in self.platforms:
            lacks.append(f"has executables for {', '.join(self.platforms)}, not for {node.platform}")
        missing = [tag for tag in self.tags if tag not in node.tags]
        if missing:
            lacks.append(f"needs the tag {', '.join(missing)}")
        return lacks


def parse_requirements(requires: Mapping[str, Any] | None, python: str | None = None) -> Requirements:
    """Read the `requires=` of a call; raises BadRequest that names the faulty key.

    python: the minor version that the function was pickled with; used unless `requires` names one.
    """
    wanted = dict(requires or {})
    cores = wanted.pop("cores", 1)
    if not isinstance(cores, int) or isinstance(cores, bool):
        raise BadRequest(f"requires: cores={cores!r:.{SHOWN}} is not a whole number of at least 1")
    memory = parse_size(wanted.pop("memory", 0), "requires: memory")
    tags = wanted.pop("tags", ())
    if isinstance(tags, str):
        tags = (tags,)
    if not isinstance(tags, (list, tuple, set, frozenset)) or not all(isinstance(tag, str) and tag for tag in tags):
        raise BadRequest(f"requires: tags={tags!r:.{SHOWN}} is not a list of words")
    words = {key: wanted.pop(key, None) for key in ("os", "arch")}
    words["python"] = wanted.pop("python", python)
    for key, word in words.items():
        if word is not None and not (isinstance(word, str) and word):
            raise BadRequest(f"requires: {key}={word!r:.{SHOWN}} is not a word")
    if wanted:
        known = "cores, memory, os, arch, python, tags"
        raise BadRequest(f"requires: unknown key {', '.join(map(repr, wanted)):.{SHOWN}}; known are {known}")
    requirements = Requirements(cores=cores, memory_bytes=memory, tags=tuple(sorted(tags)), **words)
    check_requirements(requirements)
    return requirements


def check_requirements(needs: Requirements) -> None:
    """Raise BadRequest unless all numbers and words are in bounds, so that what tells of them fits a frame."""
    if needs.cores < 1:
        raise BadRequest(f"requires: cores={needs.cores} is not a whole number of at least 1")
    if needs.cores > MAX_CORES:
        raise BadRequest(f"requires: cores is over the limit of {MAX_CORES}")
    if not 0 <= needs.memory_bytes < MAX_MEMORY_BYTES:
        raise BadRequest(f"requires: memory is not from 0 to {format_size(MAX_MEMORY_BYTES)}")
    if len(needs.tags) > MAX_TAGS:
        raise BadRequest(f"requires: {len(needs.tags)} tags are over the limit of {MAX_TAGS}")
    if len(needs.platforms) > MAX_TAGS:
        raise BadRequest(f"requires: {len(needs.platforms)} platforms are over the limit of {MAX_TAGS}")
    for key, word in (
        ("os", needs.os),
        ("arch", needs.arch),
        ("python", needs.python),
        *(("tag", t) for t in needs.tags),
        *(("platform", p) for p in needs.platforms),
    ):
        if word is not None and len(word) > MAX_WORD:
            raise BadRequest(f"requires: the {key} {word!r:.{SHOWN}}… is over the limit of {MAX_WORD} characters")
