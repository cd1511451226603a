"""What `import fallow` costs and gives. Times, of the processor, are printed, and judged only when they are far off."""

import importlib
import subprocess
import sys
from statistics import median

import pytest

import fallow

GOAL_MS = 150
FAR_OFF = 4

PUBLIC = {
    "AsyncGrid", "AsyncJob", "BadRequest", "Closed", "Denied", "Environment", "EnvironmentFailed", "FallowError", "Forbidden",
    "Future", "Grid", "GridExecutor", "HubFull", "InputEnded", "Job", "JobCancelled", "JobExists",
    "JobNotFound", "NotFound", "PicklingFailed", "ProgramFailed", "ProgramJob", "ProgramResult", "Ref",
    "StateError", "StateInUse", "StateTooNew", "TaskCrashed", "TaskFailed", "TaskLostNodes", "TaskOverLimit",
    "TaskTimeout", "TooLarge", "Unavailable", "__version__", "checkpoint", "progress", "save_checkpoint",
}  # fmt: skip
"""The public face. Whoever changes it changes this too, and writes a changelog fragment."""


def milliseconds_to(statement):
    script = f"import time; began = time.process_time(); {statement}; print((time.process_time() - began) * 1000)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["import fallow", "from fallow import Grid"])
def test_import_is_quick(statement, capsys):
    took = median(milliseconds_to(statement) for _ in range(5))
    with capsys.disabled():
        print(f"\n{statement}: {took:.0f} ms (goal: under {GOAL_MS} ms)")
    assert took < GOAL_MS * FAR_OFF


def test_import_loads_nothing_of_ours_but_the_face():
    script = "import sys, fallow; print([name for name in sys.modules if name.startswith('fallow.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_client_loads_no_web_framework_or_database():
    script = (
        "import sys; from fallow import Grid; heavy = {'litestar', 'uvicorn', 'sqlalchemy', 'alembic', 'obstore', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_pinned():
    assert set(fallow.__all__) == PUBLIC
    assert len(fallow.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there(name):
    assert getattr(fallow, name) is not None
    assert name in dir(fallow)


def test_every_error_is_public():
    errors = importlib.import_module("fallow.model.errors")

    def tree(cls):
        return {cls.__name__}.union(*map(tree, cls.__subclasses__()))

    assert tree(errors.FallowError) & set(vars(errors)) <= PUBLIC


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="fallow.*Gird"):
        _ = fallow.Gird
