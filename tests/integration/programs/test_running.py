"""What a program finds and leaves: its folder, its inputs, its streams, its outputs."""

import json
import os
import sys
from pathlib import Path

import pytest

from fallow import Grid
from fallow.client.programs import ProgramResult

pytestmark = pytest.mark.slow

NEST = f'{sys.executable} -c \'import os; [(os.mkdir("deep"), os.chdir("deep")) for _ in range(3000)]\''
"""A script that nests folders deeper than any path can say."""
LARGE = 300_000
"""Bytes; beyond what travels inside a result or a program."""


def test_a_sweep_runs_once_for_each_parameter_and_its_results_come_in_order(grid):
    job = grid.run("sh -c 'echo {x} > out.txt; echo said {index}'", outputs=["out.txt"], params={"x": range(10, 16)})
    results = list(job)
    assert [type(each) for each in results] == [ProgramResult] * 6
    assert [each.read("out.txt") for each in results] == [b"%d\n" % x for x in range(10, 16)]
    assert [each.stdout for each in results] == [f"said {i}\n" for i in range(6)]
    assert [each.parameters for each in results] == [{"x": x} for x in range(10, 16)]
    first = results[0]
    assert (first.exit_code, first.outputs, first.index) == (0, {"out.txt": 3}, 0)
    assert first.seconds > 0
    assert first.node
    assert "exit code 0" in repr(first)


def test_each_attempt_has_a_fresh_folder_which_goes_with_it(grid):
    script = "ls -a; pwd; touch left; mkdir d; touch d/f; chmod 0 d; echo $TMPDIR; touch $TMPDIR/left"
    results = grid.run(["sh", "-c", script], params={"x": range(6)}).result(60)
    lines = [each.stdout.split() for each in results]
    assert all(each[:2] == [".", ".."] for each in lines)
    places = {place for each in lines for place in each[2:]}
    assert not any(os.path.exists(place) and os.listdir(place) not in ([], ["files"]) for place in places)


def test_small_and_large_inputs_folders_and_executables_arrive(grid, tmp_path):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "deep" / "small.txt").write_text("small")
    (data / "large.bin").write_bytes(os.urandom(LARGE))
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\ncat data/deep/small.txt\nwc -c < data/large.bin\ncat renamed $1\n")
    tool.chmod(0o755)
    large_tool = tmp_path / "large-tool"
    large_tool.write_bytes(b"#!/bin/sh\necho large tool\nexit 0\n" + b"#" * LARGE)
    large_tool.chmod(0o755)
    inputs = {"data": data, "tool": tool, "renamed": b"given as bytes", "b": large_tool}
    found = grid.run("sh -c './tool {x}; ./b'", inputs={**inputs, "x.txt": b"!"}, params={"x": ["x.txt"]}).result(60)
    assert found[0].stdout.split() == ["small300000", "given", "as", "bytes!large", "tool"]


def test_large_inputs_are_not_copied_for_a_task_and_cannot_be_changed(grid, tmp_path):
    large = tmp_path / "large.bin"
    content = os.urandom(LARGE)
    large.write_bytes(content)
    script = "import os; print(os.path.realpath('large.bin')); print(os.stat('large.bin').st_ino)"
    params = {"x": range(4)}
    found = grid.run([sys.executable, "-c", script], inputs=[large], params=params).result(60)
    assert len({each.stdout for each in found}) == 1
    vandal = "echo more >> large.bin; echo $?; wc -c < large.bin; rm large.bin; echo own > large.bin; cat large.bin"
    found = grid.run(["sh", "-c", vandal], inputs=[large], params=params).result(60)
    assert [each.stdout.split() for each in found] == [[found[0].stdout.split()[0], str(LARGE), "own"]] * 4
    assert found[0].stdout.split()[0] != "0"
    assert "denied" in found[0].stderr or "cannot create" in found[0].stderr
    (same,) = grid.run("cat large.bin", inputs=[large])
    assert same.stdout.encode() == content.decode("utf-8", "replace").encode()


def test_outputs_are_found_by_name_folder_and_pattern_whatever_their_size(grid):
    script = f"""
import os
os.makedirs("logs/deep")
open("small.txt", "w").write("é")
open("large.bin", "wb").write(b"\\xff" * {LARGE})
open("logs/a.log", "w").write("a")
open("logs/deep/b.log", "w").write("b")
open("logs/deep/c.txt", "w").write("c")
open("tool.sh", "w").write("#!/bin/sh")
os.chmod("tool.sh", 0o755)
print("x" * {LARGE})
"""
    outputs = ["small.txt", "*.bin", "logs/**/*.log", "tool.sh"]
    (found,) = grid.run([sys.executable, "-c", script.replace("{", "{{").replace("}", "}}")], outputs=outputs)
    assert found.outputs == {
        "large.bin": LARGE, "logs/a.log": 1, "logs/deep/b.log": 1, "small.txt": 2, "tool.sh": 9,
    }  # fmt: skip
    assert found.read("small.txt").decode() == "é"
    assert found.read("large.bin") == b"\xff" * LARGE
    assert found.path("large.bin").read_bytes() == b"\xff" * LARGE
    assert found.path("logs/a.log").read_text() == "a"
    assert len(found.stdout) == LARGE + 1
    (whole,) = grid.run("sh -c 'mkdir -p d/e; echo 1 > d/e/f; echo 2 > d/g'", outputs=["d"])
    assert sorted(whole.outputs) == ["d/e/f", "d/g"]


def test_a_pattern_does_not_match_inputs_that_stayed_as_they_were(grid, tmp_path):
    Path("same.txt").write_text("same")
    Path("changed.txt").write_text("before")
    script = "echo after > changed.txt; echo new > new.txt"
    (found,) = grid.run(["sh", "-c", script], inputs=["same.txt", "changed.txt"], outputs=["*.txt"])
    assert sorted(found.outputs) == ["changed.txt", "new.txt"]


def test_an_input_is_older_than_anything_that_the_program_writes(grid):
    """Or one that is overwritten at once, with as many bytes, might look as if it had stayed as it was."""
    code = "import os, time; print(time.time() - os.stat('in.txt').st_mtime > 0.9); open('in.txt', 'w').write('after ')"
    (found,) = grid.run([sys.executable, "-c", code], inputs={"in.txt": b"before"}, outputs=["*.txt"])
    assert (found.stdout, list(found.outputs)) == ("True\n", ["in.txt"])


def test_standard_input_comes_from_a_text_or_a_file(grid):
    Path("in.txt").write_text("from a file")
    texts = grid.run("cat", stdin="{x}{{}}", params={"x": ["a", "b c"]}).result(60)
    assert [each.stdout for each in texts] == ["a{}", "b c{}"]
    (found,) = grid.run("cat", stdin_file="in.txt", inputs=["in.txt"])
    assert found.stdout == "from a file"
    (none,) = grid.run("cat")
    assert none.stdout == ""


def test_arguments_are_never_split_and_a_shell_gets_them_quoted(grid):
    nasty = ["two words", "$(touch /tmp/owned)", "'\"", "*", "{x}", ""]
    plain = grid.run("printf %s {x}", params={"x": nasty}).result(60)
    assert [each.stdout for each in plain] == nasty
    shelled = grid.run("printf %s {x} | cat", shell=True, params={"x": nasty}).result(60)
    assert [each.stdout for each in shelled] == nasty


def test_environment_variables_and_formats(grid):
    script = 'printf "%s|%s|%s|%s" "$OWN" "$FALLOW_INDEX" "$FALLOW_NODE" "$1"'
    command = ["sh", "-c", script, "sh", "{x:.3f}/{flag}"]
    found = grid.run(command, environ={"OWN": "x={x}"}, params={"x": [0.5], "flag": [True]}).result(60)
    own, index, node, argument = found[0].stdout.split("|")
    assert (own, index, argument) == ("x=0.5", "0", "0.500/true")
    assert node == found[0].node != ""


def test_an_executable_for_each_platform(grid, tmp_path):
    here = next(iter(grid.nodes())).info
    tool = tmp_path / "calc"
    tool.write_text("#!/bin/sh\necho calculated $1\n")
    (found,) = grid.run("{executable} 7", executables={f"{here.os}-{here.arch}": tool, "plan9-mips": tool})
    assert found.stdout == "calculated 7\n"
    job = grid.run("{executable} 7", executables={"plan9-mips": tool})
    job._demand()
    said = job.explain()
    assert any("plan9-mips" in line and f"{here.os}-{here.arch}" in line for line in said), said
    job.cancel()


def test_what_a_program_leaves_running_ends_with_it(grid, tmp_path):
    script = f"""
import os, time
folder = {str(tmp_path)!r}
for way in (0, 1, 2):
    if os.fork() == 0:
        if way:
            os.setsid()
        if way == 2 and os.fork():
            os._exit(0)
        os.close(1)
        with open(folder + "/new-%d" % way, "w") as file:
            file.write(str(os.getpid()))
        os.rename(folder + "/new-%d" % way, folder + "/pid-%d" % way)
        time.sleep(600)
while len([name for name in os.listdir(folder) if name.startswith("pid-")]) < 3:
    time.sleep(0.01)
"""
    (found,) = grid.run([sys.executable, "-c", script])
    assert found.exit_code == 0
    pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
    assert len(pids) == 3
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_results_are_json_for_everybody_else(grid):
    job = grid.run("sh -c 'echo {x}'", params={"x": [1, 2]})
    lines = job.map(lambda value: value["stdout"]["text"]).result(60)  # a function over a program's results
    assert lines == ["1\n", "2\n"]
    assert json.dumps(job.info().spec.stages) == '["run"]'


def test_parameters_may_come_from_an_iterator_that_never_ends(grid):
    def forever():
        x = 0
        while True:
            yield {"x": x}
            x += 1

    job = grid.run("echo {x}", params=forever())
    found = [next_.stdout for next_, _ in zip(job, range(5), strict=False)]
    assert found == [f"{x}\n" for x in range(5)]
    job.cancel()


def test_many_small_files_travel_as_one(grid):
    script = "for i in $(seq 500); do printf %0500d $i > $i.txt; done"
    (found,) = grid.run(script, shell=True, outputs=["*.txt"])
    assert len(found.outputs) == 500
    assert found.read("77.txt").decode().strip("0") == "77"
    assert found._files == ()  # no blob but the page itself


@pytest.mark.parametrize(
    "mess",
    [
        "rm -rf $TMPDIR/* $TMPDIR; rm ../stdout ../stderr",
        "rm ../stdout; mkfifo ../stdout; ln -sf /etc/passwd ../stderr",
        "cd ..; mv files gone; ln -s gone files; touch gone/x",
        "chmod 0 ../tmp .; touch ../own; mkdir -p ../../other",
        "rm -rf ../../*",
        f"cd ..; {NEST}",
    ],
)
def test_no_mess_of_one_task_is_left_to_the_next(mess):
    with Grid(slots=1, progress=False) as grid:
        command = ["sh", "-c", "if test {x} = 0; then " + mess + "; fi; ls -A; ls -A $TMPDIR; echo end"]
        results = grid.run(command, params={"x": [0, 1, 2]}).result(60, return_exceptions=True)
        assert [each.stdout for each in results[1:]] == ["end\n"] * 2, results
