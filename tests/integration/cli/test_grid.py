"""Commands against a real hub with a real node."""

import json
import signal

import pytest
from programs_for_tests import ADMIN, JOIN, lasting_port, slots_of, wait_until

pytestmark = pytest.mark.slow

MODULE = """
import time

def double(x):
    return x * 2

def picky(x):
    if x == 3:
        raise ValueError("not three")
    print("saw", x)
    return x

def no_json(x):
    return object()

def slow(x):
    time.sleep(600)
"""


@pytest.fixture
def folder(programs):
    (programs.folder / "mine.py").write_text(MODULE)
    return programs.folder


@pytest.fixture
def hub(programs, folder):
    made = programs.hub()
    programs.node(made)
    return made


@pytest.fixture
def fallow(programs, hub):
    """Run a command as the admin of the hub; return its stdout, failing unless its exit code is `code`."""

    def run(*arguments, code=0, stdin="", **environment):
        found, out, err = programs.run(
            *arguments, stdin=stdin, **{"FALLOW_HUB": hub.url, "FALLOW_TOKEN": ADMIN, **environment}
        )
        assert found == code, f"exit code {found}\n{out}\n{err}"
        assert "Traceback" not in err or code == 1
        return out if code == 0 else err

    return run


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def test_map_on_a_hub_says_its_results_and_nothing_else(programs, hub):
    environment = {"FALLOW_HUB": hub.url, "FALLOW_TOKEN": ADMIN}
    for options in ((), ("--unordered",), ("--errors", "keep")):
        found = programs.run("map", "math:sqrt", *options, stdin=lines(4), **environment)
        assert found == (0, lines(2.0), "")
    assert programs.run("map", "math:sqrt", stdin=lines(1, 4, 9), **environment) == (0, lines(1.0, 2.0, 3.0), "")


def test_map_sends_local_modules(fallow):
    assert fallow("map", "mine:double", stdin=lines(*range(1000))) == lines(*range(0, 2000, 2))


def test_map_unordered_has_the_same_results(fallow):
    out = fallow("map", "mine:double", "--unordered", stdin=lines(*range(100)))
    assert sorted(map(json.loads, out.splitlines())) == list(range(0, 200, 2))


def test_map_stops_at_an_error_or_keeps_it(fallow):
    stdin = "\n" + lines(1, 2) + "\n" + lines(3, 4)
    for options in ((), ("--unordered",)):
        said = fallow("map", "mine:picky", *options, stdin=stdin, code=1)
        assert said.startswith("fallow: line 5 of the input: ValueError: not three\n")
        assert 'raise ValueError("not three")' in said  # where, on the node
    code_1 = fallow("map", "mine:picky", "--errors", "keep", stdin=stdin, code=1)
    assert code_1 == "fallow: 1 tasks failed; their lines say why\n"


def test_map_keeps_an_error_in_the_place_of_its_result(programs, hub):
    environment = {"FALLOW_HUB": hub.url, "FALLOW_TOKEN": ADMIN}
    code, out, _ = programs.run("map", "mine:picky", "--errors", "keep", stdin="\n2\n3\n4\n", **environment)
    kept = {"error": "ValueError: not three", "index": 1, "line": 3}
    assert (code, [json.loads(line) for line in out.splitlines()]) == (1, [2, kept, 4])


def test_map_names_the_line_whose_task_died_or_ran_over_time(fallow):
    said = fallow("map", "mine:slow", "--timeout", "0.2", stdin="\n3\n", code=1)
    assert said.startswith("fallow: line 2 of the input: TaskTimeout: ")


def test_map_names_a_malformed_line(fallow):
    said = fallow("map", "math:sqrt", stdin="1\n4\n{nine}\n", code=1)
    assert said.splitlines()[-1].startswith("fallow: line 3 of the input is not JSON")


def test_map_names_a_result_that_is_no_json(fallow):
    assert "the result of line 2 of the input is no JSON" in fallow("map", "mine:no_json", stdin="\n1\n", code=1)


def test_jobs_from_creation_to_deletion(fallow, hub):
    job = hub.job("math:sqrt", [1, 4, -1], name="roots")["id"]
    hub.wait_done("roots")
    [row] = fallow("jobs").splitlines()
    assert row.split("\t")[:4] == [job, "roots", "math:sqrt", "done"]
    [shown] = json.loads(fallow("jobs", "--json"))
    assert shown["name"] == "roots"
    assert "settled\t3 of 3 (100%)" in fallow("job", "show", "roots")
    assert json.loads(fallow("job", "show", job, "--json"))["failed"] == 1
    assert "task 2: ValueError" in fallow("job", "results", "roots", code=1)
    assert "done" in fallow("explain", "roots")
    fallow("job", "delete", "roots")
    assert fallow("jobs") == ""
    for command in (
        ("job", "show"),
        ("job", "cancel"),
        ("job", "delete"),
        ("job", "logs"),
        ("job", "results"),
        ("explain",),
    ):
        said = fallow(*command, "roots", code=1)
        assert said == "fallow: there is no job 'roots'; `fallow jobs` lists yours\n", command


def test_results_of_json_jobs(fallow, hub):
    hub.job("math:sqrt", [1, 4], name="roots")
    hub.wait_done("roots")
    assert fallow("job", "results", "roots") == "1.0\n2.0\n"
    assert fallow("job", "results", "roots", "--json") == '{"index":0,"value":1.0}\n{"index":1,"value":2.0}\n'


def test_results_of_pickled_jobs_are_for_their_owner(fallow, hub, programs):
    script = (
        "from fallow import Grid\n"
        "with Grid() as grid:\n"
        "    grid.map(lambda x: {x} if x % 2 else [x], range(4), name='sets').result(60)\n"
    )
    (programs.folder / "make.py").write_text(script)
    import subprocess
    import sys

    environment = programs.environment(FALLOW_HUB=hub.url, FALLOW_TOKEN=ADMIN)
    subprocess.run([sys.executable, "make.py"], cwd=programs.folder, env=environment, check=True, timeout=120)
    assert fallow("job", "results", "sets") == "[0]\n{1}\n[2]\n{3}\n"
    assert fallow("job", "results", "sets", "--json").splitlines()[1] == '{"index": 1, "value": "{1}"}'
    other = hub.http.post("/api/v1/tokens", json={"role": "admin", "name": "other"}).json()["secret"]
    assert "made with another token" in fallow("job", "results", "sets", code=1, FALLOW_TOKEN=other)


def test_logs(fallow, hub):
    fallow("map", "mine:picky", "--errors", "keep", stdin=lines(1, 2))
    hub.job("builtins:print", ["hello"], name="chatty")
    hub.wait_done("chatty")
    assert wait_until(lambda: fallow("job", "logs", "chatty"), "the log") == "hello\n"
    entry = json.loads(fallow("job", "logs", "chatty", "--json"))
    assert (entry["index"], entry["text"], entry["node"]) == (0, "hello\n", "node-1")


def test_logs_are_followed_until_the_job_ends(fallow, hub, programs):
    hub.job("builtins:print", ["hello"], name="ended")
    hub.wait_done("ended")
    assert wait_until(lambda: fallow("job", "logs", "ended", "--follow"), "the log") == "hello\n"
    hub.job("builtins:exec", ["print('saw 1')", "import time; time.sleep(600)"], name="sleepers")
    followed = programs.start(
        "job", "logs", "sleepers", "--follow", name="follower", FALLOW_HUB=hub.url, FALLOW_TOKEN=ADMIN
    )
    wait_until(lambda: followed.said() == "saw 1\n", "what the task printed")
    assert followed.process.poll() is None
    fallow("job", "cancel", "sleepers")
    assert followed.wait() == 0
    assert followed.said() == "saw 1\n"


def test_cancel_stops_running_tasks(fallow, hub):
    hub.job("time:sleep", [600, 600, 600], name="sleepers")
    wait_until(lambda: hub.get("/jobs/sleepers")["leased"], "a lease")
    fallow("job", "cancel", "sleepers")
    assert hub.get("/jobs/sleepers")["state"] == "cancelled"
    hub.job(name="next")
    hub.wait_done("next")


def test_nodes_and_explain(fallow, hub):
    row = fallow("nodes").split("\t")
    assert (row[1], row[2], row[3]) == ("node-1", "idle", "2")
    assert json.loads(fallow("nodes", "--json"))[0]["name"] == "node-1"
    hub.job(name="big", requires={"memory": "64TB"})
    assert "needs 64 TB" in fallow("explain", "big")
    [reason] = json.loads(fallow("explain", "big", "--json"))["reasons"]
    assert "needs 64 TB" in reason


def test_tokens(fallow, hub):
    secret = fallow("token", "create", "anna").strip()
    assert secret.startswith("flw_")
    rows = [row.split("\t") for row in fallow("token", "list").splitlines()]
    [anna] = [row for row in rows if row[2] == "anna"]
    assert anna[1] == "user"
    assert anna[0] in [token["id"] for token in json.loads(fallow("token", "list", "--json"))]
    made = json.loads(fallow("token", "create", "berta", "--role", "admin", "--json"))
    assert (made["token"]["name"], made["token"]["role"]) == ("berta", "admin")
    assert fallow("jobs", FALLOW_TOKEN=made["secret"]) == ""
    assert fallow("jobs", FALLOW_TOKEN=secret) == ""
    assert "needs an admin's token" in fallow("token", "list", code=1, FALLOW_TOKEN=secret)
    fallow("token", "revoke", anna[0])
    assert "refused the token" in fallow("jobs", code=1, FALLOW_TOKEN=secret)
    assert "no token 'nothere'" in fallow("token", "revoke", "nothere", code=1)


@pytest.mark.parametrize("token", ["flw_wrong", ADMIN + "x"])
def test_wrong_tokens_are_said_once(fallow, programs, hub, token):
    for command in (("jobs",), ("map", "math:sqrt")):
        said = fallow(*command, code=1, FALLOW_TOKEN=token, stdin="1\n")
        assert f"the hub at {hub.url} refused the token; check $FALLOW_TOKEN or --token-file" in said
        assert token not in said
    node = programs.start("node", hub.url, "--state", "other", name="other", FALLOW_TOKEN=token)
    assert node.wait() == 1
    assert f"the hub at {hub.url} refused the token; check $FALLOW_TOKEN or --token-file" in node.said()
    assert token not in node.said()


def test_a_users_token_makes_no_node(programs, hub, fallow):
    secret = fallow("token", "create", "anna").strip()
    node = programs.start("node", hub.url, "--state", "other", name="other", FALLOW_TOKEN=secret)
    assert node.wait() == 1
    assert "not for a node" in node.said()


def test_a_node_takes_its_token_from_a_file_and_stops_at_a_signal(programs, hub):
    (programs.folder / "join.token").write_text(JOIN + "\n")
    (programs.folder / "join.token").chmod(0o600)
    node = programs.start(
        "node", hub.url, "--token-file", "join.token", "--state", "two", "--name", "two", "--tags", "lab,gpu", "--slots", "1",
        "--cores", "1", "--memory", "1GB", name="two",
    )  # fmt: skip
    [view] = wait_until(lambda: [each for each in hub.get("/nodes")["nodes"] if each["name"] == "two"], "the node")
    assert (view["slots"], view["cores"], view["memory_bytes"], view["tags"]) == (1, 1, 10**9, ["gpu", "lab"])
    assert f"two has joined {hub.url} with 1 slots on 1 cores" in node.said()
    assert node.stop(signal.SIGINT) == 0
    wait_until(
        lambda: [each["connected"] for each in hub.get("/nodes")["nodes"] if each["name"] == "two"] in ([], [False])
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--memory", "lots"),
        ("--tags", "two words"),
        ("--name", "a\nb"),
        ("--sandbox", "glass"),
        ("--min-sandbox", "glass"),
    ],
)
def test_malformed_options_of_a_node(programs, option, value):
    code, _, said = programs.run("node", "http://127.0.0.1:1", option, value, FALLOW_TOKEN="x")
    assert code == 1
    assert option in said
    assert said.count("\n") == 1


def test_a_node_that_starts_before_its_hub_joins_it(programs):
    port = lasting_port()
    options = ["--slots", "1", "--name", "early", "--state", programs.folder / "early"]
    early = programs.start("node", f"http://127.0.0.1:{port}", *options, name="early", FALLOW_TOKEN=JOIN)
    wait_until(lambda: f"no hub answers at http://127.0.0.1:{port}" in early.said(), "the node to try")
    hub = programs.hub("--port", port)
    wait_until(lambda: [node["name"] for node in hub.get("/nodes")["nodes"]] == ["early"], "the node to join")
    assert hub.wait_done(hub.job()["id"])["settled"] == 3
    assert early.stop() == 0


def test_a_second_node_in_the_same_folder(programs, hub):
    code, _, said = programs.run("node", hub.url, "--state", programs.folder / "node-1", FALLOW_TOKEN=JOIN)
    assert code == 1
    assert f"uses the folder {programs.folder / 'node-1'}: stop it, or give this one a folder of its own" in said


def test_map_embedded_needs_no_hub(programs, folder):
    code, out, err = programs.run("map", "mine:double", stdin=lines(1, 2, 3))
    assert (code, out) == (0, lines(2, 4, 6)), err
    code, out, err = programs.run("map", "mine:double", "--embedded", stdin=lines(4), FALLOW_HUB="http://127.0.0.1:1")
    assert (code, out) == (0, lines(8)), err


def test_a_reader_that_leaves_ends_a_map_quietly(programs, folder):
    import subprocess
    import sys

    (folder / "many.jsonl").write_text(lines(*range(50_000)))
    with (folder / "many.jsonl").open() as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "fallow", "map", "mine:double"],
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=programs.environment(),
        )  # fmt: skip
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), said) == (1, "")


def test_ctrl_c_ends_a_map_quietly(programs, folder):
    (folder / "one.jsonl").write_text("1\n")
    import subprocess
    import sys

    with (folder / "one.jsonl").open() as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "fallow", "map", "mine:slow"],
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=programs.environment(),
            start_new_session=True,
        )  # fmt: skip
    children = wait_until(lambda: slots_of(process), "slots to start")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    wait_until(lambda: not any(child.is_running() for child in children), "slots to end")
