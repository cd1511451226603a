"""One embedded grid with two real slots for the module's programs; real hubs and nodes where a test needs those."""

import importlib.util
import sys
from pathlib import Path

import pytest

from fallow import Grid

_spec = importlib.util.spec_from_file_location("programs_for_tests", Path(__file__).parents[2] / "programs.py")
programs_for_tests = sys.modules.setdefault(_spec.name, importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(programs_for_tests)
programs = programs_for_tests.programs


@pytest.fixture(autouse=True)
def no_hub_named(monkeypatch, tmp_path):
    for name in ("FALLOW_HUB", "FALLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "no-config.toml"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def shared_grid():
    with Grid(slots=2) as grid:
        yield grid


@pytest.fixture
def grid(shared_grid):
    return shared_grid
