import os
from pathlib import Path

import pytest

from fallow.cli.config import find_connection, require_hub, state_path
from fallow.model.errors import BadRequest


@pytest.fixture
def write(tmp_path):
    def write(name, text, mode=0o600):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_options_come_before_the_environment_and_that_before_the_file(write, monkeypatch):
    write("config.toml", 'hub = "http://file:1"\ntoken = "from-file"\n')
    found = find_connection()
    assert (found.hub, found.token) == ("http://file:1", "from-file")
    assert found.hub_from.endswith("config.toml")
    monkeypatch.setenv("FALLOW_TOKEN", " from-environment\n")
    monkeypatch.setenv("FALLOW_HUB", "http://environment:1")
    found = find_connection("http://environment:1")  # as typer hands it over
    assert (found.token, found.token_from, found.hub_from) == ("from-environment", "$FALLOW_TOKEN", "$FALLOW_HUB")
    found = find_connection("http://option:1", write("lab.token", "from-token-file\n"))
    assert (found.hub, found.hub_from, found.token) == ("http://option:1", "--hub", "from-token-file")


def test_the_token_is_in_no_repr(monkeypatch):
    monkeypatch.setenv("FALLOW_TOKEN", "very-secret")
    assert "very-secret" not in repr(find_connection())


def test_what_is_missing_is_said(monkeypatch):
    with pytest.raises(BadRequest, match=r"which hub\? Give --hub URL, set \$FALLOW_HUB, or write .*config.toml"):
        require_hub(None, None)
    with pytest.raises(BadRequest, match=r"no token: set \$FALLOW_TOKEN, give --token-file FILE"):
        require_hub("http://x:1", None)


@pytest.mark.parametrize("text", ["hub = 3\n", "hubb = 'x'\n", "hub = \n", "\x00"])
def test_a_faulty_config_file_is_named(write, text):
    path = write("config.toml", text)
    with pytest.raises(BadRequest, match=str(path)):
        find_connection()


@pytest.mark.parametrize("text", ["", "\n", "two words\n"])
def test_a_faulty_token_file_is_named_and_not_shown(write, text):
    path = write("lab.token", text)
    with pytest.raises(BadRequest, match=str(path)) as error:
        find_connection("http://x:1", path)
    assert "words" not in str(error.value)


def test_an_absent_token_file_is_named():
    with pytest.raises(BadRequest, match="nothing/here"):
        find_connection("http://x:1", Path("nothing/here"))


@pytest.mark.skipif(os.name != "posix", reason="file modes are a Unix matter")
def test_a_token_that_others_can_read_is_warned_about(write, capsys):
    find_connection("http://x:1", write("lab.token", "secret-word", mode=0o644))
    said = capsys.readouterr().err
    assert "chmod 600" in said
    assert "secret-word" not in said
    find_connection("http://x:1", write("lab.token", "secret-word", mode=0o600))
    assert not capsys.readouterr().err


def test_state_folders_are_per_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert state_path("hub").name == "hub"
