"""A job that a hub accepted gets all its inputs, however often the hub's disk is full meanwhile."""

import pytest

from fallow import Grid
from fallow.hub.core.blob_house import BlobHouse

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("item_bytes", [10_000, 200_000])
def test_pages_and_the_seal_behind_a_refused_page_are_sent_again(monkeypatch, item_bytes):
    asked, refusing = [], range(6, 14)
    has_room = BlobHouse.has_room

    def sometimes(self, size_bytes=0, **more):
        if 0 < size_bytes < item_bytes:
            return has_room(self, size_bytes, **more)  # the function, or a module that some test has brought along
        asked.append(1)
        return len(asked) not in refusing and has_room(self, size_bytes, **more)

    with Grid(slots=1) as grid:
        monkeypatch.setattr(BlobHouse, "has_room", sometimes)
        items = [bytes([index]) * item_bytes for index in range(150)]
        assert grid.map(len, items).result(60) == [item_bytes] * 150
        assert len(asked) > refusing.stop
