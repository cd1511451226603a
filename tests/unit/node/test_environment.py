"""What processes of a node know of its environment."""

import pytest

from fallow.node import environment


@pytest.mark.parametrize(
    "name",
    [
        "FALLOW_CONFIG",
        "FALLOW_TOKEN",
        "FALLOW_ADMIN_TOKEN",
        "FALLOW_JOIN_TOKEN",
        "FALLOW_TOKEN_FILE",
        "FALLOW_OTHER_TOKENS",
    ],
)
def test_tokens_are_left_out(name):
    base = {name: "secret", "FALLOW_HUB": "http://hub", "HF_TOKEN": "the owner's own"}
    assert environment.without_secrets(base) == {"FALLOW_HUB": "http://hub", "HF_TOKEN": "the owner's own"}
    assert "secret" not in environment.of_slot(base, 1).values()


def test_libraries_are_told_how_many_threads_to_use():
    found = environment.of_slot({"OMP_NUM_THREADS": "64", "HOME": "/home/x"}, 2)
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "2"
    assert found["HOME"] == "/home/x"
