"""Which installed packages a function needs: what its modules, and the local modules that these use, import."""

import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions, packages_distributions
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from fallow.client.sources import find_local, import_statements, imported_by, is_local_file
from fallow.model.errors import BadRequest

MAX_ELEMENTS = 1_000
"""Elements of a list or dict that are looked at: functions and models are in short ones."""
MAX_DEPTH = 100
_OURS = {"fallow", "cloudpickle"}
_OTHER_NAMES = {
    "Crypto": "pycryptodome", "MySQLdb": "mysqlclient", "OpenSSL": "pyOpenSSL", "PIL": "Pillow", "attr": "attrs",
    "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil", "docx": "python-docx",
    "dotenv": "python-dotenv", "fitz": "PyMuPDF", "git": "GitPython", "jwt": "PyJWT", "magic": "python-magic",
    "psycopg2": "psycopg2-binary", "serial": "pyserial", "skimage": "scikit-image", "sklearn": "scikit-learn",
    "usb": "pyusb", "yaml": "PyYAML", "zmq": "pyzmq",
}  # fmt: skip
"""Well-known modules whose packages have other names, for those who don't have them installed."""


def needed_packages(functions: Iterable[Callable[..., Any]]) -> tuple[list[str], list[str]]:
    """Return what to ask for to have the packages that functions need, and "name==version" of all that are installed.

    Raises BadRequest if one of them came from where nodes can't get it.
    """
    scan = _Scan()
    for function in functions:
        scan.value(function)
    by_module = packages_distributions()
    around = {module.rpartition(".")[0] for module in scan.installed}  # of a namespace what is around the parts needed
    names = {_canonical(name) for module in scan.installed - around for name in _holders(module, by_module)}
    installed = {_canonical(each.name): each for each in distributions() if each.name}
    needed = [_asked_for(installed[name]) for name in sorted(names & installed.keys() - _OURS)]
    return needed, [_pin(each) for _, each in sorted(installed.items()) if _came_from(each) is None]


def requirement_of(module: str) -> str | None:
    """Return what to ask for to get a missing module: the package that has it here, in its version, else what has its name.

    None for a part of a package that the package does not have here either.
    """
    top, _, inner = module.partition(".")
    for name in _holders(module, packages_distributions()):
        if inner and not _has(name, module.replace(".", "/")):
            continue
        found = distribution(name)
        return _pin(found) if _came_from(found) is None else _asked_for(found)
    return None if inner else _OTHER_NAMES.get(top, top)


def _holders(module: str, by_module: Mapping[str, list[str]]) -> list[str]:
    """Return the installed packages that a module may be of: of a namespace that several share, those that have it."""
    holders = list(dict.fromkeys(by_module.get(module.partition(".")[0], ())))
    path = module.replace(".", "/")
    while len(holders) > 1 and "/" in path:
        if found := [name for name in holders if _has(name, path)]:
            return found
        path = path.rpartition("/")[0]
    return holders


def _has(package: str, path: str) -> bool:
    """Whether an installed package has a module of this path."""
    return any(file.startswith((f"{path}/", f"{path}.")) for file in _files_of(package))


@functools.lru_cache(256)
def _files_of(package: str) -> tuple[str, ...]:
    try:
        return tuple(file.as_posix() for file in distribution(package).files or ())
    except PackageNotFoundError:
        return ()


def _pin(found: Distribution) -> str:
    return f"{found.name}=={found.version}"


def _came_from(found: Distribution) -> str | None:
    """Return the address that a package was installed from (PEP 610); None: an index, or a folder that is gone, as with conda."""
    try:
        url = str(json.loads(found.read_text("direct_url.json") or "{}").get("url") or "")
    except ValueError:
        return None
    return None if not url or (url.startswith("file:") and not _path_of(url).exists()) else url


def _asked_for(found: Distribution) -> str:
    url = _came_from(found)
    if url is None:
        return _pin(found)
    if url.startswith("file:") and (_path_of(url).is_dir() or _path_of(url).suffix == ".whl"):
        return str(_path_of(url))  # it travels as a wheel
    raise BadRequest(
        f"Environment.capture(): {found.name} was installed from {url}, which nodes can't: build a wheel of it, and pass "
        "Environment(packages=[…]) with the path of that"
    )


def _path_of(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


class _Scan:
    """Follows functions to the modules that they use."""

    def __init__(self) -> None:
        self.installed: set[str] = set()
        self._seen: dict[int, object] = {}
        self._depth = 0
        self._modules: set[str] = set()

    def value(self, value: Any) -> None:
        """Look at what a function is, or refers to."""
        if id(value) in self._seen or self._depth > MAX_DEPTH:
            return
        self._seen[id(value)] = value  # held, or another object might have its number
        self._depth += 1
        self._look(value)
        self._depth -= 1

    def _look(self, value: Any) -> None:
        if isinstance(value, ModuleType):
            self.module(value.__name__)
        elif isinstance(value, functools.partial):
            for each in (value.func, *value.args, *value.keywords.values()):
                self.value(each)
        elif isinstance(value, MethodType):
            self.value(value.__func__)
            self.value(value.__self__)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for each in itertools.islice(value, MAX_ELEMENTS):
                self.value(each)
        elif isinstance(value, dict):
            for each in itertools.islice(value.values(), MAX_ELEMENTS):
                self.value(each)
        else:
            self._object(value)

    def _object(self, value: Any) -> None:
        module = getattr(value, "__module__", None)
        if not isinstance(module, str):
            module = type(value).__module__
        is_main = module in {"__main__", "__mp_main__"}
        if isinstance(value, FunctionType) and (is_main or "<" in value.__qualname__):
            self._function(value)  # it travels by value: what it refers to, not all that its module imports
            return
        if not is_main:
            self.module(module)
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, type):
            for base in value.__mro__[1:]:
                self.value(base)
            if is_main:
                for each in vars(value).values():
                    self.value(getattr(each, "__func__", each))
        elif hasattr(value, "__dict__"):
            self.value(type(value))
            self.value(vars(value))

    def _function(self, function: FunctionType) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.value(wrapped)
        names = set(_names(function.__code__))
        for name in names & function.__globals__.keys():
            found = function.__globals__[name]
            if isinstance(found, ModuleType) and getattr(found, "__file__", None) is None:
                self._namespace(found.__name__, names)
            else:
                self.value(found)
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents)
            except ValueError:
                continue  # not filled yet
        for name in imported_by(function.__code__):
            self.module(name)
        self.value(list(function.__defaults__ or ()))

    def module(self, name: str) -> None:
        """Look at a module by its name."""
        top = name.partition(".")[0]
        if name in self._modules or top in sys.stdlib_module_names or top in _OURS:
            return
        self._modules.add(name)
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and is_local_file(file):
            self._sources(
                {name.replace(".", "/") + ("/__init__.py" if file.endswith("__init__.py") else ".py"): Path(file)}
            )
            for other in [other for other in sys.modules if other.startswith(f"{name}.")]:
                self.module(other)
        elif found := find_local(name):  # not loaded yet
            self._sources(found)
        else:
            self.installed.add(name)

    def _sources(self, files: Mapping[str, Path]) -> None:
        for arc, path in files.items():
            for each in import_statements(path, arc.rpartition("/")[0].replace("/", ".")):
                self.module(each)

    def _namespace(self, name: str, words: set[str]) -> None:
        """Look at those modules of a namespace that code which has these words can mean."""
        inner = [other for other in sys.modules if other.startswith(f"{name}.")]
        meant = [other for other in inner if set(other.removeprefix(f"{name}.").split(".")) <= words]
        for each in meant or [name]:
            self.module(each)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
