"""The command as a process, where no hub is needed."""

import json
import shutil
import socket
import subprocess
import sys

import pytest

import fallow as package

pytestmark = pytest.mark.slow


def test_help_teaches(fallow):
    code, out, _ = fallow("--help")
    assert code == 0
    for word in ("hub", "node", "map", "demo", "jobs", "job", "nodes", "explain", "token", "config", "FALLOW_TOKEN"):
        assert word in out
    code, out, _ = fallow("map", "--help")
    assert "fallow map math:sqrt < numbers.jsonl" in out


def test_version(fallow):
    assert package.__version__ in fallow("version")[1]
    assert package.__version__ in fallow("--version")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("jobs", "--nonsense"),
        ("job", "show"),
        ("node", "--slots", "0", "x"),
        ("map", "a:b", "--errors", "x"),
    ],
)
def test_a_senseless_command_line_is_2(fallow, arguments):
    code, out, err = fallow(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs",), "which hub?"),
        (("jobs", "--hub", "http://127.0.0.1:1"), "no token"),
        (("jobs", "--hub", "nonsense"), "no token"),
        (("node",), "which hub?"),
        (("node", "http://127.0.0.1:1"), "no token"),
        (("map", "math"), "not of the form"),
        (("map", "no_such_module:f"), "no module"),
        (("map", "math:sqrt", "--requires", "x"), "key=value"),
        (("hub", "--port", "70000"), "--port"),
    ],
)
def test_errors_are_one_line_and_1(fallow, arguments, said):
    code, out, err = fallow(*arguments)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("fallow: ")


def test_a_hub_that_is_not_there(fallow):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        hub = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for command in (("jobs",), ("nodes",), ("job", "show", "x"), ("token", "list"), ("explain", "x")):
            code, _, err = fallow(*command, "--hub", hub, FALLOW_TOKEN="secret-token")
            assert code == 1
            assert f"no hub answers at {hub}; is it running there? (--hub or $FALLOW_HUB name another)" in err
            assert "secret-token" not in err
            assert err.count("\n") == 1


def test_an_address_that_is_none(fallow):
    code, _, err = fallow("jobs", "--hub", "lab:7070", FALLOW_TOKEN="x")
    assert code == 1
    assert "is not a hub's address; write it as http://" in err


@pytest.mark.parametrize("command", [("hub", "--port", "0"), ("node", "http://127.0.0.1:1")])
@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/state", "/proc/state"])
def test_a_state_folder_that_is_none(fallow, command, folder):
    code, _, err = fallow(*command, "--state", folder, FALLOW_TOKEN="x")
    assert code == 1
    assert f"the state folder {folder} can't be used" in err
    assert err.count("\n") == 1


def test_short_tokens_are_refused(fallow):
    code, _, err = fallow("hub", "--port", "0", FALLOW_ADMIN_TOKEN="short")
    assert code == 1
    assert "$FALLOW_ADMIN_TOKEN is too short" in err
    assert " short " not in err.replace("too short", "")


def test_config_shows_what_is_in_effect(fallow):
    code, out, _ = fallow("config", FALLOW_HUB="http://lab:7070", FALLOW_TOKEN="secret-token")
    assert code == 0
    assert "http://lab:7070 (from $FALLOW_HUB)" in out
    assert "set (from $FALLOW_TOKEN)" in out
    assert "secret-token" not in out
    code, out, _ = fallow("config", "--json", FALLOW_HUB="http://lab:7070", FALLOW_TOKEN="secret-token")
    found = json.loads(out)
    assert (found["hub"], found["hub_from"], found["token_from"]) == ("http://lab:7070", "$FALLOW_HUB", "$FALLOW_TOKEN")
    assert "secret-token" not in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="asks bash")
def test_the_shell_can_complete_commands():
    # the shell is found among the parents of the process: this one, wherever the tests run
    command = ["bash", "-c", '"$0" -m fallow --show-completion; exit $?', sys.executable]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    out = found.stdout
    assert "fallow" in out


@pytest.mark.parametrize(
    ("typed", "offered"), [("jo", {"jobs", "job"}), ("job can", {"cancel"}), ("map --unor", {"--unordered"})]
)
def test_what_is_begun_is_completed(fallow, typed, offered):
    words = f"fallow {typed}"
    code, out, err = fallow(_FALLOW_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    assert (code, err) == (0, "")
    assert set(out.split()) == offered
