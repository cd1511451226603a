"""Arguments, environment, config file: in this order."""

import pytest

from fallow.client.config import config_path, find_hub
from fallow.model.errors import BadRequest


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    for name in ("FALLOW_HUB", "FALLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "config.toml"
    monkeypatch.setenv("FALLOW_CONFIG", str(path))
    return path


def test_nothing_named_is_no_hub():
    assert find_hub() is None


def test_the_config_file(config):
    config.write_text('hub = "http://lab:7070"\ntoken = "t"\n')
    assert (find_hub().url, find_hub().secret) == ("http://lab:7070", "t")


def test_the_environment_goes_before_the_file_and_arguments_before_both(config, monkeypatch):
    config.write_text('hub = "http://lab:7070"\ntoken = "t"\n')
    monkeypatch.setenv("FALLOW_HUB", "http://other:1")
    monkeypatch.setenv("FALLOW_TOKEN", "u")
    assert (find_hub().url, find_hub().secret) == ("http://other:1", "u")
    assert (find_hub("http://third:1", "v").url, find_hub("http://third:1", "v").secret) == ("http://third:1", "v")


def test_a_token_file(config, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("from file\n")
    assert find_hub("http://lab:1", token_file=secret).secret == "from file"
    config.write_text(f'hub = "http://lab:7070"\ntoken_file = "{secret}"\n')
    assert find_hub().secret == "from file"


def test_a_hub_without_a_token_is_an_error_that_says_where_to_put_it():
    with pytest.raises(BadRequest, match="FALLOW_TOKEN"):
        find_hub("http://lab:1")


@pytest.mark.parametrize("text", ["hub = ", 'hubb = "x"', "hub = 5"])
def test_a_broken_file_is_named(config, text):
    config.write_text(text)
    with pytest.raises(BadRequest, match=r"config\.toml"):
        find_hub()


def test_the_path_is_the_given_one(config):
    assert config_path() == config
