"""`fallow demo` as a user runs it: real processes, a real loss, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from fallow.demo.cli import app
from fallow.demo.fleet import Fleet
from fallow.demo.pi import all_digits
from fallow.model.errors import FallowError

LIMIT_S = 200
DIGITS, TASKS = 1098, 122

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def start(tmp_path):
    """Start `fallow demo` with arguments, its temporary folders below tmp_path; ended if the test does not."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
    environment["TMPDIR"] = str(tmp_path)
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "fallow", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def processes_in(folder):
    """Return the processes that were started with `folder` as their place for temporary files."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_nothing_left(folder):
    deadline = time.monotonic() + 60
    while left := processes_in(folder):
        assert time.monotonic() < deadline, [(each.pid, each.cmdline()) for each in left]
        psutil.wait_procs(left, timeout=0.1)
    assert [each.name for each in Path(folder).iterdir()] == []


@pytest.mark.long
def test_loses_a_node_and_gets_every_digit(start, tmp_path):
    # What is left at the kill must keep one node busy for longer than the other is away: more than 6 s.
    process = start("--digits", str(DIGITS), "--json")
    output, story = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, story
    figures = json.loads(output)
    assert figures["is_right"]
    assert figures["tasks"] == TASKS
    checksum = sha256(all_digits(DIGITS).encode()).hexdigest()
    assert figures["facts"]["sha256"] == checksum
    assert figures["speedup"] == pytest.approx(figures["serial_s"] / figures["grid_s"])
    assert figures["away_s"] > 0
    events = (
        r"hub at http://127\.0\.0\.1:\d+",
        r"killed node-2 \(SIGKILL",
        r"its leased tasks went back to the queue after [\d.]+ s",
        r"node-2 joined again, [\d.]+ s after it was killed",
        r"the grid took [\d.]+ s \(tasks: node-1 \d+, node-2 \d+\)",
        f"sha256 of the {DIGITS:,} digits: {checksum}",
        f"all {DIGITS:,} digits agree",
        f"speed-up {figures['speedup']:.2f} with 2 nodes, one of them away",
    )
    at = [found.start() if (found := re.search(event, story)) else None for event in events]
    assert None not in at, story
    assert at == sorted(at), story
    assert 0.5 <= done_at_the_kill(story) <= 0.75, story
    assert_nothing_left(tmp_path)


def done_at_the_kill(story):
    """Return the share of the tasks that were done: the first line of progress that follows is of the same look."""
    before, after = story.split("killed node-2", 1)
    assert all(int(done) < TASKS / 2 for done in re.findall(r"grid: (\d+) of", before)), story
    return int(re.search(rf"grid: (\d+) of {TASKS} tasks", after).group(1)) / TASKS


def test_a_wrong_digit_is_told_and_is_1(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("fallow.demo.pi.all_digits", lambda digits: "3" * digits)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(app, ["--digits", "30", "--no-kill", "--no-compare"])
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert done.exit_code == 1, done.output
    assert "WRONG: 24 digits differ from Chudnovsky's formula, the first at 0" in done.output
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_programs_and_the_options(start):
    told, errors = start("--help").communicate(timeout=LIMIT_S)
    assert errors == ""
    for word in ("pi:", "search:", "nbody:", "sweep:", "--digits", "--nodes", "--no-kill"):
        assert word in told, told


def test_undisturbed_with_one_node_and_no_comparison(start, tmp_path):
    process = start("--digits", "100", "--nodes", "1", "--no-kill", "--no-compare")
    story, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, story + errors
    assert errors == ""
    assert "killed" not in story
    assert "speed-up" not in story
    assert "all 100 digits agree" in story
    assert_nothing_left(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("program", ["search", "nbody", "sweep"])
def test_the_other_programs(program, start, tmp_path):
    process = start(program, "--no-kill", "--no-compare", "--json")
    output, story = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, story
    assert json.loads(output)["is_right"]
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(number, start, tmp_path):
    process = start("--digits", "3000", "--no-compare")
    for line in process.stdout:
        if "a hub at" in line:
            break
    process.send_signal(number)
    story, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, story + errors
    assert "stopped; nothing is left running" in story
    assert "Traceback" not in errors
    assert_nothing_left(tmp_path)


def test_a_program_that_is_not_there_is_refused(start):
    process = start("tetris")
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert "tetris" in errors


def test_a_hub_that_cannot_start_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("fallow.demo.fleet.secrets.token_urlsafe", lambda size: "short")
    with pytest.raises(FallowError, match="hub ended with status"):
        with Fleet(1):
            pass
    assert list(tmp_path.iterdir()) == []
