"""Start of a slot, by path (`python -P …/fallow/slot/__main__.py`), so that any interpreter can run it.

The interpreter may be of another environment, where Fallow is not installed. Pickles refer to `fallow.slot.refs`, so
the package is registered from where this file lies, without putting its parent folder, and with it everything else that
is installed there, on the import path.

Arguments: counter file, folder for large results, one in memory for them (empty: none), size limit of results that go through the pipe, folder that holds the
agent's cloudpickle (used where the interpreter has none), control pipe.
"""

import os
import sys
from importlib.machinery import PathFinder  # importlib.util and pathlib would cost 8 ms
from os.path import abspath, dirname
from types import ModuleType


def _register(name: str, parent: str) -> None:
    spec = PathFinder.find_spec(name, [parent])
    if spec is None or spec.loader is None:
        return
    package = ModuleType(name)
    package.__spec__, package.__loader__, package.__package__ = spec, spec.loader, name
    package.__file__, package.__path__ = spec.origin, spec.submodule_search_locations or []
    sys.modules[name] = package
    spec.loader.exec_module(package)


def _start(arguments: list[str]) -> None:
    counter, results, memory, inline_bytes, cloudpickle_home, control = arguments
    here = dirname(abspath(__file__))  # noqa: PTH100, PTH120
    _register("fallow", dirname(dirname(here)))  # noqa: PTH120
    if "FALLOW_CONFINE" in os.environ:
        from fallow.slot import confine

        confine.confine_by_environment()
    if PathFinder.find_spec("cloudpickle") is None:
        _register("cloudpickle", cloudpickle_home)
    # What users pickle as `__main__` must find a clean one here, not this file.
    sys.modules["__main__"] = ModuleType("__main__")
    del sys.argv[1:]
    from fallow.slot.main import run

    run(counter, results, memory, int(inline_bytes), control)


_start(sys.argv[1:])
