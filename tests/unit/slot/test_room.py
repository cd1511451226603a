"""What may lie in memory: not beyond half of its filesystem, and not what the computer needs itself."""

import sys

import pytest

from fallow.slot import room

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no filesystem in memory elsewhere")


@pytest.mark.parametrize("part", ["KEPT_FREE", "KEPT_AVAILABLE"])
def test_there_is_room_while_enough_is_left_of_both(tmp_path, monkeypatch, part):
    monkeypatch.setattr(room, "KEPT_FREE", 0)
    monkeypatch.setattr(room, "KEPT_AVAILABLE", 0)
    assert room.has_room(str(tmp_path), 1)
    assert not room.has_room(str(tmp_path), 1 << 60)
    monkeypatch.setattr(room, part, 1)
    assert not room.has_room(str(tmp_path), 1)


def test_there_is_none_where_that_can_not_be_told(tmp_path):
    assert not room.has_room(str(tmp_path / "missing"), 1)
