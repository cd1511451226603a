"""What `Environment.capture` finds that a function needs."""

import functools
import json
import sys
import types

import pytest

from fallow import BadRequest
from fallow.client.needed import needed_packages, requirement_of

MODULES = {"apple": "1.5", "pear": "2.0", "plum_jam": "3.0"}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """Three packages; one module has another name than its package; one came from a folder."""
    place = tmp_path / "site-packages"
    place.mkdir()
    for name, version in MODULES.items():
        (place / f"{name}.py").write_text("def eat(*_):\n    pass\nclass Fruit:\n    def eat(self):\n        pass\n")
        package = "Plum.Jam-Kitchen" if name == "plum_jam" else name
        info = place / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(f"{name}\n")
    monkeypatch.syspath_prepend(str(place))
    yield place
    for name in (*MODULES, "kitchen", "kitchen.pots"):
        sys.modules.pop(name, None)


def found(*functions):
    return [
        each
        for each in needed_packages(functions)[0]
        if each.partition("==")[0] in {"apple", "pear", "Plum.Jam-Kitchen"}
    ]


def by_value(code):
    """Return the function f of a program's main module."""
    names = {"__name__": "__main__"}
    exec(code, names)
    return names["f"]


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("def f(x): return x", []),
        ("import apple\ndef f(x): return apple.eat(x)", ["apple==1.5"]),
        ("import apple, pear\ndef f(x): return apple.eat(x)", ["apple==1.5"]),
        ("import apple, pear\ndef f(x): return apple.pear", ["apple==1.5", "pear==2.0"]),
        ("from pear import eat as g\ndef f(x): return g(x)", ["pear==2.0"]),
        ("def f(x):\n    import plum_jam", ["Plum.Jam-Kitchen==3.0"]),
        ("import pear\ndef g(x): return pear.eat(x)\ndef f(x): return [g(y) for y in x]", ["pear==2.0"]),
        ("import apple\nclass C:\n    def m(self): return apple\ndef f(x): return C().m()", ["apple==1.5"]),
        ("import apple\nf = lambda x, g=apple.eat: g(x)", ["apple==1.5"]),
        (
            "import apple\ndef outer():\n    a = apple.Fruit()\n    return lambda x: a.eat()\nf = outer()",
            ["apple==1.5"],
        ),
        ("import apple, functools\nf = functools.partial(apple.eat, 1)", ["apple==1.5"]),
        ("import apple\nf = apple.Fruit().eat", ["apple==1.5"]),
        ("import apple\nclass C(apple.Fruit): pass\ndef f(x): return C", ["apple==1.5"]),
    ],
)
def test_functions_of_the_main_program(code, needed):
    assert found(by_value(code)) == needed


def test_installed_functions():
    import apple

    assert found(apple.eat) == ["apple==1.5"]
    assert found(len, functools.reduce) == []


def test_local_modules_are_followed(tmp_path, monkeypatch):
    package = tmp_path / "project" / "kitchen"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import pots\ndef cook(x): return pots.boil(x)\n")
    (package / "pots.py").write_text("def boil(x):\n    from apple import eat\n    return eat(x)\n")
    monkeypatch.syspath_prepend(str(tmp_path / "project"))
    import kitchen

    assert found(kitchen.cook) == ["apple==1.5"]


def test_versions_of_all_others_are_known():
    import pear

    needed, pins = needed_packages([pear.eat])
    assert needed == ["pear==2.0"]
    assert {"apple==1.5", "Plum.Jam-Kitchen==3.0"} <= {*pins}


def came_from(installed, url, **more):
    (installed / "pear-2.0.dist-info" / "direct_url.json").write_text(json.dumps({"url": url, **more}))


def test_what_was_installed_from_a_folder_or_a_wheel_travels_from_there(installed, tmp_path):
    import pear

    (tmp_path / "my project").mkdir()
    (tmp_path / "pear-2.0-py3-none-any.whl").write_bytes(b"")
    for place in (tmp_path / "my project", tmp_path / "pear-2.0-py3-none-any.whl"):
        came_from(installed, place.as_uri(), dir_info={})
        assert needed_packages([pear.eat])[0] == [str(place)]
        assert requirement_of("pear") == str(place)
        assert not any(each.startswith("pear==") for each in needed_packages([])[1])
    came_from(installed, "file:///no/longer/there")  # as builders of conda packages leave it
    assert found(pear.eat) == ["pear==2.0"]


def test_what_came_from_elsewhere_is_one_clear_error(installed):
    import pear

    came_from(installed, "https://git.example/pear.git", vcs_info={"vcs": "git", "commit_id": "1"})
    with pytest.raises(BadRequest, match=r"pear was installed from https://git\.example/pear\.git.*build a wheel"):
        needed_packages([pear.eat])
    assert needed_packages([len])[0] == []


@pytest.fixture
def shared(installed):
    """A namespace of three packages."""
    for name in ("one", "two", "three"):
        place = installed / "orchard" / "east" / name
        place.mkdir(parents=True)
        (place / "__init__.py").write_text("def eat(x):\n    return x\n")
        (place / "core.py").write_text("")
        info = installed / f"orchard_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: orchard-{name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"orchard/east/{name}/__init__.py,,\norchard/east/{name}/core.py,,\n")
    yield
    for name in [name for name in sys.modules if name.startswith("orchard")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "code",
    [
        "def f(x):\n    import orchard.east.two",
        "def f(x):\n    from orchard.east import two",
        "def f(x):\n    from orchard.east.two.core import anything",
        "import orchard.east.one, orchard.east.two\ndef f(x): return orchard.east.two.eat(x)",
        "from orchard.east import one, two\ndef f(x): return two.eat(x)",
        "from orchard.east.two import eat\ndef f(x): return eat(x)",
    ],
)
def test_of_a_namespace_only_what_is_used(shared, code):
    assert needed_packages([by_value(code)])[0] == ["orchard-two==1.0"]


def test_local_modules_that_are_imported_only_when_they_run_are_followed(tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "kitchen").mkdir(parents=True)
    (project / "kitchen" / "oven.py").write_text("def bake(x):\n    import plum_jam\n")  # a namespace: no __init__.py
    (project / "larder.py").write_text("from apple import eat\n")
    monkeypatch.syspath_prepend(str(project))
    assert found(by_value("def f(x):\n    from kitchen import oven\n    import larder")) == [
        "apple==1.5", "Plum.Jam-Kitchen==3.0",
    ]  # fmt: skip
    assert "larder" not in sys.modules


def test_large_and_deep_data_is_not_searched():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    names = {"__name__": "__main__", "deep": deep, "large": list(range(3_000_000))}
    exec("import apple\ndef f(x): return deep, large, apple", names)
    assert found(names["f"]) == ["apple==1.5"]
    while deep:  # or freeing it would recurse
        deep = deep[0]


def test_what_brings_a_module(shared):
    assert requirement_of("plum_jam") == "Plum.Jam-Kitchen==3.0"
    assert requirement_of("nobody_has_it") == "nobody_has_it"
    assert requirement_of("cv2") == "opencv-python-headless"  # not installed here, but well known
    assert requirement_of("orchard.east.two") == "orchard-two==1.0"
    assert requirement_of("pear.pips") is None  # no version of here has that
    assert requirement_of("yaml").startswith("PyYAML")


def test_modules_without_files():
    module = types.ModuleType("made_up")
    module.g = eval("lambda x: x", {"__name__": "made_up"})
    assert found(module.g, module) == []
