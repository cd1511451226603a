"""Which installed packages a function needs: what its modules, and the local modules that these use, import."""

import ast
import dis
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import Distribution, distribution, distributions, packages_distributions
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from fallow.client.sources import is_local_file

_OURS = {"fallow", "cloudpickle"}


def needed_packages(functions: Iterable[Callable[..., Any]]) -> tuple[list[str], list[str]]:
    """Return the packages that functions need, as "name==version", and the same of all that are installed."""
    scan = _Scan()
    for function in functions:
        scan.value(function)
    by_module = packages_distributions()
    names = {_canonical(name) for module in scan.installed for name in by_module.get(module, ())}
    pins = {_canonical(each.name): f"{each.name}=={each.version}" for each in distributions() if _is_of_an_index(each)}
    return [pins[name] for name in sorted(names & pins.keys() - _OURS)], [pins[name] for name in sorted(pins)]


def requirement_of(module: str) -> str:
    """Return what to ask for to get a module: the package that has it here, in its version, else what has its name."""
    for name in packages_distributions().get(module, ()):
        found = distribution(name)
        if _is_of_an_index(found):
            return f"{found.name}=={found.version}"
    return module


class _Scan:
    """Follows functions to the modules that they use."""

    def __init__(self) -> None:
        self.installed: set[str] = set()
        self._seen: set[int] = set()
        self._modules: set[str] = set()

    def value(self, value: Any) -> None:
        """Look at what a function is, or refers to."""
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, ModuleType):
            self.module(value.__name__)
        elif isinstance(value, functools.partial):
            for each in (value.func, *value.args, *value.keywords.values()):
                self.value(each)
        elif isinstance(value, MethodType):
            self.value(value.__func__)
            self.value(value.__self__)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for each in value:
                self.value(each)
        elif isinstance(value, dict):
            for each in value.values():
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
        for name in _names(function.__code__):
            if name in function.__globals__:
                self.value(function.__globals__[name])
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents)
            except ValueError:
                continue  # not filled yet
        for name in _imported(function.__code__):
            self.module(name)
        self.value(list(function.__defaults__ or ()))

    def module(self, name: str) -> None:
        """Look at a module by its name."""
        top = name.partition(".")[0]
        if name in self._modules or top in sys.stdlib_module_names or top in _OURS:
            return
        self._modules.add(name)
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or not is_local_file(file):
            self.installed.add(top)
            return
        for each in _imports(Path(file), name):
            self.module(each)
        for other in [other for other in sys.modules if other.startswith(f"{name}.")]:
            self.module(other)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _imported(code: CodeType) -> Iterator[str]:
    """Yield the modules that a function imports when it runs."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME" and instruction.argval:
            yield instruction.argval
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _imported(each)


def _imports(path: Path, name: str) -> Iterator[str]:
    """Yield the modules that a source file imports, anywhere in it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts: Sequence[str] = package.split(".")
            parent = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (parent, node.module or "") if part)
            yield base
            if node.level:
                yield from (f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in sys.modules)


def _is_of_an_index(distribution: Distribution) -> bool:
    """Whether a package came from an index, rather than from a folder or an address (PEP 610)."""
    return bool(distribution.name) and distribution.read_text("direct_url.json") is None


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
