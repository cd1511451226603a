"""A run as a table: for the terminal, and as a section of the documentation with its plot.

python benchmarks/table.py benchmarks/results/FILE.json [FOLDER]    # writes performance.md, .svg and .json of docs/, or of FOLDER
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import goals
import plot
from plan import FULL, NAMES, ROWS, Row

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- side by side: begin -->", "<!-- side by side: end -->"
FACTS = ("machine", "system", "python", "commit", "at")


def systems_of(results: dict[str, Any]) -> list[str]:
    measured = {system for samples in results["samples"].values() for system in samples}
    return [name for name in NAMES if name in measured]


def best(row: Row, samples: dict[str, list[float]]) -> list[str]:
    """Return the systems with the best median: more than one only where they are equal."""
    medians = {name: median(values) for name, values in samples.items()}
    top = (max if row.more_is_better else min)(medians.values())
    return [name for name, value in medians.items() if value == top] if len(medians) > 1 else []


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# --- the terminal -----------------------------------------------------------------------------------


def text(results: dict[str, Any]) -> str:
    lines = [f"medians of {results['runs']} runs (least to greatest); * the best of the row"]
    for row in ROWS:
        samples = results["samples"].get(row.key, {})
        if not samples:
            continue
        lines.append(f"{row.title}, {row.unit}")
        for name in systems_of(results):
            if name in samples:
                star = "*" if name in best(row, samples) else " "
                spread = f"({number(min(samples[name]))} to {number(max(samples[name]))})"
                lines.append(
                    f" {star} {NAMES[name]:17} {number(median(samples[name])):>10} {spread}{count(results, row, name)}"
                )
    for what, values in results["floor"].items():
        lines.append(f"disk, {what}: {number(median(values))} ({number(min(values))} to {number(max(values))})")
    lines.append("goals:")
    for goal in goals.verdicts(results):
        measured = "not measured" if goal.measured is None else f"{goal.measured:.3g}"
        lines.append(f"  {_word(goal.is_met):6} {goal.text}: {measured}")
    lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()))
    lines += [f"FAILED: {each['system']}, {each['where']}: {each['error']}" for each in results["errors"]]
    return "\n".join(lines)


def count(results: dict[str, Any], row: Row, system: str) -> str:
    """Say of how many tasks a figure is, where they are not as many as the row says."""
    found = results["counts"].get(row.key, {}).get(system)
    return "" if found is None or found == FULL[row.request]["count"] else f" of {found:,}"


def _word(is_met: bool | None) -> str:
    return {True: "met", False: "MISSED", None: "-"}[is_met]


# --- the documentation --------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    systems = systems_of(results)
    lines = [
        f"Medians of {results['runs']} repetitions, with the least and the greatest below; the best of each row is bold."
    ]
    lines += ["", *(f"- {fact}: {results[fact]}" for fact in FACTS)]
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()))
    lines += [f"- disk, {what}: {number(median(values))}" for what, values in results["floor"].items()]
    lines += ["", "| | " + " | ".join(NAMES[name] for name in systems) + " |", "| --- |" + " --- |" * len(systems)]
    for row in ROWS:
        samples = results["samples"].get(row.key, {})
        if samples:
            cells = [_cell(results, row, samples, name) for name in systems]
            lines.append(f"| {row.title}, {row.unit} | " + " | ".join(cells) + " |")
    chunks = ", ".join(f"{NAMES[name]} {chunk:,}" for name, chunk in results["chunks"].items())
    lines += ["", f"Chunks chosen by hand: {chunks}.", "", "![Each system relative to Fallow](performance.svg)", ""]
    lines += ["| goal | measured | |", "| --- | --- | --- |"]
    for goal in goals.verdicts(results):
        lines.append(
            f"| {goal.text} | {'' if goal.measured is None else f'{goal.measured:.3g}'} | {_word(goal.is_met)} |"
        )
    errors = [f"- {NAMES[each['system']]}, {each['where']}: `{each['error']}`" for each in results["errors"]]
    return "\n".join([*lines, *(["", "What failed:", "", *errors] if errors else [])])


def _cell(results: dict[str, Any], row: Row, samples: dict[str, list[float]], name: str) -> str:
    if name not in samples:
        return ""
    values = samples[name]
    middle = number(median(values))
    middle = f"**{middle}**" if name in best(row, samples) else middle
    spread = f"{number(min(values))} to {number(max(values))}{count(results, row, name)}"
    return f"{middle}<br><small>{spread}</small>"


def write_docs(results: dict[str, Any], folder: Path = DOCS) -> None:
    """Replace the section between the marks, the plot and the figures."""
    page = folder / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}")
    (folder / "performance.svg").write_text(plot.svg(results, systems_of(results)))
    (folder / "performance.json").write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    write_docs(json.loads(Path(sys.argv[1]).read_text()), *map(Path, sys.argv[2:]))
