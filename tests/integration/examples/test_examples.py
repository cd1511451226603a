"""Each example as a user runs it: a program of its own, on this computer and on a hub with two nodes."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fallow.demo.fleet import Fleet

EXAMPLES = Path(__file__).parents[3] / "examples"
TIMEOUT_S = 200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet():
    with Fleet(2) as running:
        yield running


@pytest.fixture(params=["embedded", "hub"])
def run(request, tmp_path):
    """Run an example by name with arguments; return what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
    more = []
    if request.param == "hub":
        fleet = request.getfixturevalue("fleet")
        environment["FALLOW_TOKEN"] = fleet.token
        more = ["--hub", fleet.url]

    def run(name, *arguments):
        command = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments), *more]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr, done.stderr
        return done.stdout

    return run


def test_pi(run):
    output = run("pi.py", "--digits", 120)
    assert "14159265358979323846264338327950288419716939937510" in output
    assert "Chudnovsky's formula gives the same digits." in output


def test_annealing(run):
    output = run("annealing.py", "--cities", 20, "--steps", 25_000, "--searches", 3)
    first, last = output.splitlines()[0], output.splitlines()[-1]
    start, found = float(first.split()[-2]), float(last.split(":")[1].split(",")[0])
    assert found < start / 2
    assert "the shortest of 3" in last


def test_document_search(run):
    output = run("document_search.py", "--limit", 150)
    lines = output.splitlines()
    assert "among 150 texts" in lines[0]
    assert len(lines) == 11
    distances = [float(line.split()[0]) for line in lines[1:]]
    assert distances == sorted(distances)


def test_document_search_in_a_folder_of_ones_own(run, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in {
        "near.txt": "the owl hunts at night",
        "far.txt": "steel and rail",
        "me.txt": "owl night",
    }.items():
        (folder / name).write_text(text)
    output = run("document_search.py", folder, folder / "me.txt")
    assert [line.split()[1] for line in output.splitlines()[1:]] == ["me.txt", "near.txt", "far.txt"]


def test_nbody(run):
    output = run("nbody.py", "--clusters", 6, "--bodies", 16, "--steps", 10)
    assert output.count("half-mass radius") == 7
    assert "6 clusters of 16 stars" in output


def test_sweep(run, tmp_path):
    output = run("sweep.py", "--values", 5, "--seeds", 4, "--out", tmp_path / "out")
    assert "20 epidemics" in output
    with (tmp_path / "out" / "sweep.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 20
    assert {row["r0"] for row in rows} == {"0.5", "1.375", "2.25", "3.125", "4.0"}
    plot = ElementTree.parse(tmp_path / "out" / "sweep.svg")
    assert len(plot.findall(".//{http://www.w3.org/2000/svg}circle")) == 20


def test_heat_as_a_job_file(tmp_path):
    """The same program by hand and by the grid."""
    home = EXAMPLES / "heat"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
    command = [sys.executable, "-m", "fallow", "submit", str(home / "sweep.toml"), "--embedded", "--to", "out"]
    done = subprocess.run(
        [*command, "--by", "parameters"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 30
    place = tmp_path / "out" / "material=iron,length=0.4,seconds=10"
    by_hand = [sys.executable, str(home / "heat.py"), "--material", "iron", "--length", "0.40", "--seconds", "10"]
    (tmp_path / "materials.csv").write_bytes((home / "materials.csv").read_bytes())
    said = subprocess.run(by_hand, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout
    assert (place / "stdout").read_text() == said
    assert (place / "profile.csv").read_bytes() == (tmp_path / "profile.csv").read_bytes()
