"""Input files that differ from task to task: each task finds its own, each node is sent what its tasks need, each content once."""

import asyncio
import os
import sys

import blake3
import pytest

from fallow import AsyncGrid, Grid
from fallow.client import blob_exchange
from fallow.model.errors import BadRequest
from fallow.slot.program import platform_name

programs_for_tests = sys.modules["programs_for_tests"]
ADMIN = programs_for_tests.ADMIN

pytestmark = pytest.mark.slow

LARGE = 300_000
"""Bytes; beyond what travels with a task's parameters."""


@pytest.fixture
def data(tmp_path):
    """Small and large files and a folder for each x from 0 to 5."""
    folder = tmp_path / "data"
    for x in range(6):
        (folder / f"case-{x}" / "deep").mkdir(parents=True)
        (folder / f"case-{x}" / "deep" / "mesh").write_text(f"mesh {x}")
        (folder / f"{x:02}.csv").write_text(f"small {x}\n")
        (folder / f"{x}.bin").write_bytes(b"%d" % x * LARGE)
    (folder / "tool-0").write_text("#!/bin/sh\necho tool 0\n")
    (folder / "tool-1").write_text("#!/bin/sh\necho tool 1\n" + "#" * LARGE)
    for x in range(2):
        (folder / f"tool-{x}").chmod(0o755)
    return folder


def test_each_task_finds_its_own_files_beside_the_common_ones(grid, data):
    (data / "common.txt").write_text("for all")
    inputs = ["data/{x:02}.csv", data / "{x}.bin", "data/case-{x}", "data/common.txt"]
    job = grid.run(
        ["sh", "-c", "ls; cat *.csv case-*/deep/mesh; head -c 1 *.bin"], inputs=inputs, params={"x": range(6)}
    )
    for x, found in enumerate(job):
        names = sorted([f"{x:02}.csv", f"{x}.bin", f"case-{x}", "common.txt"])
        assert found.stdout == "\n".join(names) + f"\nsmall {x}\nmesh {x}{x}"
        assert found.parameters == {"x": x}


def test_they_may_have_one_name_for_all_tasks_be_programs_and_standard_input(grid, data):
    inputs = {"tool": "data/tool-{x}", "in.csv": "data/{x:02}.csv", "{x}-{index}.txt": b"given", "{{x}}": b"braces"}
    job = grid.run(["sh", "-c", "./tool; ls; cat"], inputs=inputs, stdin_file="in.csv", params={"x": range(2)})
    assert [each.stdout for each in job] == [
        f"tool {x}\n{x}-{x}.txt\nin.csv\ntool\n{{x}}\nsmall {x}\n" for x in range(2)
    ]


def test_a_job_file_names_them_from_its_own_folder(programs, data, tmp_path):
    (data / "job.toml").write_text(
        'command = "cat {x}.csv"\ninputs = { "{x}.csv" = "{x:02}.csv" }\n[parameters]\nx = { start = 0, stop = 6 }\n'
    )
    code, _, said = programs.run("submit", "data/job.toml", "--embedded", "--to", "out")
    assert code == 0, said
    assert [(tmp_path / f"out/{x}/stdout").read_text() for x in range(6)] == [f"small {x}\n" for x in range(6)]
    (data / "03.csv").unlink()
    code, _, said = programs.run("submit", "data/job.toml", "--check")
    assert code == 1
    assert "job.toml, line 2, key inputs: data/03.csv is not there (of task 3 (x=3))" in said


def test_a_node_is_sent_what_its_tasks_need_and_each_content_goes_to_the_hub_once(programs, data, monkeypatch):
    hub = programs.hub()
    names = ("one", "two")
    for name in names:
        programs.node(hub, "--slots", "1", name=name)
    sent = []
    send = blob_exchange.send_blob

    async def note_and_send(link, digest, source, offset):
        sent.append(digest)
        await send(link, digest, source, offset)

    monkeypatch.setattr(blob_exchange, "send_blob", note_and_send)
    with Grid(hub.url, token=ADMIN) as grid:
        job = grid.run(
            "sh -c 'head -c 1 {x}.bin; sleep 0.2'", inputs=["data/{x}.bin"], params={"x": range(6), "again": range(2)}
        )
        results = list(job)
        assert [each.stdout for each in results] == [str(x) for x in range(6) for _ in range(2)]
        digests = {x: blake3.blake3((data / f"{x}.bin").read_bytes()).hexdigest() for x in range(6)}
        needed = {name: {digests[each.parameters["x"]] for each in results if each.node == name} for name in names}
        assert all(needed.values())
        assert sorted(each for each in sent if each in digests.values()) == sorted(digests.values())
        for name in names:
            held = {path.name for path in (programs.folder / name / "cache").rglob("*") if path.is_file()}
            assert held & set(digests.values()) == needed[name]


def test_a_file_that_is_not_there_is_told_with_its_task_before_anything_runs(grid, data, tmp_path):
    (data / "3.bin").unlink()
    marked = ["sh", "-c", f"touch {tmp_path}/ran-{{x}}"]
    with pytest.raises(BadRequest) as caught:
        grid.run(marked, inputs=["data/{x}.bin"], params={"how": ["a"], "x": range(6)})
    assert str(caught.value) == "inputs: data/3.bin is not there (of task 3 (how='a', x=3))"
    assert not list(tmp_path.glob("ran-*"))


def test_of_an_endless_sweep_a_missing_file_is_told_when_it_is_reached(grid, data):
    (data / "3.bin").unlink()
    rows = ({"x": x} for x in range(1_000_000))
    found = iter(grid.run("head -c 1 {x}.bin", inputs=["data/{x}.bin"], params=rows))
    with pytest.raises(BadRequest, match=r"^inputs: data/3.bin is not there \(of task 3 \(x=3\)\)$"):
        for x, each in enumerate(found):
            assert each.stdout == str(x)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (["data/{y}.csv"], "inputs: there is no parameter y for 'data/{y}.csv'; there are index, x;"),
        (["data/{x.real}.csv"], "is no placeholder"),
        (["data/{executable}"], "there is no parameter executable"),
        (["data/{"], "write {{ and }} for braces"),
        ({"../{x}": b""}, "'../0' lies outside of the task's working folder (of task 0 (x=0))"),
        ({"a": b"", "{x:.0s}a": b""}, "can't be written as '.0s'"),
        ({"0": b"", "{x}": b""}, "two files are called '0' in the working folder (of task 0 (x=0))"),
        ({"0/a": b"", "{x}": b""}, "'0' is a file and a folder (of task 0 (x=0))"),
        ({"0": b"", "{x}/a": b""}, "'0' is a file and a folder (of task 0 (x=0))"),
    ],
)
def test_bad_templates_are_one_clear_error(grid, data, inputs, said):
    with pytest.raises(BadRequest) as caught:
        grid.run("true", inputs=inputs, params={"x": [0]}).result(30)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_while_it_is_sent_is_told(grid, data, monkeypatch):
    (data / "0.bin").write_bytes(os.urandom(LARGE))
    keep = blob_exchange.BlobExchange.keep_page

    async def change_and_keep(exchange, digest, source):
        source.write_bytes(os.urandom(LARGE))
        await keep(exchange, digest, source)

    monkeypatch.setattr(blob_exchange.BlobExchange, "keep_page", change_and_keep)
    with pytest.raises(BadRequest, match=r"data/0.bin can't be sent; has it changed meanwhile\?"):
        grid.run("true", inputs=["data/{x}.bin"], params={"x": [0]}).result(60)


def test_the_same_awaited(data):
    async def run():
        async with AsyncGrid(slots=1) as grid:
            job = await grid.run("cat {x:02}.csv", inputs=["data/{x:02}.csv"], params={"x": range(3)})
            return [each.stdout async for each in job]

    assert asyncio.run(run()) == [f"small {x}\n" for x in range(3)]


def test_a_node_is_sent_the_executable_for_its_platform_only(programs, tmp_path):
    hub = programs.hub()
    programs.node(hub)
    tools = {"linux-x86_64": "#!/bin/sh\necho this one\n", "linux-arm64": "small", "windows-x86_64": "x" * LARGE}
    here = platform_name()
    if here not in tools:
        tools[here] = tools.pop("linux-x86_64")
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
    digests = {name: blake3.blake3(text.encode()).hexdigest() for name, text in tools.items()}
    with Grid(hub.url, token=ADMIN) as grid:
        (found,) = grid.run("{executable}", executables={name: tmp_path / name for name in tools})
    program = {
        "command": "{executable}",
        "executables": {name: {"path": "calc", "text": tools[name]} for name in tools},
    }
    job = hub.http.post("/api/v1/jobs", json={"program": program, "items": [{}]}).json()["id"]
    hub.wait_done(job)
    assert [found.stdout, hub.http.get(f"/api/v1/jobs/{job}/outputs/0/stdout").text] == ["this one\n"] * 2
    held = {path.name for path in (tmp_path / "node-1" / "cache").rglob("*")}
    assert held & set(digests.values()) == {digests[here]}
