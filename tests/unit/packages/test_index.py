"""Which package index a computer is configured for."""

import pytest

from fallow.packages.index import PackageIndex, configured_index, uv_variables
from fallow.packages.uv import uv_environment


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A computer whose only settings are the test's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("fallow.packages.index._pip_files", lambda environment: [tmp_path / "pip.conf"])
    monkeypatch.setattr("fallow.packages.index._uv_files", lambda environment: [tmp_path / "uv.toml"])
    return tmp_path


def test_nothing_said_is_left_to_uv(home):
    assert configured_index({}) == PackageIndex()
    assert PackageIndex().urls == ()
    assert uv_variables({}) == {}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"UV_DEFAULT_INDEX": "https://a/simple"}, PackageIndex("https://a/simple")),
        ({"UV_INDEX_URL": "https://a/simple", "UV_EXTRA_INDEX_URL": "https://b https://c"},
         PackageIndex("https://a/simple", ("https://b", "https://c"))),
        ({"UV_INDEX": "lab=https://b/simple"}, PackageIndex("", ("https://b/simple",))),
        ({"PIP_INDEX_URL": "https://p/simple", "PIP_EXTRA_INDEX_URL": "https://q"},
         PackageIndex("https://p/simple", ("https://q",))),
        ({"PIP_INDEX_URL": "https://p/simple", "UV_DEFAULT_INDEX": "https://a/simple"}, PackageIndex("https://a/simple")),
    ],
)  # fmt: skip
def test_variables(home, variables, found):
    assert configured_index(variables) == found


def test_files(home):
    (home / "pip.conf").write_text(
        "[global]\nindex-url = https://p/simple\nextra-index-url =\n  https://q\n  https://r\n"
    )
    assert configured_index({}) == PackageIndex("https://p/simple", ("https://q", "https://r"))
    assert configured_index({"PIP_INDEX_URL": "https://x"}).url == "https://x"
    (home / "uv.toml").write_text('[[index]]\nurl = "https://a/simple"\ndefault = true\n[[index]]\nurl = "https://b"\n')
    assert configured_index({}) == PackageIndex("https://a/simple", ("https://b",))
    (home / "uv.toml").write_text('[pip]\nindex-url = "https://c/simple"\n')
    assert configured_index({}).url == "https://c/simple"


def test_broken_files_are_passed_over(home):
    (home / "pip.conf").write_text("no section\n")
    (home / "uv.toml").write_text("= nonsense")
    assert configured_index({}) == PackageIndex()


def test_folders_of_pip_that_are_not_there(home):
    found = configured_index({"PIP_FIND_LINKS": f"{home} /no/such/folder https://x/links"})
    assert found.find_links == (str(home), "https://x/links")


def test_uv_is_told_what_pip_knows(home):
    base = {"PIP_INDEX_URL": "u", "PIP_EXTRA_INDEX_URL": "a b", "PIP_FIND_LINKS": str(home)}
    assert uv_variables(base) == {"UV_DEFAULT_INDEX": "u", "UV_INDEX": "a b", "UV_FIND_LINKS": str(home)}
    assert uv_variables(base | {"UV_INDEX": "lab=https://b"}) == {}


def test_uv_sees_its_own_settings_and_no_secrets(home):
    base = {
        "PATH": "/bin", "FALLOW_TOKEN": "flw_secret", "VIRTUAL_ENV": "/x", "PYTHONPATH": "/y",
        "UV_INDEX": "lab=https://b", "UV_INDEX_LAB_USERNAME": "anna", "UV_INDEX_LAB_PASSWORD": "word", "UV_CACHE_DIR": "/c",
    }  # fmt: skip
    seen = uv_environment(base)
    assert not {"FALLOW_TOKEN", "VIRTUAL_ENV", "PYTHONPATH", "UV_DEFAULT_INDEX"} & seen.keys()
    assert all(seen[name] == base[name] for name in base if name.startswith(("UV_", "PATH")))
