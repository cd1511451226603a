import sys

import pytest

from fallow import BadRequest, Environment
from fallow.client.environments import check_environment, check_python_of
from fallow.client.options import parse_options


def test_equal_environments_are_one():
    assert Environment(["a", "b"]) == Environment(("a", "b"))
    assert hash(Environment(["a"])) == hash(Environment(["a"]))
    assert Environment(["a"]) != Environment(["a"], python="3.12")
    assert Environment.capture() != Environment()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"packages": "numpy"}, "pass a list"),
        ({"packages": [1]}, "not a requirement"),
        ({"packages": ["  "]}, "not a requirement"),
        ({"packages": ["--index-url http://evil"]}, "not a requirement"),
        ({"packages": ["a\n-e ."]}, "not a requirement"),
        ({"python": "3"}, "minor version"),
        ({"python": 3.12}, "minor version"),
        ({"python": "3.12.1"}, "minor version"),
        ({"python": "3.9"}, "3.11 or newer"),
        ({"packages": ["a"], "builder": "conda"}, "text="),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(BadRequest, match=message):
        Environment(**arguments)


def test_from_a_project(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["a>1"]\noptional-dependencies.plot = ["b"]\n'
    )
    assert Environment.from_project(tmp_path) == Environment(["a>1"])
    assert Environment.from_project(project, extras=["plot"]) == Environment(["a>1", "b"])
    with pytest.raises(BadRequest, match="no extra 'nothing'"):
        Environment.from_project(tmp_path, extras=["nothing"])
    project.write_text(project.read_text() + '[build-system]\nrequires = ["hatchling"]\n')
    assert Environment.from_project(tmp_path) == Environment([str(tmp_path)])
    assert Environment.from_project(tmp_path, extras=["plot"]) == Environment([f"{tmp_path}[plot]"])


def test_from_requirements(tmp_path):
    (tmp_path / "requirements.txt").write_text("a\n")
    assert Environment.from_project(tmp_path).files == (tmp_path / "requirements.txt",)
    assert Environment.from_project(tmp_path / "requirements.txt") == Environment.from_project(tmp_path)
    with pytest.raises(BadRequest, match="no extras"):
        Environment.from_project(tmp_path, extras=["x"])


def test_projects_that_are_none(tmp_path):
    with pytest.raises(BadRequest, match=r"no pyproject\.toml or requirements\.txt"):
        Environment.from_project(tmp_path)
    (tmp_path / "pyproject.toml").write_text("= nonsense")
    with pytest.raises(BadRequest, match=r"pyproject\.toml"):
        Environment.from_project(tmp_path)


def test_the_option():
    env = Environment(["a"])
    options = parse_options({"env": env})
    assert options.env == env
    assert (options.requirements.builds, options.requirements.python) == (True, None)
    assert parse_options({}).requirements.python is not None
    with pytest.raises(BadRequest, match="fallow.Environment"):
        parse_options({"env": ["numpy"]})
    with pytest.raises(BadRequest, match="container image"):
        parse_options({"env": env, "container": "debian"})
    assert check_environment(None) is None


def test_pickles_have_to_fit():
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    check_python_of(Environment(python=own), "f")
    check_python_of(Environment(), "f")
    with pytest.raises(BadRequest, match=r"f is pickled by Python .* 3\.99"):
        check_python_of(Environment(python="3.99"), "f")
