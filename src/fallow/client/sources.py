"""The user's own modules, as archives that travel with their jobs.

Functions of installed packages are pickled by reference and found on the node. A module that is not installed
(a script's neighbour, a checkout, a notebook's folder) is not there, so its source travels: one zip per top-level name,
by digest, put on the slot's import path, so that classes keep their identity. Which ones is seen from what is loaded, and
from the import statements of what travels: a function may import a module only when it runs.
"""

import importlib.util
import io
import logging
import os
import re
import site
import sys
import sysconfig
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Generic, TypeVar

import blake3

from fallow.client.watching import Watch
from fallow.model.ids import Digest

T = TypeVar("T")

MAX_FILE_BYTES = 1 << 20
"""Data files inside a package travel with it up to this size each; larger ones belong into `grid.put`."""
MAX_ARCHIVE_BYTES = 32 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: equal sources give equal archives
_SKIPPED = {"fallow", "__main__", "__mp_main__"}
_SKIPPED_SUFFIXES = {".pyc", ".pyo"}
_IMPORT = re.compile(
    rb"(?:^|[:;])[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]*(\([^)]*|[^(#\n;]+)|import[ \t]+([^#\n;]+))", re.MULTILINE
)
_COMMENT = re.compile(rb"#.*")
PACE = 20
PACE_MOST_S = 0.001
BACKSTOP_S = 0.02
"""Files that are watched are looked at as seldom as this, for changes that nothing tells of."""

_log = logging.getLogger("fallow")


class Paced(Generic[T]):
    """Looks whenever it is asked to be sure; else so often that the looking takes a twentieth of the time, or every millisecond."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._found: T | None = None
        self._again_mono = 0.0

    def __call__(self, *, is_sure: bool = True) -> T:
        began = time.perf_counter()
        if is_sure or self._found is None or began >= self._again_mono:
            self._found = self._look()
            ended = time.perf_counter()
            self._again_mono = ended + min(PACE * (ended - began), PACE_MOST_S)
        return self._found

    def is_recent(self, found: object) -> bool:
        """Whether that was found, so lately that to ask without being sure would not look."""
        return self._found == found and time.perf_counter() < self._again_mono


class LocalSources:
    """Finds and packs the local modules that are needed now; packs each again only when its files change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamps: dict[str, object] = {}
        self._archives: dict[str, tuple[Digest, bytes]] = {}
        self._imports: dict[Path, tuple[tuple[int, ...], list[str]]] = {}
        self._told: set[str] = set()
        self._watched: list[str] = []
        self._watch = Watch()
        self._seen: tuple[object, object] = None, None
        self._look_again_mono = 0.0
        self._digests: dict[str, Digest] = {}
        self._version = 0
        self.version = Paced(self._look)
        """Return a number that grows when a local module has changed or another one was loaded."""

    def archives(self) -> dict[str, tuple[Digest, bytes]]:
        """Return digest and zip bytes of each local top-level module, by name."""
        with self._lock:
            return self._pack_all()

    def _pack_all(self) -> dict[str, tuple[Digest, bytes]]:
        found = self._files()
        for name, files in found.items():
            stamp = tuple((arc, *_stat(path)) for arc, path in sorted(files.items()))
            if self._stamps.get(name) != stamp:
                data = _pack(files)
                self._stamps[name] = stamp
                self._archives[name] = (Digest(blake3.blake3(data).hexdigest()), data)
        return {name: self._archives[name] for name in found}

    def close(self) -> None:
        """Watch the files no more. Another call may begin anew."""
        with self._lock:
            self._watch.close()

    def _look(self) -> int:
        with self._lock:
            is_quiet = self._watch.is_quiet()
            if is_quiet and time.perf_counter() < self._look_again_mono and self._at_hand() == self._seen[0]:
                return self._version
            if not is_quiet:
                self._watch.watch(self._watched)
            while (seen := (self._at_hand(), list(map(_stat, self._watched)))) != self._seen:
                digests = {name: digest for name, (digest, _) in self._pack_all().items()}
                self._version += digests != self._digests
                self._digests, self._seen = digests, seen
                self._watch.watch(self._watched)
            self._look_again_mono = time.perf_counter() + BACKSTOP_S
            return self._version

    def _at_hand(self) -> object:
        """Return what is looked at each time: nothing tells of it."""
        return len(sys.modules), len(vars(sys.modules["__main__"])), list(map(_stat, self._watch.others))

    def _files(self) -> dict[str, dict[str, Path]]:
        """Return, by top-level name, the files of its archive: name in the archive → path."""
        files = _Files(self._told)
        for name, module in list(sys.modules.items()):
            if (file := _file_of(module)) is not None:
                files.add(name, Path(file))
        main = sys.modules["__main__"]
        followed: set[Path] = set()
        if (script := _file_of(main)) is None:
            files.follow(_of_functions(vars(main)))
        else:
            files.follow(self._imported(Path(script), ""))
            followed.add(Path(script))
        while new := [item for each in files.found.values() for item in each.items() if item[1] not in followed]:
            for arc, path in new:
                followed.add(path)
                if path.suffix == ".py":
                    files.follow(self._imported(path, arc))
        self._watched = list(map(str, (*followed, *files.folders)))
        return files.found

    def _imported(self, path: Path, arc: str) -> list[str]:
        """Return the modules that a source file imports; arc: its name in the archive, for relative ones."""
        status = _stat(path)
        found = self._imports.get(path)
        if found is None or found[0] != status:
            package = arc.rpartition("/")[0].replace("/", ".")
            found = self._imports[path] = (status, list(dict.fromkeys(import_statements(path, package))))
        return found[1]


class _Files:
    """The files of archives, as they are found."""

    def __init__(self, told: set[str]) -> None:
        self.found: dict[str, dict[str, Path]] = {}
        self.folders: list[Path] = []
        self._told = told
        self._followed: set[str] = set()

    def add(self, name: str, path: Path) -> None:
        """Add a module; with its whole folder if it is a package that no other one holds."""
        top, _, _ = name.partition(".")
        if _is_skipped(top):
            return
        files = self.found.setdefault(top, {})
        inner = name.replace(".", "/")
        is_package = path.name == "__init__.py"
        files[f"{inner}/__init__.py" if is_package else f"{inner}.py"] = path
        if is_package and inner.rpartition("/")[0] + "/__init__.py" not in files:
            self._add_folder(files, path.parent, inner)

    def follow(self, names: Iterable[str]) -> None:
        """Add what would be imported under these names, if it is local and not loaded yet."""
        for name in names:
            if name not in self._followed:
                self._followed.add(name)
                self._follow(name)

    def _follow(self, name: str) -> None:
        parts = name.split(".")
        if not all(parts) or _is_skipped(parts[0]) or getattr(sys.modules.get(parts[0]), "__file__", None) is not None:
            return  # of what is loaded all files are here
        try:
            spec = importlib.util.find_spec(parts[0])
        except (ImportError, ValueError, AttributeError):
            return
        folders, depth = list((spec and spec.submodule_search_locations) or ()), 1
        while spec is not None and not spec.has_location and depth < len(parts):  # a namespace: folders, and no file
            spec = PathFinder.find_spec(parts[depth], folders)
            folders = [str(Path(each, parts[depth])) for each in folders]
            depth += 1
        if spec is not None and spec.origin is not None and is_local_file(spec.origin):
            self.add(".".join(parts[:depth]), Path(spec.origin))

    def _add_folder(self, files: dict[str, Path], folder: Path, inner: str) -> None:
        """Add what else a package's folder holds: modules not imported yet, and its small data files."""
        total, left_out = 0, []
        self.folders.append(folder)
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if any(part == "__pycache__" or part.startswith(".") for part in parts) or path.suffix in _SKIPPED_SUFFIXES:
                continue
            if path.is_symlink() or not path.is_file():
                if path.is_dir():
                    self.folders.append(path)
                continue
            size = path.stat().st_size
            if (size > MAX_FILE_BYTES or total + size > MAX_ARCHIVE_BYTES) and path.suffix != ".py":
                left_out.append(path)
                continue
            total += size
            files.setdefault("/".join([inner, *parts]), path)
        if left_out and inner not in self._told:
            self._told.add(inner)
            _log.warning(
                "%s of the package %s %s not travel with it, as data files of over %d MiB (%d MiB in all) don't: pass what "
                "tasks need with grid.put(), or name the project in env=",
                f"{left_out[0].relative_to(folder)}" + (f" and {len(left_out) - 1} more" if left_out[1:] else ""),
                inner.replace("/", "."),
                "do" if left_out[1:] else "does",
                MAX_FILE_BYTES >> 20,
                MAX_ARCHIVE_BYTES >> 20,
            )


def find_local(name: str) -> dict[str, Path]:
    """Return the files of a local module that is not loaded, by their names in an archive; none if it is installed, or nowhere."""
    files = _Files(set())
    files.follow([name])
    return files.found.get(name.partition(".")[0], {})


def _is_skipped(top: str) -> bool:
    return top in _SKIPPED or top in sys.stdlib_module_names


def import_statements(path: Path, package: str) -> Iterator[str]:
    """Yield what a source file imports, also what only may be a module. A pattern: to parse it takes a hundred times as long."""
    try:
        source = path.read_bytes()
    except OSError:
        return
    for base, names, whole in _IMPORT.findall(source):
        for each in whole.split(b","):
            if words := each.split():
                yield words[0].decode("utf-8", "replace")
        if base:
            name = base.decode("utf-8", "replace").lstrip(".")
            level = len(base) - len(base.lstrip(b"."))
            if level:
                parents = package.split(".")[: len(package.split(".")) - level + 1]
                name = ".".join([*parents, *([name] if name else [])])
            yield name
            for each in _COMMENT.sub(b"", names).lstrip(b"(").split(b","):
                if words := each.split():
                    yield f"{name}.{words[0].decode('utf-8', 'replace')}"


def _of_functions(names: dict[str, object]) -> list[str]:
    """Return what the functions of a notebook import when they run."""
    found: list[str] = []
    for value in list(names.values()):
        members = list(vars(value).values()) if isinstance(value, type) else [value]
        for each in members:
            if isinstance(each, FunctionType):
                found += imported_by(each.__code__)
    return found


@lru_cache(4096)
def imported_by(code: CodeType) -> tuple[str, ...]:
    """Return what code imports when it runs: modules, and names from them, which may be modules."""
    import dis

    found: list[str] = []
    base = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and instruction.argval:
            base = instruction.argval
            found.append(base)
        elif instruction.opname == "IMPORT_FROM":
            found.append(f"{base}.{instruction.argval}")
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found += imported_by(each)
    return tuple(found)


@cache
def _installed_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    roots = {paths[key] for key in ("purelib", "platlib", "stdlib", "platstdlib")}
    roots.update(site.getsitepackages())
    roots.add(site.getusersitepackages())
    return tuple(str(Path(root).resolve()) + "/" for root in roots)


def _is_local(path: str) -> bool:
    if not path.endswith(".py") or path.startswith("<"):
        return False
    resolved = str(Path(path).resolve())
    return not resolved.startswith(_installed_roots()) and "/site-packages/" not in resolved.replace("\\", "/")


@cache
def is_local_file(path: str) -> bool:
    """Whether a module's file is of the user's own sources, rather than installed."""
    return _is_local(path)


def _file_of(module: ModuleType) -> str | None:
    path = getattr(module, "__file__", None)
    return path if isinstance(path, str) and is_local_file(path) else None


def _stat(path: Path | str) -> tuple[int, ...]:
    """Return what differs when a file was written, or is another one, whatever times it was given."""
    try:
        status = os.stat(path)  # noqa: PTH116 -- asked of every file
    except OSError:
        return ()  # deleted since it was imported
    return status.st_mtime_ns, status.st_size, status.st_ctime_ns, status.st_ino


def _pack(files: dict[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            try:
                data = path.read_bytes()
            except OSError:
                continue
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
