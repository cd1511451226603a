"""The documentation: its links lead somewhere, its programs run, its command lines make sense."""

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import typer

from fallow.cli.reference import commands
from fallow.demo.fleet import Fleet

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md"),
                *(ROOT / "benchmarks").glob("*.md")])  # fmt: skip
GENERATED = {"docs/reference/cli.md", "docs/reference/rest.md"}
EXAMPLE_HUB = "http://hub.example:7070"

_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def page_name(path):
    return path.relative_to(ROOT).as_posix()


def anchors(text):
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_leads_somewhere(page):
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if page_name(file) in GENERATED:
            continue
        assert file.exists(), f"{page_name(page)} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page_name(page)} links to {target}"


_INDENTED = re.compile(r"^ {4}(?:\$ )?((?:\w+=\S+ )*fallow .+)$", re.MULTILINE)
_QUOTED = re.compile(r"(?:`|<code>)((?:\w+=\S+ )*fallow [^`{<]+)(?:`|</code>)")
COMMANDS = dict(commands())
UsageError = typer.BadParameter.__base__


def check_command_line(line):
    """Raise unless the line names a command, gives all that it needs, and no option that it lacks."""
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        del words[0]
    words = list(takewhile(lambda word: word not in {"|", "<", ">", "&&"}, words))
    length = max(length for length in range(len(words) + 1) if not length or " ".join(words[:length]) in COMMANDS)
    name, arguments = " ".join(words[:length]), words[length:]
    is_group = hasattr(COMMANDS[name], "commands")
    assert not is_group or arguments in (["--help"], ["--version"]), f"{line}: {name} has no {arguments}"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(typer.Exit):  # --help ends it
        COMMANDS[name].make_context(line, arguments)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_command_line_makes_sense(page):
    text = re.sub(r"<\w[^<>\n]*>", "WORD", _FENCE.sub("", page.read_text()))
    for line in (*_INDENTED.findall(text), *_QUOTED.findall(text)):
        check_command_line(line)


def test_command_lines_in_messages_and_examples_make_sense():
    lines = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        lines += [line for node in texts if node not in docstrings for line in _QUOTED.findall(node.value)]
    for path in (ROOT / "src").rglob("*.html"):
        lines += _QUOTED.findall(path.read_text())
    for command in COMMANDS.values():
        lines += [part for part in command.epilog.split("\n\n") if re.match(r"(FALLOW_\w+=\S+ )?fallow ", part)]
    assert len(lines) > 40
    for line in lines:
        if line != "fallow COMMAND --help":
            check_command_line(line)


@pytest.mark.parametrize(
    "line", ["fallow token create", "fallow jobs --no-such", "fallow nothing", "fallow job show a b"]
)
def test_a_command_line_that_makes_none_is_found(line):
    with pytest.raises((AssertionError, UsageError)):
        check_command_line(line)


def programs(page):
    return [code for language, code in _FENCE.findall(page.read_text()) if language == "python"]


@pytest.fixture(scope="module")
def fleet():
    with Fleet(2) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", [page for page in PAGES if programs(page)], ids=page_name)
def test_every_program_runs(page, tmp_path, request):
    """Each is a program of its own; those of a page run in order, because some come back to what others made."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FALLOW_")}
    for code in programs(page):
        if f'Grid("{EXAMPLE_HUB}"' in re.sub(r"#.*", "", code):
            fleet = request.getfixturevalue("fleet")
            code = code.replace(EXAMPLE_HUB, fleet.url)
            environment["FALLOW_TOKEN"] = fleet.token
        program = tmp_path / "program.py"
        program.write_text(code)
        command = [sys.executable, "-W", "error", str(program)]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, code + done.stdout + done.stderr
        assert not done.stderr, code + done.stderr


def test_the_first_script_of_the_readme_is_among_them():
    assert any("collatz" in code for code in programs(ROOT / "README.md"))


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("index.html", "reference/cli.html", "reference/rest.html", "guides/map.html"):
        text = (tmp_path / "site" / page).read_text()
        assert "<h1" in text
        assert not re.search(r'(?:src|<link[^>]*href)="https?://', text), f"{page} loads something from elsewhere"
