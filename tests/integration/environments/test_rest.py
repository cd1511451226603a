"""Environments of jobs that come as JSON: the hub locks them, in the words of a job file."""

from pathlib import Path

import pytest

from .conftest import load

pytestmark = pytest.mark.slow

programs_for_tests = load("programs_for_tests", Path(__file__).parents[2] / "programs.py")
programs = programs_for_tests.programs


def create(hub, **fields):
    answer = hub.http.post("/api/v1/jobs", json={"items": [{}], **fields})
    return answer.json() if answer.status_code == 201 else answer.json()["error"]["message"]


def test_functions_and_programs_find_the_packages(programs, index):
    index.add("labtools", "1.2", {"labtools.py": "def double(x):\n    return 2 * x\n"}, requires=["labbase>=2"])
    index.add("labbase", "2.5")
    hub = programs.hub()
    programs.node(hub)
    env = {"packages": ["labtools==1.2"]}
    functions = create(hub, function="labtools:double", items=[4, 5], env=env)
    program = {"command": ["python", "-c", "import labbase; print(labbase.VERSION)"]}
    ran = create(hub, program=program, env=env)
    hub.wait_done(functions["id"])
    hub.wait_done(ran["id"])
    assert [each["value"] for each in hub.get(f"/jobs/{functions['id']}/results")["results"]] == [8, 10]
    assert hub.http.get(f"/api/v1/jobs/{ran['id']}/outputs/0/stdout").text == "2.5\n"


def test_what_is_no_environment_is_told(programs, index, tmp_path):
    hub = programs.hub()
    said = create(hub, function="math:sqrt", env={"packages": ["no_such_package_here==1"]})
    assert said.startswith("env: it can't be resolved:\n")
    assert "no-such-package-here" in said
    assert str(tmp_path) not in said
    for each in (
        "-r /etc/passwd",
        "./x",
        "/etc",
        "x @ file:///etc",
        "git+https://example.org/x",
        "a\n-r b",
        "",
        "x; -r y @",
    ):
        said = create(hub, function="math:sqrt", env={"packages": [each]})
        assert said.startswith("env: packages: ")
        assert said.endswith('is not a name with a version, such as "numpy==2.3"')
    for python in ("2.7", "3", "3.12.1", "3.9"):
        assert create(hub, function="math:sqrt", env={"python": python}).startswith(f"env: python='{python}' is not")
    assert "env" in create(hub, function="math:sqrt", env={"project": "."})
    both = create(hub, function="math:sqrt", env={}, container="debian")
    assert both == "env: a container image has its own packages; leave out one of the two"
