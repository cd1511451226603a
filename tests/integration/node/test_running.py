"""Every kind of job through a real slot."""

import operator
import pickle
import sys
import time
import venv
import zipfile

import numpy as np
import pytest

from fallow.link.frames import (
    PROTOCOL_VERSION,
    Beat,
    BlobOffer,
    Done,
    Forget,
    NodeHello,
    PageWanted,
    Presents,
    SpecWanted,
)
from fallow.model.page import INLINE_BYTES, InputPage
from fallow.slot import pages

pytestmark = pytest.mark.slow


async def test_it_says_hello_and_presents_no_leases(hub):
    async with hub.node(slots=2, tags=("lab",)):
        await hub.until(lambda: hub.all(Beat))
    (hello,) = hub.all(NodeHello)
    assert hello.info.slots == 2
    assert hello.info.tags == ("lab",)
    assert hello.info.pythons == (f"{sys.version_info.major}.{sys.version_info.minor}",)
    assert hub.all(Presents)[0].leases == ()
    assert (hub.folder / "node" / "node-id").read_text() == hello.node


async def test_a_map_over_pages(hub):
    spec = hub.job(["map"], [lambda x: x * x], range(2500))
    async with hub.node(slots=2, cores=2):
        await hub.run(spec, 2500)
    assert hub.values(spec) == {i: i * i for i in range(2500)}


async def test_a_map_that_counts(hub):
    spec = hub.job(["map"], [str], start=10, step=-2)
    async with hub.node():
        await hub.run(spec, 20_000)
    assert hub.values(spec) == {i: str(10 - 2 * i) for i in range(20_000)}


async def test_starmap_filter_and_chains(hub):
    pairs = [(i, i + 1) for i in range(100)]
    star = hub.job(["starmap"], [operator.mul], pairs)
    odd = hub.job(["filter"], [lambda x: x % 2], range(100))
    chain = hub.job(["starmap", "filter", "map"], [operator.add, lambda x: x % 3 == 0, str], pairs)
    async with hub.node():
        for spec in (star, odd, chain):
            await hub.run(spec, 100)
    assert hub.values(star) == {i: i * (i + 1) for i in range(100)}
    assert hub.values(odd) == {i: i for i in range(1, 100, 2)}
    assert hub.values(chain) == {i: str(2 * i + 1) for i in range(100) if (2 * i + 1) % 3 == 0}


async def test_reduce_gives_one_partial_per_batch(hub):
    spec = hub.job(["map", "reduce"], [lambda x: 2 * x, operator.add], range(5000))
    async with hub.node():
        await hub.run(spec, 5000)
    found = hub.result_pages(spec)
    assert all(page.partial for page in found)
    assert len(found) < 30
    assert sum(hub.values(spec).values()) == sum(2 * x for x in range(5000))


async def test_reduce_of_nothing_and_with_failures(hub):
    none = hub.job(["filter", "reduce"], [lambda x: False, operator.add], range(100))
    some = hub.job(["map", "reduce"], [lambda x: 1 // (x % 10) * 0 + x, operator.add], range(100))
    async with hub.node():
        await hub.run(none, 100)
        await hub.run(some, 100)
    assert hub.values(none) == {}
    assert set(hub.failures(some)) == set(range(0, 100, 10))
    assert sum(hub.values(some).values()) == sum(x for x in range(100) if x % 10)


async def test_calls_and_applied_functions(hub):
    calls = hub.job(["call"], [pow], calls=[((i, 2), {}) for i in range(50)] + [((2,), {"exp": 5})])
    applied = hub.job(["apply"], [None], calls=[(lambda x, y: x - y, (i,), {"y": 1}) for i in range(50)])
    async with hub.node():
        await hub.run(calls, 51)
        await hub.run(applied, 50)
    assert hub.values(calls) == {**{i: i * i for i in range(50)}, 50: 32}
    assert hub.values(applied) == {i: i - 1 for i in range(50)}


async def test_one_call_that_cannot_be_unpickled_fails_alone(hub):
    spec = hub.job(["call"], [abs], calls=[((-1,), {})] * 3)
    good = hub.pages[spec.id][0]
    items = [b"garbage" if i == 1 else pickle.dumps(((-1,), {})) for i in range(3)]
    hub.pages[spec.id] = [InputPage(spec.id, 0, 3, pages.encode_calls(items))]
    assert good.data is not None
    async with hub.node():
        await hub.run(spec, 3)
    assert hub.values(spec) == {0: 1, 2: 1}
    assert hub.failures(spec)[1].type_name == "_pickle.UnpicklingError"


async def test_json_jobs(hub):
    spec = hub.job(["map"], "math:sqrt", [4, 9, -1, 16], codec="json")
    async with hub.node():
        await hub.run(spec, 4)
    assert hub.values(spec) == {0: 2.0, 1: 3.0, 3: 4.0}
    assert hub.failures(spec)[2].message == "math domain error"
    assert all(page.data is None or page.data.startswith(b"[") for page in hub.result_pages(spec))


async def test_inputs_that_a_parent_filtered_out_are_left_out(hub):
    spec = hub.job(["map"], [str], range(10))
    items = b"".join(pages.encode_list([0, 1, 4, 9]))
    empty = InputPage(spec.id, 10, 20, None, None, (), kept=())
    hub.pages[spec.id] = [InputPage(spec.id, 0, 10, items, None, (), kept=(0, 2, 4, 5, 9, 10)), empty]
    async with hub.node():
        await hub.run(spec, 20)
    assert hub.values(spec) == {0: "0", 1: "1", 4: "4", 9: "9"}
    assert not hub.failures(spec)


async def test_of_overlapping_pages_the_one_that_counts_is_used(hub):
    spec = hub.job(["map"], [str], range(10))
    one = InputPage(spec.id, 0, 10, b"".join(pages.encode_list(["a"] * 10)), counts=(0, 5))
    two = InputPage(spec.id, 3, 10, b"".join(pages.encode_list(["b"] * 7)), counts=(5, 10))
    hub.pages[spec.id] = [one, two]
    async with hub.node():
        await hub.run(spec, 10)
    assert "".join(hub.values(spec)[i] for i in range(10)) == "aaaaabbbbb"


async def test_what_is_missing_is_asked_for(hub):
    spec = hub.job(["map"], [abs], range(3000))
    async with hub.node():
        hub.grant(spec, 0, 3000, with_spec=False, with_pages=False)
        await hub.finish(spec, 3000)
    assert hub.all(SpecWanted)
    assert hub.all(PageWanted)[0].start == 0


async def test_large_pages_travel_as_blobs_and_their_arrays_may_be_written_to(hub):
    def add_one(array):
        array += 1
        return float(array.sum())

    spec = hub.job(["map"], [add_one], [np.full(200_000, i, dtype=float) for i in range(4)], page_items=2)
    assert all(page.blob is not None for page in hub.pages[spec.id])
    async with hub.node():
        await hub.run(spec, 4)
    assert hub.values(spec) == {i: 200_000.0 * (i + 1) for i in range(4)}


@pytest.mark.parametrize("shares", [False, True])
async def test_large_results_are_blobs_that_the_hub_has_before_the_result(hub, shares):
    spec = hub.job(["map"], [lambda i: bytes([i]) * 2_000_000], range(3))
    hub.shares = shares
    if shares:
        (hub.folder / "probe").write_text("secret")
        hub.welcome = type(hub.welcome)(PROTOCOL_VERSION, 1, "test", probe=str(hub.folder / "probe"))
    async with hub.node():
        await hub.run(spec, 3)
        assert not [path for path in (hub.folder / "node" / "slots").glob("[0-9]*/*") if path.name != "counter"]
    assert hub.values(spec) == {i: bytes([i]) * 2_000_000 for i in range(3)}
    for page in hub.result_pages(spec):
        assert page.data is None
        assert page.blob in hub.blobs


async def test_a_result_with_the_bytes_of_another_tasks_input_stays_until_that_task_has_read_it(hub, monkeypatch):
    for limit in ("EARLY_TASK_S", "EARLY_SLOWEST_S"):  # the next task is sent early, however slow this machine is
        monkeypatch.setattr(f"fallow.node.batch_sizer.{limit}", 10)
    started, door = hub.folder / "started", hub.folder / "door"

    def double(data):
        if data[0] == 5:
            started.touch()
            while not door.exists():
                time.sleep(0.001)
        return bytes([data[0] * 2]) * len(data)

    spec = hub.job(["map"], [double], [bytes([n]) * 2_000_000 for n in (1, 9, 5, 2)], page_items=1)
    hub.shares = True
    hub.keeps_blobs = False
    (hub.folder / "probe").write_text("secret")
    hub.welcome = type(hub.welcome)(PROTOCOL_VERSION, 1, "test", probe=str(hub.folder / "probe"))
    async with hub.node():
        hub.grant(spec, 0, 2)
        await hub.until(lambda: len(hub.all(BlobOffer)) == 2)
        assert hub.all(BlobOffer)[0].digest == hub.pages[spec.id][3].blob
        hub.grant(spec, 2, 4)
        await hub.until(lambda: started.exists() and len(hub.slots()[0].batches) == 2)  # the next is told its file
        hub.keeps_blobs = True
        for offer in hub.all(BlobOffer):
            hub.on_frame(offer)
        await hub.until(lambda: len(hub.result_pages(spec)) == 2)
        door.touch()
        await hub.finish(spec, 4)
    assert hub.values(spec) == {i: bytes([n * 2]) * 2_000_000 for i, n in enumerate((1, 9, 5, 2))}


async def test_a_large_function_goes_by_file(hub):
    table = np.arange(INLINE_BYTES)
    spec = hub.job(["map"], [lambda i: int(table[i])], range(10))
    async with hub.node():
        await hub.run(spec, 10)
    assert hub.values(spec) == {i: i for i in range(10)}


async def test_refs_are_mapped_read_only_and_loaded_once_per_slot(hub):
    big = hub.put_object(np.arange(100_000))
    small = hub.put_object({"n": 3})

    def look(pair):
        array, extra = pair
        return int(array[5]), array.flags.writeable, id(array), extra["n"]

    spec = hub.job(["map"], [look], [(big, small)] * 20, page_items=5)
    in_function = hub.job(["call"], [lambda x, r=big: int(r[x])], calls=[((i,), {}) for i in range(5)])
    async with hub.node():
        await hub.run(spec, 20)
        await hub.run(in_function, 5)
    got = list(hub.values(spec).values())
    assert {(five, writeable, n) for five, writeable, _, n in got} == {(5, False, 3)}
    assert len({address for _, _, address, _ in got}) == 1
    assert hub.values(in_function) == {i: i for i in range(5)}


def archive(tmp_path, name, text, member=None):
    path = tmp_path / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(member or f"{name}.py", text)
    return path.read_bytes()


async def test_local_modules_are_imported_from_their_sources(hub, tmp_path):
    one = hub.put(archive(tmp_path, "fallow_test_local", "def f(x): return ('one', x)"))
    two = hub.put(archive(tmp_path, "fallow_test_local", "def f(x): return ('two', x)"))
    by_name = pickle.dumps([None])[:-1]
    assert by_name
    function = b"\x80\x05]cfallow_test_local\nf\na."
    specs = []
    for digest in (one, two):
        spec = hub.job(["map"], [abs], range(5), sources={"fallow_test_local": digest})
        spec = type(spec)(
            **{name: getattr(spec, name) for name in spec.__struct_fields__} | {"function": hub.put(function)}
        )
        hub.specs[spec.id] = spec
        specs.append(spec)
    async with hub.node():
        await hub.slots_ready()
        first = hub.slots()[0].process.pid
        await hub.run(specs[0], 5)
        assert hub.slots()[0].process.pid == first
        await hub.run(specs[1], 5)
        assert hub.slots()[0].process.pid != first, "a slot that has loaded other sources of this name was used"
    assert hub.values(specs[0])[3] == ("one", 3)
    assert hub.values(specs[1])[3] == ("two", 3)


async def test_a_bad_source_archive_fails_its_tasks_only(hub, tmp_path):
    bad = hub.put(archive(tmp_path, "evil", "", member="../evil.py"))
    spec = hub.job(["map"], [abs], range(3), sources={"evil": bad})
    good = hub.job(["map"], [abs], range(3))
    async with hub.node():
        await hub.run(spec, 3)
        await hub.run(good, 3)
    assert "lies outside" in hub.failures(spec)[0].message
    assert not (hub.folder / "node" / "evil.py").exists()
    assert len(hub.values(good)) == 3


async def test_slots_set_thread_counts_and_hide_secrets(hub, monkeypatch):
    monkeypatch.setenv("FALLOW_TOKEN", "flw_secret")
    monkeypatch.setenv("SOMETHING", "else")

    def look(_):
        import os

        return os.environ["OMP_NUM_THREADS"], os.environ.get("FALLOW_TOKEN"), os.environ["SOMETHING"]

    one = hub.job(["map"], [look], range(1))
    from fallow.model.requirements import Requirements

    two = hub.job(["map"], [look], range(1), requirements=Requirements(cores=2))
    async with hub.node(slots=2, cores=2):
        await hub.run(one, 1)
        await hub.run(two, 1)
    assert hub.values(one) == {0: ("1", None, "else")}
    assert hub.values(two) == {0: ("2", None, "else")}


async def test_results_of_fast_tasks_are_grouped(hub):
    spec = hub.job(["call"], [abs], calls=[((i,), {}) for i in range(5000)], page_items=5000)
    async with hub.node():
        await hub.run(spec, 5000)
    assert len(hub.all(Done)) < 50


async def test_forget_drops_everything_of_a_job(hub):
    spec = hub.job(["map"], [abs], range(10))
    async with hub.node() as agent:
        await hub.run(spec, 10)
        hub.send(Forget(spec.id))
        await hub.until(lambda: not agent._dispatcher._jobs)
        await hub.run(hub.job(["map"], [abs], range(10)), 10)


async def test_slots_run_in_an_interpreter_that_has_nothing_installed(hub, tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    big = hub.put_object(list(range(1000)))

    def look(pair):
        import importlib.util
        import sys

        n = 3
        return (
            pair[0][5],
            list(map(lambda x: x + n, [1])),
            importlib.util.find_spec("msgspec"),
            [p for p in sys.path if "site" in p],
        )

    spec = hub.job(["map"], [look], [(big, 1)] * 3)
    async with hub.node(python=python, work_folder=tmp_path):
        await hub.run(spec, 3)
    assert not hub.failures(spec)
    five, four, msgspec, folders = hub.values(spec)[0]
    assert (five, four, msgspec) == (5, [4], None)
    assert not [folder for folder in folders if ".venv" in folder]


async def test_main_is_clean_in_slots(hub):
    def look(_):
        import __main__

        return sorted(name for name in vars(__main__) if not name.startswith("__"))

    spec = hub.job(["map"], [look], range(1))
    async with hub.node():
        await hub.run(spec, 1)
    assert hub.values(spec) == {0: []}
