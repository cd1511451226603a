"""What `Environment.capture` finds that a function needs."""

import functools
import sys
import types

import pytest

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


def test_versions_of_all_others_are_known(installed):
    (installed / "pear-2.0.dist-info" / "direct_url.json").write_text("{}")  # not from an index: it can't be asked for
    import pear

    assert found(pear.eat) == []
    assert "apple==1.5" in needed_packages([pear.eat])[1]
    assert not any(each.startswith("pear==") for each in needed_packages([])[1])


def test_what_brings_a_module():
    assert requirement_of("plum_jam") == "Plum.Jam-Kitchen==3.0"
    assert requirement_of("nobody_has_it") == "nobody_has_it"


def test_modules_without_files():
    module = types.ModuleType("made_up")
    module.g = eval("lambda x: x", {"__name__": "made_up"})
    assert found(module.g, module) == []
