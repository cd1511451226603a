"""Why a job waits, in plain words."""


def test_no_node_has_joined(bench):
    assert bench.job("j", 1).explain() == ["no node has joined"]


def test_all_nodes_are_away(bench):
    bench.node()("on_link_closed", "a").job("j", 1)
    assert bench.explain() == ["no node is connected (1 node may come back)"]


def test_memory(bench):
    for name, size in (("a", 8), ("b", 24), ("c", 16)):
        bench.node(name, memory_bytes=size * 10**9)
    bench.job("j", 1, requires={"memory_bytes": 64 * 10**9})
    assert bench.explain() == ["needs 64 GB; the largest of 3 nodes has 24 GB"]


def test_each_requirement_that_nobody_meets(bench):
    bench.node(tags=("lab",))
    bench.job("j", 1, requires={"cores": 9, "os": "windows", "arch": "arm64", "python": "3.12", "tags": ("gpu", "lab")})
    assert bench.explain() == [
        "needs 9 cores; the largest node has 1",
        "needs windows; nodes run linux",
        "needs arm64; nodes are x86_64",
        "needs Python 3.12; nodes have 3.11",
        "needs the tag gpu; nodes have lab",
    ]


def test_nobody_builds_environments(bench):
    bench.node("a").node("b")
    bench.job("j", 1, requires={"builds": True})
    assert bench.explain() == ['needs an environment, and no node has uv to build it: pip install "fallow[envs]" there']
    bench.node("c", builds=True, cores=1)
    bench.job("k", 1, requires={"builds": True, "cores": 2})
    assert bench.explain("k")[0] == "needs 2 cores; the largest of 3 nodes has 1"


def test_met_one_by_one_but_not_together(bench):
    for number in range(5):
        bench.node(f"n{number}", tags=("lab",) if number else (), memory_bytes=10**9 if number else 10**10)
    bench.job("j", 1, requires={"memory_bytes": 5 * 10**9, "tags": ("lab",)})
    assert bench.explain() == [
        "no node has all that it needs at once",
        "n0: needs the tag lab",
        "n1: needs 5 GB, has 1 GB",
        "n2: needs 5 GB, has 1 GB",
        "… and 2 more nodes",
    ]


def test_no_slots_and_no_tags(bench):
    bench.node(slots=0, cores=1).job("j", 1)
    assert bench.explain() == ["no node has a slot"]
    bench.job("k", 1, requires={"tags": ("x",)})
    assert bench.explain("k")[0] == "needs the tag x; nodes have none"


def test_nodes_that_take_no_work_say_why(bench):
    for name, reason in (("a", "disk full"), ("b", "")):
        bench.node(name)("on_node_changed", name, bench.info(name), False, reason)
    bench.job("j", 1)
    assert bench.explain() == ["a takes no work now: disk full", "b takes no work now"]
    for name in "cd":
        bench.node(name, presents=False)
    assert bench.explain()[2:] == ["c is just joining", "… and 1 more node"]


def test_all_busy_with_what(bench):
    bench.node("a").node("b").job("first", 100, name="sweep-7").job("j", 3)
    assert bench.explain() == [
        "all 2 nodes that could run it are busy with work: sweep-7 (first)",
        "sweep-7 (first) is before it in the queue",
    ]


def test_busy_with_work_of_higher_priority(bench):
    bench.node("a").job("up", 100, priority=5).job("j", 3)
    assert "higher priority" in bench.explain()[0]


def test_running_and_waiting_for_its_own(bench):
    bench.node("a", slots=2).job("j", 100)
    assert bench.explain() == [
        "4 tasks are out at a",
        "96 tasks wait for the only node that can run them to get through what is out",
    ]


def test_running_where(bench):
    for number in range(5):
        bench.node(f"n{number}")
    bench.job("j", 5, counting=True)
    assert bench.explain() == ["5 tasks are out at n0, n1, n2 and 2 more"]


def test_waiting_for_inputs(bench):
    bench.node(slots=4).job("j")
    assert bench.explain() == ["it waits for its client to send inputs"]
    bench("on_inputs_added", "j", 1)
    bench.done(bench.grant)
    assert bench.explain() == ["it waits for more inputs from its client"]
    bench("on_job_sealed", "j", 2)
    assert bench.explain() == ["it waits for the rest of its inputs"]
    bench.job("c", follows="j")
    bench.done(bench.grant)
    assert bench.explain("c")[0] == "it waits for results of f (j)"


def test_in_trouble(bench):
    bench.node("a").node("b").job("j", 1)
    grant = bench.grant
    bench.job("k", 4)
    bench.broke(grant)
    assert bench.explain()[0] == "1 task that failed before is to be tried elsewhere"


def test_a_node_without_a_name_goes_by_its_id(bench):
    bench("on_node_joined", "0123456789abcdef", bench.info(""))("on_leases_presented", "0123456789abcdef", ())
    bench.job("j", 1)
    assert bench.explain() == ["1 task is out at 0123456789ab"]


def test_about_to_start(bench):
    bench.node()("on_node_changed", "a", bench.info(), False, "").job("j", 1)
    bench.scheduler._books.nodes["a"].accepting = True
    assert bench.explain() == ["it starts now"]
