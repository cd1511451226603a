"""The benchmark runs, in its smallest form; what it measures is not judged here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
DOCS = Path(__file__).parents[3] / "docs"
TIMEOUT_S = 200
SYSTEMS = {"embedded", "hub", "pool"}
HUB_ONLY, POOL_ONLY, NOT_HERE = {"queued in hub"}, {"chunks"}, {"bag"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(program, *arguments):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
    command = [sys.executable, str(BENCHMARKS / program), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "results.json"
    run("bench.py", "--scale", "small", "--output", path)
    return path


def titles():
    program = "import json, plan; print(json.dumps({row.key: row.title for row in plan.ROWS}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_row_is_measured_for_fallow_and_the_pool(results):
    found = json.loads(results.read_text())
    assert found["errors"] == []
    assert set(found["samples"]) == set(titles()) - NOT_HERE
    for row, samples in found["samples"].items():
        assert set(samples) == ({"hub"} if row in HUB_ONLY else {"pool"} if row in POOL_ONLY else SYSTEMS), row
        assert all(len(values) == found["runs"] for values in samples.values()), row
    assert found["pi"]["digits"] > 0
    assert {"machine", "python", "commit", "versions", "floor", "at"} <= set(found)


def test_the_page_is_written_from_the_results(results, tmp_path):
    page = (DOCS / "performance.md").read_text()
    (tmp_path / "performance.md").write_text(page)
    run("table.py", results, tmp_path)
    written = (tmp_path / "performance.md").read_text()
    for row, title in titles().items():
        assert (f"| {title}, " in written) == (row not in NOT_HERE), row
    head = page.partition("<!-- side by side: begin -->")[0]
    assert written.startswith(head)
    assert (tmp_path / "performance.svg").read_text().startswith("<svg ")
    assert json.loads((tmp_path / "performance.json").read_text()) == json.loads(results.read_text())


def test_a_peer_that_fails_is_named_and_the_rest_goes_on(tmp_path):
    """A peer that pip can't find; the pool beside it is measured."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "BENCH_ENVIRONMENTS": str(tmp_path / "peers")}
    path = tmp_path / "results.json"
    command = [
        sys.executable,
        str(BENCHMARKS / "bench.py"),
        "--scale",
        "small",
        "--systems",
        "pool",
        "--peers",
        "joblib",
    ]
    done = subprocess.run(
        [*command, "--workloads", "wait", "--output", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert [(each["system"], each["where"]) for each in found["errors"]] == [("joblib", "installation")]
    assert "No matching distribution" in found["errors"][0]["error"]
    assert set(found["samples"]["wait"]) == {"pool"}


def test_scale_is_measured_added_to_a_file_and_drawn(tmp_path):
    """One size of one scenario for real, beside figures that are made up."""
    path = tmp_path / "scale.json"
    made = [
        {"what": "task", "size": 1000, "ns": 3000.0}, {"what": "task", "size": 10**8, "ns": 12.5},
        {"what": "lease", "size": 1, "us": 321.0}, {"what": "lease", "size": 10_000, "us": 123.0},
        {"what": "restart", "size": 10**6, "s": 0.81, "cpu_s": 0.61, "mb": 64.0},
    ]  # fmt: skip
    path.write_text(json.dumps([{"at": "before", "figures": made}]))
    run("load/scale.py", "submissions", "--most", 1, "--seconds", 0.1, "--json", path)
    _, ours = json.loads(path.read_text())
    assert {"machine", "commit", "load", "at"} <= set(ours)
    assert [(each["what"], each["size"]) for each in ours["figures"]] == [("submissions", 1)]
    assert ours["figures"][0]["per_s"] > 0
    page = (DOCS / "performance.md").read_text()
    (tmp_path / "performance.md").write_text(page)
    run("load/scale_plot.py", tmp_path)
    written = (tmp_path / "performance.md").read_text()
    assert written.startswith(page.partition("<!-- scale: begin -->")[0])
    assert "| hub's CPU per lease of one task, us | 321 | 123 |" in written
    assert f"- commit: {ours['commit']}" in written
    drawn = (tmp_path / "scale.svg").read_text()
    assert drawn.count("<circle ") == 2 + 2 + 2 + 2, "each point of each line"
    assert ">321</text>" in drawn
