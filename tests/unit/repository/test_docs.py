"""The documentation: its links lead somewhere, its programs run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def programs(page):
    return [code for language, code in _FENCE.findall(page.read_text()) if language == "python"]


@pytest.fixture(scope="module")
def fleet():
    with Fleet(2) as running:
        yield running


@pytest.mark.slow
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
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
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
