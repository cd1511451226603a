"""Job files: what they may say, and that faults are told with line and key."""

import json
from pathlib import Path

import pytest

from fallow.client.job_file.form import JobFile, json_schema
from fallow.client.job_file.lines import lines_of
from fallow.client.job_file.reading import MAX_FILE_BYTES, read_job_file
from fallow.model.errors import BadRequest

ROOT = Path(__file__).parents[3]

FULL = """\
name = "all"
command = "{executable} --x {x} -o out-{a}-{t}.txt"
inputs = { "mesh.dat" = "data/mesh.dat", "folder" = "data" }
outputs = ["out-*.txt"]
csv = "points.csv"
environ.SEED = 7
stdin = "{x}"
success_codes = [0, 2]
input_fault_codes = [3]
timeout = 60
retries = 1
max_retries = 2
priority = 5
speculate = false
sandbox = "confined"
network = true

[executables]
linux-x86_64 = "calc"

[parameters]
x = [1, 2.5, "three", true]
y = { start = 0, stop = 10, step = 5 }
t = { start = 0, stop = 1, count = 3 }

[zip]
a = [1, 2]
b = [3, 4]

[requires]
cores = 1
tags = ["lab"]

[limits]
memory = "200MB"
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mesh.dat").write_text("mesh")
    (tmp_path / "calc").write_text("#!/bin/sh")
    (tmp_path / "points.csv").write_text("p,q\n1,2\n3,4\n")

    def write(text):
        path = tmp_path / "job.toml"
        path.write_text(text)
        return path

    return write


def test_all_keys_together(write):
    job = read_job_file(write(FULL))
    assert len(job.rows) == 2 * 2 * 4 * 2 * 3
    first, last = list(job.rows)[:: len(job.rows) - 1]
    assert first == {"p": 1, "q": 2, "a": 1, "b": 3, "x": 1, "y": 0, "t": 0.0}
    assert last == {"p": 3, "q": 4, "a": 2, "b": 4, "x": True, "y": 5, "t": 1.0}
    program = job.prepared.program
    assert [file.path for file in program.inputs] == ["mesh.dat", "folder/mesh.dat"]
    assert program.executables["linux-x86_64"].executable
    assert (program.environ, program.success_codes, program.input_fault_codes) == ({"SEED": "7"}, (0, 2), (3,))
    assert job.options["timeout"] == 60
    assert job.options["limits"] == {"memory": "200MB"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('comand = "calc"', "line 2, key comand: there is no such key; known are command, name"),
        ("retries = 1.5", "line 2, key retries: expected `int`, got `float`"),
        ("retries = -1", "line 2, key retries: expected `int` >= 0"),
        ("parameters.x = [[1]]", "line 2, key parameters.x: expected"),
        ("[parameters]\na = 1\nx = 1979-05-27", "line 4, key parameters.x: expected"),
        ("parameters.x = {start = 1}", "line 2, key parameters.x: the key stop is missing"),
        ("parameters.x = {start = 0.5, stop = 1}", "line 2, key parameters.x: a range of fractions needs a count"),
        ("parameters.x = {start = 0, stop = 9, step = 0}", "line 2, key parameters.x: a range's step is not 0"),
        (
            "parameters.x = {start = 0, stop = 9, step = 1, count = 2}",
            "key parameters.x: a range has a step or a count",
        ),
        ("parameters.x = {start = 0, stop = 10000000000}", "line 2, key parameters: "),
        ("parameters.index = 1", "line 2, key parameters: 'index' is no name"),
        (
            "zip.a = [1]\nzip.b = [1, 2]",
            "line 2, key zip: columns that go together are of one length: a has 1, b has 2",
        ),
        ("zip.a = [1]\nparameters.a = 1", "line 2, key zip.a: a stands in parameters as well"),
        ('csv = "none.csv"', "line 2, key csv: "),
        ('csv = "points.csv"\nparameters.p = 1', "line 2, key csv: the column p is a parameter as well"),
        ('inputs = ["none.dat"]', "line 2, key inputs: "),
        ('outputs = ["../x"]', "line 2, key outputs: '../x' lies outside of the task's working folder"),
        ('outputs = [\n  "a{q}",\n]', "line 2, key outputs: there is no parameter q for 'a{q}'"),
        ('[environ]\nA = "{q}"', "line 2, key environ: A: there is no parameter q"),
        ('executables = { linux-x86_64 = "calc" }', "line 2, key executables: the command does not use {executable}"),
        ('env = { packages = ["a b c"], project = "x" }', "line 2, key env: "),
        ('sandbox = "steel"', "line 2, key sandbox: "),
        ('container = "./none.tar"', "line 2, key container: there is no file "),
        ("[limits]\nmemory = 'much'", "line 2, key limits: "),
        ("[requires]\nchairs = 2", "line 2, key requires: "),
        ("x = ", "(at line 2, column 5)"),
    ],
)
def test_faults_are_told_with_line_and_key(write, line, said):
    with pytest.raises(BadRequest) as caught:
        read_job_file(write(f'command = "calc"\n{line}\n'))
    assert "job.toml" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_tar_file_of_an_image_lies_beside_the_job_file(write, tmp_path, monkeypatch):
    (tmp_path / "data" / "image.tar").write_bytes(b"tar")
    monkeypatch.chdir(tmp_path / "data")  # not where the job file is
    job = read_job_file(write('command = "calc"\ncontainer = "./data/image.tar"\n'))
    assert job.options["container"] == tmp_path / "data" / "image.tar"
    assert read_job_file(write('command = "calc"\ncontainer = "lab/calc:3"\n')).options["container"] == "lab/calc:3"


def test_without_a_command_there_is_no_job(write):
    with pytest.raises(BadRequest, match=r"job.toml: the key command is missing"):
        read_job_file(write("name = 'x'"))


def test_a_million_parameters_are_a_range_or_a_table_or_refused_with_the_limit(write, tmp_path):
    job = read_job_file(write('command = "calc {x}"\nparameters.x = { start = 0, stop = 1000000 }'))
    assert len(job.rows) == 1_000_000
    path = write('command = "calc {x}"\nparameters.x = [' + ", ".join(map(str, range(1_000_000))) + "]")
    with pytest.raises(
        BadRequest, match=f"over the limit of {MAX_FILE_BYTES} for a job file; put long columns into a CSV"
    ):
        read_job_file(path)


def test_lines_are_found_whatever_stands_around(tmp_path):
    text = '''# a comment with a = 1
a = """
b = 1
"""
c = [
  1, # ]
  "]",
]
"d e" = {f = 1}
[g.'h']
i.j = 1
[[k]]
l = '[x]'
'''
    assert lines_of(text) == {
        ("a",): 2, ("c",): 5, ("d e",): 9, ("g", "h"): 10, ("g", "h", "i"): 11, ("g", "h", "i", "j"): 11,
        ("k",): 12, ("k", "l"): 13,
    }  # fmt: skip


def test_the_published_schema_is_that_of_the_code():
    published = json.loads((ROOT / "docs" / "job-file.schema.json").read_text())
    assert published == json.loads(json.dumps(json_schema())), "fallow submit --schema > docs/job-file.schema.json"
    keys = published["$defs"]["JobFile"]["properties"]
    assert set(keys) == set(JobFile.__struct_fields__)
    assert all("description" in each for name, each in keys.items() if name != "env")


def test_every_key_is_documented():
    page = (ROOT / "docs" / "programs.md").read_text()
    assert not [name for name in JobFile.__struct_fields__ if f"`{name}`" not in page]
