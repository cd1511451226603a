"""The user's own modules, as archives that travel with their jobs.

Functions of installed packages are pickled by reference and found on the node. A module that is not installed
(a script's neighbour, a checkout, a notebook's folder) is not there, so its source travels: one zip per top-level name,
by digest, put on the slot's import path, so that classes keep their identity.
"""

import io
import site
import sys
import sysconfig
import zipfile
from functools import cache
from pathlib import Path
from types import ModuleType

import blake3

from fallow.model.ids import Digest

MAX_FILE_BYTES = 1 << 20
"""Data files inside a package travel with it up to this size each; larger ones belong into `grid.put`."""
MAX_ARCHIVE_BYTES = 32 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: equal sources give equal archives
_SKIPPED = {"fallow", "__main__", "__mp_main__"}
_SKIPPED_SUFFIXES = {".pyc", ".pyo"}


class LocalSources:
    """Finds and packs the local modules that are imported now; packs each again only when its files change."""

    def __init__(self) -> None:
        self._seen_modules = -1
        self._stamps: dict[str, tuple[tuple[str, int, int], ...]] = {}
        self._archives: dict[str, tuple[Digest, bytes]] = {}

    def archives(self) -> dict[str, tuple[Digest, bytes]]:
        """Return digest and zip bytes of each local top-level module, by name."""
        found = _local_files()
        for name, files in found.items():
            stamp = tuple((arc, *_stat(path)) for arc, path in sorted(files.items()))
            if self._stamps.get(name) != stamp:
                data = _pack(files)
                self._stamps[name] = stamp
                self._archives[name] = (Digest(blake3.blake3(data).hexdigest()), data)
        return {name: self._archives[name] for name in found}


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


def _local_files() -> dict[str, dict[str, Path]]:
    """Return, by top-level name, the files of its archive: name in the archive → path."""
    found: dict[str, dict[str, Path]] = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in _SKIPPED or top in sys.stdlib_module_names:
            continue
        path = _file_of(module)
        if path is None:
            continue
        files = found.setdefault(top, {})
        inner = name.replace(".", "/")
        is_package = Path(path).name == "__init__.py"
        files[f"{inner}/__init__.py" if is_package else f"{inner}.py"] = Path(path)
        if is_package and "." not in name:
            _add_folder(files, Path(path).parent, inner)
    return found


@cache
def is_local_file(path: str) -> bool:
    """Whether a module's file is of the user's own sources, rather than installed."""
    return _is_local(path)


def _file_of(module: ModuleType) -> str | None:
    path = getattr(module, "__file__", None)
    return path if isinstance(path, str) and is_local_file(path) else None


def _add_folder(files: dict[str, Path], folder: Path, inner: str) -> None:
    """Add what else a package's folder holds: modules not imported yet, and its small data files."""
    total = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part == "__pycache__" or part.startswith(".") for part in parts) or path.suffix in _SKIPPED_SUFFIXES:
            continue
        if path.is_symlink() or not path.is_file():
            continue
        size = path.stat().st_size
        total += size
        if (size > MAX_FILE_BYTES or total > MAX_ARCHIVE_BYTES) and path.suffix != ".py":
            continue
        files.setdefault("/".join([inner, *parts]), path)


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0  # deleted since it was imported
    return status.st_mtime_ns, status.st_size


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
