"""Embedded grids with real slots, closed and checked for orphans after each test."""

from collections.abc import Iterator

import psutil
import pytest

from fallow import Grid


@pytest.fixture(autouse=True)
def no_hub_named(monkeypatch, tmp_path):
    for name in ("FALLOW_HUB", "FALLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "no-config.toml"))


@pytest.fixture(scope="module")
def shared_grid() -> Iterator[Grid]:
    with Grid(slots=2) as grid:
        yield grid


@pytest.fixture
def grid(shared_grid: Grid) -> Grid:
    """A grid that the tests of a module share."""
    return shared_grid


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """Fail if a child process outlives the test."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    gone, alive = psutil.wait_procs(left, timeout=60)
    assert not alive, [process.cmdline() for process in alive]
