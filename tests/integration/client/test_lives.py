"""Jobs and their lives: names, folders, sessions, interpreters that exit, Ctrl-C."""

import asyncio
import functools
import gc
import operator
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from fallow import BadRequest, Closed, Grid, JobCancelled, JobExists, JobNotFound, StateInUse, Unavailable
from fallow.model.levels import LEVELS
from fallow.node.probing import Prober

pytestmark = pytest.mark.slow


def square(x):
    return x * x


def script(text: str, *arguments: str, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def finish(process: subprocess.Popen, timeout: float = 60) -> str:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out


def test_a_named_job_in_a_folder_is_found_by_the_next_process(tmp_path, no_orphans):
    out = finish(script(
        """
        import sys
        from fallow import Grid
        with Grid(state=sys.argv[1], slots=2) as grid:
            job = grid.map(abs, range(-50, 0), name="sweep")
            assert job.wait(60)
            print(grid.map(pow, [2], [5], name="other").result(60))
        """, str(tmp_path / "state"),
    ))  # fmt: skip
    assert out.strip() == "[32]"
    with Grid(state=tmp_path / "state", slots=1) as grid:
        job = grid.job("sweep")
        assert list(job) == list(range(50, 0, -1))
        assert job.progress.state == "done"
        assert {info.spec.name for info in grid.jobs()} == {"sweep", "other"}
        with pytest.raises(JobNotFound, match="no job 'nothing'"):
            grid.job("nothing")
        job.delete()
        deadline = time.monotonic() + 60
        while len(grid.jobs()) > 1:
            assert time.monotonic() < deadline
        with pytest.raises(JobNotFound):
            grid.job("sweep")


def test_an_unfinished_named_job_goes_on_when_the_folder_is_opened_again(tmp_path, no_orphans):
    state = tmp_path / "state"
    with Grid(state=state, slots=2) as grid:
        job = grid.map(lambda x: time.sleep(0.01) or x, range(200), name="long")
        iterator = iter(job)
        assert next(iterator) == 0
    with Grid(state=state, slots=2) as grid:
        assert grid.job("long").result(60) == list(range(200))


def many_bytes():
    """More than is on its way to a hub at a time."""
    return [bytes([index % 256]) * 100_000 for index in range(400)]


def test_a_named_job_of_a_list_gets_all_its_inputs_though_the_grid_is_left_at_once(tmp_path, no_orphans):
    with Grid(state=tmp_path, slots=2) as grid:
        grid.map(len, many_bytes(), name="kept")
        gc.collect()
        grid.map(len, many_bytes()).map(str, name="of-a-parent")
        endless = grid.map(time.sleep, [600] * 4)
        endless._demand()
    with pytest.raises(Closed):
        endless.wait(60)
    with Grid(state=tmp_path, slots=2) as grid:
        assert {info.spec.name for info in grid.jobs() if info.spec.name} == {"kept", "of-a-parent"}
        assert grid.job("kept").result(60) == [100_000] * 400
        assert grid.job("of-a-parent").result(60) == ["100000"] * 400
        assert not grid.job("kept").progress.input_ended


def test_a_job_that_had_not_started_when_the_grid_was_left_says_so(monkeypatch):
    with Grid(slots=1) as grid:
        begun = threading.Event()

        async def for_ever(digest, content, *, hold=True):
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(grid._core.session.blobs, "keep", for_ever)
        job = grid.map(time.sleep, [600] * 4)
        job._demand()
        assert begun.wait(60)
    with pytest.raises(Closed):
        job.wait(60)


def test_a_job_that_goes_on_from_one_whose_function_takes_longer_to_send_finds_it(monkeypatch):
    with Grid(slots=1) as grid:
        blobs, small_kept = grid._core.session.blobs, asyncio.Event()
        keep = blobs.keep

        async def large_ones_later(digest, content, *, hold=True):
            if len(content) > 1_000_000:
                await small_kept.wait()
            await keep(digest, content, hold=hold)
            if content == pickled:
                grid._core.engine.loop.call_later(0.1, small_kept.set)  # time for the job to be sent, too early

        monkeypatch.setattr(blobs, "keep", large_ones_later)
        pickled = grid._core.pickle_stages([("map", str)])[0]
        large = functools.partial(operator.getitem, bytes(3_000_000))
        assert grid.map(large, [0, 1]).map(str, name="child").result(60) == ["0", "0"]


@pytest.mark.parametrize("end", ["cancel", "drop"])
def test_a_job_that_ends_while_its_function_is_being_sent_does_not_run(monkeypatch, tmp_path, end):
    with Grid(slots=1) as grid:
        blobs, sending, may_go_on = grid._core.session.blobs, threading.Event(), threading.Event()
        keep = blobs.keep

        async def later(digest, content, *, hold=True):
            sending.set()
            await asyncio.to_thread(may_go_on.wait, 60)
            await keep(digest, content, hold=hold)

        with monkeypatch.context() as patched:
            patched.setattr(blobs, "keep", later)
            job = grid.map(Path.touch, [tmp_path / "ran"])
            assert sending.wait(60)
            if end == "cancel":
                job.cancel()
            else:
                del job
                gc.collect()
            may_go_on.set()
            if end == "cancel":
                with pytest.raises(JobCancelled):
                    job.result(60)
        assert grid.map(square, [3]).result(60) == [9]  # it would have waited for the one before
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("item_bytes", [10, 2_000_000])
def test_a_named_job_gets_all_its_inputs_though_the_interpreter_exits(tmp_path, no_orphans, item_bytes):
    program = """
        import sys
        from fallow import Grid
        grid = Grid(state=sys.argv[1], slots=1)
        grid.map(len, [bytes(int(sys.argv[2])) for _ in range(50)], name="kept")
        """
    finish(script(program, str(tmp_path), str(item_bytes)))
    with Grid(state=tmp_path, slots=2) as grid:
        assert grid.job("kept").result(60) == [item_bytes] * 50


def test_names_that_exist(tmp_path):
    with Grid(slots=2) as grid:
        first = grid.map(square, range(5), name="n")
        with pytest.raises(JobExists, match='if_exists="attach"'):
            grid.map(square, range(5), name="n")
        attached = grid.map(square, range(99), name="n", if_exists="attach")
        assert attached.id == first.id
        assert list(attached) == [0, 1, 4, 9, 16]
        replaced = grid.map(square, range(3), name="n", if_exists="replace")
        assert replaced.id != first.id
        assert list(replaced) == [0, 1, 4]


def test_one_folder_has_one_grid(tmp_path):
    with Grid(state=tmp_path, slots=1), pytest.raises(StateInUse, match=str(tmp_path)):
        Grid(state=tmp_path, slots=1)


def test_an_unnamed_job_goes_with_its_object():
    with Grid(slots=2) as grid:
        job = grid.map(lambda x: time.sleep(60), range(4))
        job._demand()
        deadline = time.monotonic() + 60
        while not grid.jobs():
            assert time.monotonic() < deadline
        del job
        gc.collect()
        while grid.jobs():
            assert time.monotonic() < deadline, grid.jobs()
        assert grid.submit(square, 3).result(60) == 9


def test_a_named_job_stays_when_its_object_goes():
    with Grid(slots=2) as grid:
        grid.map(square, range(4), name="kept")
        gc.collect()
        assert list(grid.job("kept")) == [0, 1, 4, 9]


def test_an_interpreter_that_exits_without_closing_leaves_nothing(no_orphans):
    out = finish(script(
        """
        import time
        from fallow import Grid
        grid = Grid(slots=2)
        futures = [grid.submit(time.sleep, 600) for _ in range(8)]
        print(grid.options(priority=9) is not None)
        """
    ))  # fmt: skip
    assert out.strip() == "True"


def test_a_killed_interpreter_takes_its_slots_along():
    process = script(
        """
        import os, time
        from fallow import Grid
        grid = Grid(slots=2)
        print(grid.submit(os.getpid).result(60), flush=True)
        futures = [grid.submit(time.sleep, 600) for _ in range(4)]
        time.sleep(600)
        """
    )
    slot = psutil.Process(int(process.stdout.readline()))
    children = psutil.Process(process.pid).children(recursive=True)
    assert slot in children
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_cancels_what_is_waited_for_and_the_grid_goes_on(no_orphans):
    process = script(
        """
        import signal, time
        from fallow import Grid
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        with Grid(slots=2) as grid:
            job = grid.map(time.sleep, [600] * 4)
            job._demand()
            print("waiting", flush=True)
            try:
                list(job)
            except KeyboardInterrupt:
                print("interrupted")
            print(grid.submit(abs, -3).result(60))
            try:
                print("again", flush=True)
                grid.submit(time.sleep, 600).result()
            except KeyboardInterrupt:
                print(grid.submit(abs, -4).result(60))
        """
    )
    assert process.stdout.readline() == "waiting\n"
    wait_until_sleeping(process)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    assert process.stdout.readline() == "3\n"
    assert process.stdout.readline() == "again\n"
    wait_until_sleeping(process)
    process.send_signal(signal.SIGINT)
    assert finish(process) == "4\n"


def wait_until_sleeping(process: subprocess.Popen) -> None:
    """Wait until the main thread blocks for long: then it is in the wait that Ctrl-C is to end."""
    quiet, last = 0, None
    deadline = time.monotonic() + 60
    while quiet < 10:
        assert time.monotonic() < deadline
        state, switches = main_thread(process)
        quiet = quiet + 1 if state == "S" and switches == last else 0  # one that waits for a processor is in state R
        last = switches
        time.sleep(0.05)


def main_thread(process: subprocess.Popen) -> tuple[str, str]:
    """Return the state of a process's main thread, and how often it has begun to wait."""
    with open(f"/proc/{process.pid}/task/{process.pid}/status") as file:
        status = dict(line.split(":\t") for line in file if ":\t" in line)
    return status["State"][0], status["voluntary_ctxt_switches"]


def test_a_hub_that_is_not_there():
    with pytest.raises(Unavailable, match="no hub answers at http://127.0.0.1:9:.*is it running there, and can this"):
        Grid("http://127.0.0.1:9", token="t")
    with pytest.raises(BadRequest, match="not a hub's address"):
        Grid("lab", token="t")
    with pytest.raises(BadRequest, match="FALLOW_TOKEN"):
        Grid("http://127.0.0.1:9")


def test_arguments_of_grid():
    with pytest.raises(BadRequest, match="slots=0"):
        Grid(slots=0)
    with pytest.raises(BadRequest, match="embedded"):
        Grid("http://127.0.0.1:9", slots=2)


def test_an_embedded_grid_leaves_the_programs_output_to_the_program():
    program = textwrap.dedent(
        """
        import os
        from fallow import Grid, TaskCrashed
        with Grid(slots=1) as grid:
            try:
                grid.submit(os._exit, 3).result()
            except TaskCrashed:
                print("crashed")
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("crashed\n", "")


def test_temporary_folders_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    with Grid(slots=1) as grid:
        assert grid.submit(square, 2).result(60) == 4
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="no folder in memory elsewhere")
def test_large_values_lie_in_memory_and_what_killed_grids_left_there_is_freed(tmp_path, monkeypatch):
    monkeypatch.setattr("fallow.node.platform.MEMORY_FOLDER", tmp_path)
    monkeypatch.setattr("fallow.node.platform.MEMORY_FOLDER_BYTES", 0)
    monkeypatch.setattr("fallow.state.quick_blobs.has_room", lambda _folder, _size: True)
    left, other = tmp_path / "fallow-grid-0", tmp_path / "another-programs"
    for folder in (left, other):
        folder.mkdir()
        (folder / "file").write_text("bytes")
    with Grid(slots=1) as first:
        (folder,) = [path for path in tmp_path.iterdir() if path != other]
        with Grid(slots=1) as second:
            ref = first.put(bytes(3_000_000))
            assert [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 3_000_000]
            assert first.submit(len, ref).result(60) == 3_000_000
            assert second.submit(len, b"x").result(60) == 1
        assert folder.exists()
    assert list(tmp_path.iterdir()) == [other]


def test_an_embedded_grid_tries_sandboxes_only_when_a_job_asks_for_one(monkeypatch):
    """Trying one starts processes, perhaps a container: nobody's program should pay for what it does not use."""
    tried = []
    works = Prober.works

    async def noted(self, level):
        tried.append(level)
        return await works(self, level)

    monkeypatch.setattr(Prober, "works", noted)
    monkeypatch.setattr("fallow.node.agent.PROBE_AFTER_S", 0.0)
    with Grid(slots=1) as grid:
        assert grid.submit(square, 3).result(60) == 9
        assert set(tried) == {"process"}
        assert grid.map(square, [3], sandbox="process").result(60) == [9]
        deadline = time.monotonic() + 60
        while set(tried) != set(LEVELS):
            assert time.monotonic() < deadline, tried
            threading.Event().wait(0.01)


@pytest.mark.parametrize("ending", ["", "del executor", "executor.shutdown(wait=False)"])
@pytest.mark.parametrize("grid", ["", "Grid(slots=2)", "Grid(state=sys.argv[1], slots=2)"])
def test_the_interpreters_exit_waits_for_an_executors_tasks(tmp_path, grid, ending, no_orphans):
    program = f"""
import pathlib, sys, time
from fallow import Grid, GridExecutor
executor = GridExecutor({grid})
path = pathlib.Path(sys.argv[1])
path.mkdir(exist_ok=True)
for index in range(20):
    executor.submit(lambda index=index: time.sleep(0.01) or (path / f"ran-{{index}}").touch())
{ending}
"""
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    assert len(list(tmp_path.glob("state/ran-*"))) == 20
