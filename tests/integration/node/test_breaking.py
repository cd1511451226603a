"""Tasks that raise, crash, hang, print and pollute."""

import os
import subprocess
import sys
import time

import pytest

from fallow.link.frames import TaskBroke
from fallow.model.errors import PicklingFailed
from fallow.node import platform
from fallow.slot import pickling

pytestmark = pytest.mark.slow
OVER_ALL_CHANNELS = True


class Awkward(Exception):
    def __init__(self, one, two):
        super().__init__("no way back")


class MadeOfStone(Exception):
    def __reduce__(self):
        raise TypeError("can't be pickled")


class Shy(Exception):
    def __str__(self):
        raise ValueError("no")


async def test_exceptions_come_with_type_message_traceback_and_themselves(hub):
    def inner(x):
        return {}[x]

    def outer(x):
        if x == 1:
            inner("key")
        return x

    spec = hub.job(["map"], [outer], range(3))
    async with hub.node():
        await hub.run(spec, 3)
    failure = hub.failures(spec)[1]
    assert (failure.kind, failure.type_name, failure.message, failure.node) == ("raised", "KeyError", "'key'", "tester")
    lines = failure.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "in outer" in lines[1], "the traceback begins in the user's code"
    assert "slot" not in failure.traceback
    assert pickling.pickle.loads(failure.exception).args == ("key",)
    assert hub.values(spec) == {0: 0, 2: 2}


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), RecursionError("deep"), MemoryError(), GeneratorExit()]
)
async def test_any_exception_is_a_failure_and_the_slot_lives(hub, error):
    def fail(x, error=error):
        if x == 2:
            raise error
        return x

    spec = hub.job(["map"], [fail], range(5))
    async with hub.node():
        await hub.slots_ready()
        before = hub.slots()[0].process.pid
        await hub.run(spec, 5)
        assert hub.slots()[0].process.pid == before
    assert hub.failures(spec)[2].type_name == type(error).__name__
    assert len(hub.values(spec)) == 4


@pytest.mark.parametrize("error", [Awkward(1, 2), MadeOfStone("x"), Shy()])
async def test_exceptions_that_cannot_travel_leave_their_description(hub, error):
    # A lambda of this module, so the class goes by value or name as a user's would.
    def fail(x, error=error.__class__, arguments=(1, 2) if isinstance(error, Awkward) else ("x",)):
        raise error(*arguments)

    spec = hub.job(["map"], [fail], range(2), sources={})
    async with hub.node():
        await hub.run(spec, 2)
    assert not hub.values(spec)
    for failure in hub.failures(spec).values():
        assert failure.type_name


async def test_a_result_that_cannot_be_pickled_is_its_own_tasks_failure(hub):
    spec = hub.job(["map"], [lambda x: (i for i in ()) if x == 3 else x], range(6))
    folded = hub.job(["reduce"], [lambda a, b: (i for i in ())], range(6))
    async with hub.node():
        await hub.run(spec, 6)
        await hub.run(folded, 6)
    assert set(hub.values(spec)) == {0, 1, 2, 4, 5}
    failure = hub.failures(spec)[3]
    assert "result of type generator can't be pickled" in failure.message
    error = pickling.pickle.loads(failure.exception)
    assert isinstance(error, PicklingFailed)
    assert str(error) == failure.message
    assert hub.failures(folded)


async def test_a_job_whose_function_cannot_be_loaded_fails_task_by_task(hub):
    spec = hub.job(["map"], [abs], range(2500))
    function = hub.put(b"\x80\x05]cno_such_module\nf\na.")
    spec = type(spec)(**{name: getattr(spec, name) for name in spec.__struct_fields__} | {"function": function})
    async with hub.node():
        await hub.run(spec, 2500)
    failures = hub.failures(spec)
    assert len(failures) == 2500
    assert failures[0].type_name == "ModuleNotFoundError"
    assert "no_such_module" in failures[2499].message


async def test_a_blob_that_the_hub_lacks_fails_the_tasks(hub):
    spec = hub.job(["map"], [abs], range(3))
    del hub.blobs[spec.function]
    async with hub.node():
        await hub.run(spec, 3)
    assert "never heard of it" in hub.failures(spec)[0].message


async def test_failures_in_thousands_stay_small_and_exact(hub):
    def fail(x):
        raise ValueError("x" * 100_000)

    spec = hub.job(["map"], [fail], range(3000))
    async with hub.node():
        await hub.run(spec, 3000)
    assert len(hub.failures(spec)) == 3000
    for page in hub.result_pages(spec):
        assert sum(len(f.message) + len(f.traceback) + len(f.exception or b"") for f in page.failures) < 400_000


@pytest.mark.parametrize(
    ("end", "exit_code", "signal"),
    [
        (lambda: os._exit(7), 7, None),
        (lambda: __import__("ctypes").string_at(0), None, "SIGSEGV"),
        (lambda: os.kill(os.getpid(), 9), None, "SIGKILL"),
    ],
)
async def test_a_crash_blames_exactly_its_task(hub, end, exit_code, signal):
    def crash(x, end=end):
        if x == 13:
            print("last words")
            end()
        return x

    spec = hub.job(["map"], [crash], range(40))
    async with hub.node(slots=2, cores=2):
        await hub.run(spec, 40)
    (broke,) = hub.all(TaskBroke)
    failure = broke.failure
    assert (failure.index, failure.kind, failure.exit_code, failure.signal) == (13, "crashed", exit_code, signal)
    assert "last words" in failure.output
    if signal == "SIGSEGV":
        assert "Segmentation fault" in failure.output, "the fault handler's words"
    assert hub.values(spec) == {i: i for i in range(40) if i != 13}


async def test_a_crash_tells_the_peak_of_memory(hub):
    # More than this process ever had: Linux counts a parent's peak to its children.
    size = platform.own_peak_memory() + 100_000_000

    def gobble(x, size=size):
        block = bytearray(size)
        block[::4096] = b"x" * len(block[::4096])
        os._exit(1)

    spec = hub.job(["map"], [gobble], range(1))
    async with hub.node():
        await hub.run(spec, 1)
    assert hub.failures(spec)[0].peak_memory_bytes > size


async def test_a_task_over_its_timeout_is_killed_with_its_children(hub, tmp_path):
    def hang(x, folder=str(tmp_path)):
        if x == 1:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
            with open(f"{folder}/pid", "w") as file:
                file.write(str(child.pid))
            time.sleep(1000)
        return x

    spec = hub.job(["map"], [hang], range(4), timeout_s=2)
    async with hub.node():
        await hub.run(spec, 4)
        pid = int((tmp_path / "pid").read_text())
        await hub.until_ended(pid)
    failure = hub.failures(spec)[1]
    assert (failure.kind, failure.signal) == ("timeout", None)
    assert "2 s" in failure.message
    assert hub.values(spec) == {0: 0, 2: 2, 3: 3}


async def test_a_timeout_counts_for_each_task_not_for_the_batch(hub):
    def wait(x):
        time.sleep(0.05)
        return x

    spec = hub.job(["map"], [wait], range(45), timeout_s=2)
    async with hub.node():
        await hub.run(spec, 45)
    assert len(hub.values(spec)) == 45


async def test_what_tasks_print_is_captured_with_the_task(hub):
    def talk(x):
        print("printed", x)
        print("warned", x, file=sys.stderr)
        sys.stdout.buffer.write(b"bytes %d\n" % x)
        return x

    spec = hub.job(["map"], [talk], range(300))
    async with hub.node(slots=2, cores=2):
        await hub.run(spec, 300)
        await hub.until(lambda: len(hub.printed(spec)) == 300, lambda: len(hub.printed(spec)))
    assert hub.printed(spec) == {i: f"printed {i}\nwarned {i}\nbytes {i}\n" for i in range(300)}
    assert hub.values(spec) == {i: i for i in range(300)}


async def test_output_below_python_and_of_children_is_captured_too(hub):
    def noise(x):
        os.write(1, b"fd one ")
        os.write(2, b"fd two ")
        subprocess.run([sys.executable, "-c", "print('child')"], check=True)
        subprocess.run(["echo", "inherited"], stdout=sys.stdout, check=True)
        pid = os.fork()
        if pid == 0:
            print("forked")
            os._exit(0)
        os.waitpid(pid, 0)
        return x

    spec = hub.job(["map"], [noise], range(2))
    words = ("fd one", "fd two", "child", "inherited", "forked")
    async with hub.node():
        await hub.run(spec, 2)
        await hub.until(lambda: all(word in str(hub.printed(spec)) for word in words), lambda: hub.printed(spec))
    assert hub.values(spec) == {0: 0, 1: 1}


@pytest.mark.parametrize("lines", [0, 30, 1000])
async def test_output_of_a_task_is_bounded_whichever_way_it_comes(hub, lines):
    def shout(x, lines=lines):
        for _ in range(lines):
            print("y" * 1000)
        os.write(1, b"z" * 1_000_000)
        for _ in range(lines):
            print("y" * 1000)
        return x

    spec, last = (hub.job(["map"], [function], range(1)) for function in (shout, print))
    async with hub.node():
        for job in (spec, last):
            await hub.run(job, 1)
        await hub.until(lambda: hub.printed(last))
    text = hub.printed(spec)[0]
    assert text.count("[output cut at 64 KiB]") == 1
    assert len(text) == 65_536 + len("\n[output cut at 64 KiB]\n")


async def test_output_of_another_jobs_task_of_the_same_index_does_not_count(hub):
    def talk(x):
        print("p" * 30_000)
        os.write(1, b"n" * 30_000)

    specs = [hub.job(["map"], [talk], range(1)) for _ in range(4)]
    async with hub.node():
        for spec in specs:
            await hub.run(spec, 1)
        lengths = lambda: [len(hub.printed(spec).get(0, "")) for spec in specs]  # noqa: E731
        await hub.until(lambda: lengths() == [60_001] * 4, lengths)


async def test_a_crash_report_shows_nothing_of_another_jobs_output(hub):
    talk = hub.job(["map"], [lambda x: print("somebody's secret")], range(1))
    crash = hub.job(["map"], [lambda x: os._exit(3)], range(1))
    async with hub.node():
        for spec in (talk, crash):
            await hub.run(spec, 1)
    failure = hub.failures(crash)[0]
    assert failure.kind == "crashed"
    assert "secret" not in str(failure)


async def test_printing_threads_do_not_disturb_the_protocol(hub):
    def threads(x):
        from threading import Thread

        all_of_them = [Thread(target=lambda: [print("thread") for _ in range(50)]) for _ in range(8)]
        for thread in all_of_them:
            thread.start()
        for thread in all_of_them:
            thread.join()
        return x

    spec = hub.job(["map"], [threads], range(20))
    async with hub.node():
        await hub.run(spec, 20)
    assert len(hub.values(spec)) == 20


async def test_a_task_that_writes_into_the_connection_is_found_out(hub):
    def vandal(x):
        if x == 1:
            for fd in range(3, 20):
                try:
                    os.write(fd, b"\xff" * 200)
                except OSError:
                    pass
            time.sleep(1000)
        return x

    spec = hub.job(["map"], [vandal], range(3))
    async with hub.node():
        await hub.run(spec, 3)
    assert "connection to the agent" in hub.failures(spec)[1].message
    assert hub.values(spec) == {0: 0, 2: 2}


async def test_a_task_that_overwrites_its_counter_too_is_found_out_at_once(hub):
    """Then nothing says which task it was: one is blamed all the same, or it would be tried for ever."""

    def vandal(x):
        counter = next(fd for fd in range(3, 20) if os.path.exists(f"/dev/fd/{fd}") and os.fstat(fd).st_size == 64)
        os.write(counter, b"\xff" * 64)
        for fd in range(3, counter):
            try:
                os.write(fd, b"\xff" * 200)
            except OSError:
                pass
        time.sleep(1000)

    spec = hub.job(["map"], [vandal], range(1))
    async with hub.node():
        await hub.run(spec, 1)
    assert len(hub.all(TaskBroke)) == 1
    assert "connection to the agent" in hub.failures(spec)[0].message


async def test_a_task_that_reads_standard_input_gets_none(hub):
    spec = hub.job(["map"], [lambda x: sys.stdin.read()], range(1))
    async with hub.node():
        await hub.run(spec, 1)
    assert hub.values(spec) == {0: ""}
