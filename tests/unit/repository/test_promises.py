"""Every promise in docs/reliability.md names tests, and these exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def names_in(path):
    """Return the functions and variables of a test file: a state machine's test case is a variable."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_every_test_that_is_named_exists():
    assert len(NAMED) > 50
    missing = [f"{file}::{name}" for file, name in NAMED if not (ROOT / "tests" / file).exists()]
    assert not missing
    missing = [f"{file}::{name}" for file, name in NAMED if name not in names_in(ROOT / "tests" / file)]
    assert not missing


def test_every_promise_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "| ---"))]
    of_promises = [row for row in rows if row.count("|") == 3]
    assert len(of_promises) > 30
    assert not [row for row in of_promises if "::test_" not in row]
