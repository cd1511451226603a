"""Whose fault it is: the input's (the task fails at once), the environment's (it is tried elsewhere), or just a failure."""

import os
import sys
import time

import pytest
from programs_for_tests import ADMIN

from fallow import BadRequest, EnvironmentFailed, Grid, NotFound, ProgramFailed, TaskOverLimit, TaskTimeout

pytestmark = pytest.mark.slow


def failure_of(job):
    ((_, error),) = job.as_completed(return_exceptions=True)
    return error


def attempts_in(folder):
    return len(list(folder.iterdir()))


@pytest.fixture
def marked(tmp_path):
    """A folder in which each attempt leaves a file."""
    (tmp_path / "attempts").mkdir()
    return tmp_path / "attempts"


def script(folder, then):
    return ["sh", "-c", f"mktemp -p {folder} >/dev/null; echo last words >&2; {then}"]


def test_another_exit_code_is_a_failure_which_retries_try_again(grid, marked):
    error = failure_of(grid.run(script(marked, "exit 3"), retries=2))
    assert isinstance(error, ProgramFailed)
    assert "exit code 3" in str(error)
    assert "last words" in str(error)
    assert attempts_in(marked) == 3


def test_exit_codes_can_be_successes(grid):
    (found,) = grid.run("sh -c 'exit 3'", success_codes=[0, 3])
    assert found.exit_code == 3


def test_a_declared_exit_code_is_never_tried_again(grid, marked):
    error = failure_of(grid.run(script(marked, "exit 4"), input_fault_codes=[4], retries=5))
    assert isinstance(error, ProgramFailed)
    assert "exit code 4, which the job declares as a fault of its input: last words" in str(error)
    assert attempts_in(marked) == 1


def test_a_missing_output_is_never_tried_again(grid, marked):
    error = failure_of(grid.run(script(marked, "exit 0"), outputs=["out.txt"], retries=5))
    assert isinstance(error, ProgramFailed)
    assert "the declared output 'out.txt' is missing (exit code 0): last words" in str(error)
    assert attempts_in(marked) == 1
    error = failure_of(grid.run("true", outputs=["*.csv"]))
    assert "no file matches the declared output '*.csv'" in str(error)


def test_a_signal_and_a_program_that_is_not_there_are_the_environments_fault(grid, marked):
    error = failure_of(grid.run(script(marked, "kill -SEGV $$"), max_retries=1))
    assert isinstance(error, EnvironmentFailed)
    assert "SIGSEGV" in str(error)
    assert attempts_in(marked) == 2
    error = failure_of(grid.run("no-such-program-anywhere {x}", params={"x": [1]}, max_retries=0))
    assert isinstance(error, EnvironmentFailed)
    assert "there is no program 'no-such-program-anywhere'" in str(error)
    error = failure_of(grid.run("no-such-program-anywhere | cat", shell=True, success_codes=[], max_retries=0))
    assert isinstance(error, ProgramFailed)  # the shell ran, and cat was well
    error = failure_of(grid.run("exec no-such-program-anywhere", shell=True, max_retries=0))
    assert isinstance(error, EnvironmentFailed)


def test_a_file_that_is_no_program_is_the_environments_fault(grid, tmp_path):
    (tmp_path / "tool").write_bytes(b"\x7fELF but not really")
    (tmp_path / "tool").chmod(0o755)
    error = failure_of(grid.run("./tool", inputs=["tool"], max_retries=0))
    assert isinstance(error, EnvironmentFailed)
    assert "can't be run" in str(error)


def test_a_task_over_its_time_leaves_nothing(grid, tmp_path):
    error = failure_of(grid.run(["sh", "-c", f"pwd > {tmp_path}/where; sleep 600"], timeout=3))
    assert isinstance(error, TaskTimeout)
    place = (tmp_path / "where").read_text().strip()
    deadline = time.monotonic() + 60
    while os.path.exists(place):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def over_its_time(grid, code):
    """Return how a script that never ends is told to have run too long, once it has come so far as to say something."""
    for timeout in (0.5, 5.0, 30.0):
        error = failure_of(grid.run(["sh", "-c", f"{code}; sleep 600"], timeout=timeout))
        assert isinstance(error, TaskTimeout)
        told, _, words = str(error).partition(": ")
        assert told == f"ran longer than its timeout of {timeout:g} s"
        if words:
            break
    return words, error


def test_a_task_over_its_time_tells_its_last_words(grid):
    words, error = over_its_time(grid, "echo to stdout; printf '%s\n' a b c d e f >&2")
    assert words == "b\nc\nd\ne\nf"
    assert error.__cause__.text == "a\nb\nc\nd\ne\nf"
    assert over_its_time(grid, "echo to stdout")[0] == "to stdout"


@pytest.mark.parametrize(
    "mess",
    [
        "rm ../stderr; ln -s /etc/passwd ../stderr",
        "rm ../stderr; ln /etc/hostname ../stderr || ln -s /etc/hostname ../stderr",
        "rm ../stderr; mkfifo ../stderr",
        "cd /; mv $UP $UP-moved; mkdir -p $UP/files; ln -s /etc/passwd $UP/stderr",
        "cd /; W=$(dirname $UP); mv $W $W-moved; ln -s /etc $W",
    ],
)
def test_last_words_are_never_those_of_another_file(grid, mess, tmp_path):
    for timeout in (1, 30):
        code = f"UP=$(dirname $PWD); {mess}; touch {tmp_path}/done; sleep 600"
        error = failure_of(grid.run(["sh", "-c", code], timeout=timeout))
        assert str(error) == f"ran longer than its timeout of {timeout} s"
        if (tmp_path / "done").exists():
            break


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("ln -s /etc/passwd out", "is a link to '/etc/passwd', outside of the task's working folder"),
        ("ln -s ../../../../../../../../../etc out", "outside of the task's working folder"),
        ("ln -s /etc d; cp d/passwd x; ln -s d/passwd out", "outside of the task's working folder"),
        ("ln -s nowhere out", "is missing"),
        ("mkfifo out", "is not a plain file"),
        ("mkdir out; ln -s /etc/passwd out/x", "outside of the task's working folder"),
    ],
)
def test_outputs_that_lead_outside_are_refused(grid, left, said):
    error = failure_of(grid.run(["sh", "-c", left], outputs=["out"]))
    assert isinstance(error, ProgramFailed)
    assert said in str(error)


def test_folders_in_folders_by_the_thousand_are_no_output_and_harm_nobody(grid):
    nest = "import os; [(os.mkdir('deep'), os.chdir('deep')) for _ in range(3000)]"
    for options, kind, said in (
        ({"outputs": ["deep"]}, ProgramFailed, "over 200 deep; pack them in an archive"),
        ({"outputs": ["**/x"]}, ProgramFailed, "over 200 deep; pack them in an archive"),
        ({"limits": {"disk": "100MB"}}, TaskOverLimit, "went over its limit of 100 MB of disk space in its folder"),
    ):
        wait = "; import time; time.sleep(600)" if "limits" in options else ""
        error = failure_of(grid.run([sys.executable, "-c", nest + wait], **options))
        assert isinstance(error, kind)
        assert said in str(error)
    assert grid.run("echo well").result(60)[0].stdout == "well\n"


def test_a_link_inside_of_the_folder_is_as_good_as_a_file(grid):
    (found,) = grid.run("sh -c 'echo 1 > a; ln -s a out'", outputs=["out"])
    assert found.read("out") == b"1\n"


def test_a_parameter_can_not_lead_an_output_outside(grid):
    job = grid.run("touch ../stolen", outputs=["{x}"], params={"x": ["../stolen", "/etc/passwd", "a/../../b"]})
    errors = [error for _, error in job.as_completed(return_exceptions=True)]
    assert len(errors) == 3
    assert all("lies outside of the task's working folder" in str(error) for error in errors)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"command": "calc {y}"}, "command: there is no parameter y for '{y}'; there are index, x;"),
        ({"command": "calc {0}"}, "is no placeholder"),
        ({"command": "calc {x.real}"}, "is no placeholder"),
        ({"command": "calc {x!r}"}, "is no placeholder"),
        ({"command": "calc {x:99999}"}, "is none for one parameter"),
        ({"command": "calc {"}, "write {{ and }} for braces"),
        ({"command": "calc '"}, "can't be split into words"),
        ({"command": ""}, "command: it is a program"),
        ({"command": "calc", "inputs": ["not-there.txt"]}, "inputs: not-there.txt is not there"),
        ({"command": "calc", "inputs": {"../x": b""}}, "lies outside of the task's working folder"),
        ({"command": "calc", "inputs": {"a": b"", "a/b": b""}}, "'a' is a file and a folder"),
        ({"command": "calc", "inputs": "one.txt"}, "write a list"),
        ({"command": "calc", "outputs": ["../x"]}, "outputs: '../x' lies outside of the task's working folder"),
        ({"command": "calc", "outputs": ["/x"]}, "lies outside"),
        ({"command": "calc", "outputs": ["C:/x"]}, "lies outside"),
        ({"command": "calc", "outputs": ["a\\b"]}, 'folders are separated by "/"'),
        ({"command": "calc", "outputs": ["stdout"]}, "which is kept anyway"),
        ({"command": "calc", "outputs": "x"}, "write a list"),
        ({"command": "{executable}"}, "needs `executables`"),
        ({"command": "calc", "executables": {"linux-x86_64": sys.executable}}, "does not use {executable}"),
        ({"command": "{executable}", "executables": {"Linux": sys.executable}}, "is no platform"),
        ({"command": "calc", "stdin": "", "stdin_file": "x"}, "not from both"),
        ({"command": "calc", "success_codes": [1], "input_fault_codes": [1]}, "can't be a success as well"),
        ({"command": "calc", "success_codes": ["x"]}, "exit codes are whole numbers"),
        ({"command": "calc", "params": {"index": [1]}}, "is no name"),
        ({"command": "calc", "params": {"x": [object()]}}, "neither a text nor a number"),
        ({"command": "calc", "params": {("x", "y"): [(1, 2), (3,)]}}, "row 1 of x, y is (3,), not 2 values"),
        ({"command": "calc", "params": [{"x": 1}, {"y": 1}], "check": True}, "parameters 1: there are y"),
        ({"command": "calc", "params": 5}, "is no mapping"),
        ({"command": "calc", "params": {"x": range(10**6), "y": range(10**6)}}, "over the limit of 1,000,000,000"),
        ({"command": "calc", "nice": 3}, "unknown option nice"),
    ],
)
def test_bad_input_is_one_clear_error(grid, arguments, said):
    arguments = {"params": {"x": [1]}, **arguments}
    is_late = arguments.pop("check", False)
    with pytest.raises(BadRequest) as caught:
        job = grid.run(arguments.pop("command"), **arguments)
        if is_late:
            job.result(30)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_that_is_not_there_is_named(grid):
    (found,) = grid.run("sh -c 'echo 1 > a'", outputs=["a"])
    with pytest.raises(NotFound, match="put out no 'b', but a"):
        found.read("b")


def test_a_fault_of_one_node_is_made_good_by_another(programs, tmp_path):
    """The program is on the path of one node only."""
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "rare-tool"
    tool.write_text("#!/bin/sh\necho $FALLOW_NODE\n")
    tool.chmod(0o755)
    hub = programs.hub()
    poor = programs.node(hub, name="poor")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        programs.node(hub, name="rich")
    with Grid(hub.url, token=ADMIN) as grid:
        job = grid.run("rare-tool", params={"x": range(200)}, max_retries=3)
        found = job.result(60)
        assert {each.stdout for each in found} == {"rich\n"}
        assert {each.node for each in found} == {"rich"}
        (error,) = grid.run("nowhere-tool").result(60, return_exceptions=True)
        assert str(error) in {
            f"there is no program 'nowhere-tool' on nodes {names}; tried 4 times"
            for names in ("poor, rich", "rich, poor")
        }
    tried = poor.said().count("there is no program 'rare-tool'")
    assert 0 < tried < 20, "a few that it had been given at first"
