"""Names of outputs on a system that can't have them all."""

import pytest

from fallow.client.local_names import local_name
from fallow.slot.attempt import BadFile


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "a//b", "", ".", "a/.", "x\0y"])
@pytest.mark.parametrize("is_windows", [True, False])
def test_what_lies_outside_is_refused_everywhere(name, is_windows):
    with pytest.raises(BadFile, match="lies outside"):
        local_name(name, is_windows=is_windows)


@pytest.mark.parametrize(
    "name", ["plain.txt", "folder/plain.txt", "Console.log", "auxiliary", "nul-1", "x.con", "ümläut"]
)
def test_what_can_be_stays(name):
    assert local_name(name, is_windows=True) == name


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("CON", "_CON#"),
        ("d/nul.txt", "d/_nul.txt#"),
        ("COM1", "_COM1#"),
        ("C:x", "C_x#"),
        ("12:30.log", "12_30.log#"),
        ("a\\b", "a_b#"),
        ("dot.", "dot_#"),
        ("space ", "space_#"),
        ("new\nline", "new_line#"),
        ("aux/x", "_aux#"),
    ],
)
def test_what_windows_can_not_have_is_told_apart_by_a_digest(name, fit):
    assert local_name(name, is_windows=True).startswith(fit)
    assert local_name(name, is_windows=False) == name


def test_names_that_look_alike_then_stay_apart():
    found = {local_name(name, is_windows=True) for name in ("a:b", "a?b", "a|b", "a_b", "a\\b")}
    assert len(found) == 5
