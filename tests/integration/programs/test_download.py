"""Outputs as folders of files: laid out, gone on with, checked; from Python, from the command line and over REST."""

import asyncio
import base64
import os
import sys
import threading
import time

import pytest
from programs_for_tests import ADMIN, wait_until

from fallow import AsyncGrid, BadRequest, Grid, ProgramFailed
from fallow.client import blob_exchange

pytestmark = pytest.mark.slow

LARGE = 300_000
JOB = f"""
command = "sh -c 'printf {{x}} > small.txt; head -c {LARGE} /dev/zero > large.bin; echo {{y}}; test {{x}} != 3'"
outputs = ["small.txt", "large.bin"]

[parameters]
x = {{ start = 1, stop = 4 }}
y = "why"
"""


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def sweep(grid, **options):
    script = f"printf %s {{x}} > a.txt; head -c {LARGE} /dev/zero > b.bin; mkdir d; echo 1 > d/c"
    return grid.run(script, shell=True, outputs=["a.txt", "b.bin", "d"], params={"x": [1, "a b"]}, **options)


def test_each_task_has_a_folder_with_its_files(grid, tmp_path):
    found = sweep(grid).download(tmp_path / "out")
    assert files_below(tmp_path / "out") == [f"{i}/{name}" for i in (0, 1) for name in ("a.txt", "b.bin", "d/c")]
    assert (tmp_path / "out/1/a.txt").read_text() == "a b"
    assert (tmp_path / "out/0/b.bin").read_bytes() == bytes(LARGE)
    assert (found.tasks, found.files, found.fresh, found.failures) == (2, 6, 6, [])


def test_folders_may_be_called_after_parameters(grid, tmp_path):
    sweep(grid).download(tmp_path / "out", by="parameters")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x=1", "x=a_b#1"]
    grid.run("echo 1", params=[{"x": 1}, {"x": 1}, {"x": "../.."}]).download(tmp_path / "more", by="parameters")
    assert sorted(path.name for path in (tmp_path / "more").iterdir()) in (
        ["x=.._..#2", "x=1", "x=1#1"],
        ["x=.._..#2", "x=1", "x=1#0"],
    )
    with pytest.raises(BadRequest, match="by='name'"):
        sweep(grid).download(tmp_path, by="name")


def test_a_repeated_download_keeps_what_is_right_and_mends_what_is_not(grid, tmp_path):
    out = tmp_path / "out"
    job = sweep(grid)
    job.download(out)
    (out / "0/b.bin").write_bytes(b"1" * LARGE)  # as long, but wrong
    (out / "1/a.txt").unlink()
    (out / "1/d/c").write_text("2\n")
    before = (out / "1/b.bin").stat().st_mtime_ns
    found = job.download(out)
    assert (found.files, found.fresh) == (6, 3)
    assert (out / "0/b.bin").read_bytes() == bytes(LARGE)
    assert (out / "1/d/c").read_text() == "1\n"
    assert (out / "1/b.bin").stat().st_mtime_ns == before


ODD = [
    "new\nline",
    "12:30.log",
    "CON",
    "back\\slash",
    "n" * 255,
    "empty",
    "x",
    "x.partial",
    "A",
    "a",
    "stdout",
    ".partial",
    "a b#c",
]


def test_odd_names_are_files_as_they_were(grid, tmp_path):
    """Each is what a Linux program may call a file."""
    code = f"import sys; [open(name, 'w').write(name * (name != 'empty')) for name in {ODD!r}]; print('said')"
    job = grid.run([sys.executable, "-c", code], outputs=["*"])
    for fresh in (len(ODD) + 1, 0):
        found = job.download(tmp_path / "out")
        assert (found.files, found.fresh, found.failures) == (len(ODD) + 1, fresh, [])
    there = {path.name: path.read_text() for path in (tmp_path / "out" / "0").iterdir()}
    stream = there.pop(next(name for name in there if name.startswith("stdout#")))
    assert stream == "said\n", "beside the file of that name"
    assert there == {name: name if name != "empty" else "" for name in ODD}
    (result,) = job
    assert result.path("12:30.log").read_text() == "12:30.log"


def test_too_many_outputs_are_one_clear_error(grid):
    code = "[open(f'{{n}}', 'w').close() for n in range(9_001)]"
    ((_, error),) = grid.run([sys.executable, "-c", code], outputs=["*"]).as_completed(return_exceptions=True)
    assert isinstance(error, ProgramFailed)
    assert "9001 output files are over the limit of 9000; pack them in an archive" in str(error)


def test_a_download_that_is_killed_is_gone_on_with(programs, tmp_path):
    hub = programs.hub()
    programs.node(hub)
    access = {"FALLOW_HUB": hub.url, "FALLOW_TOKEN": ADMIN}
    with Grid(hub.url, token=ADMIN) as grid:
        job = grid.run(
            "sh -c 'head -c 20000000 /dev/zero | tr \\\\0 {x} > large; echo {x}'",
            outputs=["large"],
            params={"x": range(4)},
            name="large",
        )
        job.wait()
    killed = programs.start("results", "large", "--to", "out", name="killed", **access)
    wait_until(lambda: list((tmp_path / "out").glob("**/*")) or killed.process.poll() is not None)
    killed.end()
    code, _, said = programs.run("results", "large", "--to", "out", **access)
    assert code == 0, said
    assert "8 files of 4 tasks" in said
    for x in range(4):
        assert (tmp_path / f"out/{x}/large").read_bytes() == b"%d" % x * 20_000_000
    assert not (tmp_path / "out" / ".partial").exists()


def test_failed_tasks_are_told_and_the_others_are_there(grid, tmp_path):
    found = grid.run("sh -c 'exit {x}'", params={"x": [0, 1]}).download(tmp_path / "out")
    ((index, error),) = found.failures
    assert (index, found.tasks) == (1, 1)
    assert isinstance(error, ProgramFailed)


def test_files_come_while_other_tasks_run(grid, tmp_path):
    os.mkfifo(tmp_path / "gate")
    job = grid.run(
        f"test {{x}} = 0 || cat {tmp_path}/gate; echo {{x}} > out", shell=True, outputs=["out"], params={"x": [0, 1]}
    )
    thread = threading.Thread(target=job.download, args=(tmp_path / "out",))
    thread.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/0/out").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "out/1").exists()
    (tmp_path / "gate").write_text("go")
    thread.join(60)
    assert (tmp_path / "out/1/out").read_text() == "1\n"


def test_a_hub_elsewhere_a_job_file_the_command_line_and_rest(programs, tmp_path, monkeypatch):
    """One hub, one node, no shared files: what was fetched in part is gone on with."""
    hub = programs.hub()
    programs.node(hub)
    (tmp_path / "sweep.toml").write_text(JOB)
    access = {"FALLOW_HUB": hub.url, "FALLOW_TOKEN": ADMIN}
    assert programs.run("submit", "sweep.toml", "--check") == (0, "sweep.toml makes sense: 3 tasks\n", "")
    code, name, said = programs.run("submit", "sweep.toml", **access)
    assert (code, said) == (0, "")
    assert name.startswith("sweep-")
    name = name.strip()
    hub.wait_done(name)
    code, out, said = programs.run("results", name, "--to", "out", "--by", "parameters", **access)
    assert (code, out) == (1, "")
    assert "task 2: ProgramFailed: exit code 1" in said
    wanted = [f"x={x},y=why/{each}" for x in (1, 2) for each in ("large.bin", "small.txt", "stdout")]
    assert files_below(tmp_path / "out") == wanted
    code, out, said = programs.run("results", name, "--to", "out", "--by", "parameters", **access)
    assert "6 files of 2 tasks, 6 of them there already" in said

    listed = hub.get(f"/jobs/{name}/outputs/1")
    assert (listed["exit_code"], listed["parameters"]) == (0, {"x": 2, "y": "why"})
    sizes = {file["name"]: file["size"] for file in listed["files"]}
    assert sizes == {"large.bin": LARGE, "small.txt": 1, "stdout": 4, "stderr": 0}
    for file in listed["files"]:
        answer = hub.http.get(file["url"])
        assert len(answer.content) == file["size"]
        assert answer.headers["content-disposition"].startswith("attachment")
    assert hub.http.get(f"/api/v1/jobs/{name}/outputs/1/small.txt").text == "2"
    assert hub.http.get(f"/api/v1/jobs/{name}/outputs/1/none").status_code == 404
    assert hub.http.get(f"/api/v1/jobs/{name}/outputs/99").status_code == 404
    assert "exit code 1" in hub.http.get(f"/api/v1/jobs/{name}/outputs/2").json()["error"]["message"]

    blob = hub.http.post("/api/v1/blobs", content=b"#!/bin/sh\ncat in.txt; echo {x}; cat\n").json()["digest"]
    program = {
        "command": "./tool {x}",
        "inputs": [
            {"path": "tool", "digest": blob, "executable": True},
            {"path": "in.txt", "data": base64.b64encode(b"in ").decode()},
        ],
        "stdin": "{x}",
        "outputs": ["in.txt"],
    }
    answer = hub.http.post("/api/v1/jobs", json={"program": program, "items": [{"x": 1}, {"x": "two"}]})
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert job["function"] == "run(tool)"
    hub.wait_done(job["id"])
    assert hub.http.get(f"/api/v1/jobs/{job['id']}/outputs/1/stdout").text == "in {x}\ntwo"
    results = hub.get(f"/jobs/{job['id']}/results")["results"]
    assert [each["value"]["parameters"] for each in results] == [{"x": 1}, {"x": "two"}]

    monkeypatch.setattr(blob_exchange.BlobExchange, "came", lambda *_: None)  # as a client on another computer
    with Grid(hub.url, token=ADMIN) as grid:
        job = grid.job(name)
        place = tmp_path / "elsewhere"
        digest = next(iter(job.as_completed(return_exceptions=True)))[1]._files[0]
        (place / ".partial").mkdir(parents=True)
        (place / ".partial" / digest).write_bytes(
            bytes(1000) + b"wrong"
        )  # an earlier download broke off, and is damaged
        found = job.download(place)
        assert (found.files, found.fresh, len(found.failures)) == (6, 6, 1)
        assert (place / "0/large.bin").read_bytes() == bytes(LARGE)
        assert [index for index, _ in job.errors()] == [2]
        assert not (place / ".partial").exists()
    values = hub.job(name="values")
    code, _, said = programs.run("results", values["name"], "--to", "out", **access)
    assert code == 1
    assert "runs no program" in said


def test_the_same_awaited(tmp_path):
    async def run():
        async with AsyncGrid(slots=1) as grid:
            job = await grid.run("sh -c 'echo {x} > out'", outputs=["out"], params={"x": [1, 2]})
            found = await job.download(tmp_path / "out")
            assert [each.exit_code for each in await job] == [0, 0]
            with pytest.raises(BadRequest, match="runs no program"):
                await grid.map(abs, [1]).download(tmp_path)
            return found.tasks

    assert asyncio.run(run()) == 2
