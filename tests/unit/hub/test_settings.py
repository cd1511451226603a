"""Defaults that are promises: what a hub keeps free unless it is told otherwise."""

from pathlib import Path

from fallow.client import embedded
from fallow.hub.core.settings import HubSettings


def test_a_hub_keeps_512_mb_free_and_an_embedded_grid_64_mb():
    assert HubSettings(folder=Path()).reserve_bytes == 512_000_000
    assert embedded.RESERVE_BYTES == 64_000_000
