"""What `scale.py --json FILE` has measured, as a picture of four panels and a section of the documentation.

python benchmarks/load/scale_plot.py [FOLDER]    # writes scale.svg and the section of performance.md, in docs/ or FOLDER, from its scale.json

The file may have several runs; of each size the last one counts.
"""

import json
import math
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- scale: begin -->", "<!-- scale: end -->"
FACTS = ("machine", "system", "python", "sqlite", "commit", "load", "at")
PANELS = (
    ("task", "tasks of a map", (("ns", "hub's CPU per task, ns"),)),
    ("lease", "nodes, each busy", (("us", "hub's CPU per lease of one task, us"),)),
    (
        "restart",
        "tasks, half or more of them done",
        (("s", "restart until it answers, s"), ("cpu_s", "of that CPU, s")),
    ),
    ("submissions", "clients", (("per_s", "durable submissions per second"), ("ms", "latency, median, ms"))),
)
"""What is measured, against what, and the figures with their titles."""
COLOURS = ("#1b7837", "#2166ac")
WIDTH, HEIGHT, COLUMNS = 480, 250, 2
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 50, 42


def points(runs):
    """Return the figures of each panel by size, ascending."""
    found = {what: {} for what, _, _ in PANELS}
    for run in runs:
        for figures in run["figures"]:
            found[figures["what"]][figures["size"]] = figures
    return {what: dict(sorted(by_size.items())) for what, by_size in found.items()}


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# --- the picture ------------------------------------------------------------------------------------------


def svg(runs):
    """Return the picture: both axes are logarithmic, with at least two decades upwards, and every point has its figure."""
    rows = -(-len(PANELS) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * COLUMNS} {HEIGHT * rows}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH * COLUMNS}" height="{HEIGHT * rows}" fill="white"/>',
    ]
    for place, (what, x_title, series) in enumerate(PANELS):
        parts.append(f'<g transform="translate({place % COLUMNS * WIDTH} {place // COLUMNS * HEIGHT})">')
        parts += _panel(points(runs)[what], x_title, series)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(by_size, x_title, series):
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    values = [figures[key] for figures in by_size.values() for key, _ in series]
    if not values:
        return [f'<text x="{LEFT}" y="{TOP}">not measured: {x_title}</text>']
    xs, ys = _decades(by_size, 1), _decades(values, 2)

    def x(size):
        return LEFT + (math.log10(size) - xs[0]) / (xs[-1] - xs[0]) * (right - LEFT)

    def y(value):
        return bottom - (math.log10(value) - ys[0]) / (ys[-1] - ys[0]) * (bottom - TOP)

    parts = [f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{x_title}</text>']
    for decade in xs:
        at = x(10**decade)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle" font-size="10">{10**decade:,}</text>')
    for decade in ys:
        at = y(10**decade)
        parts.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3:.1f}" text-anchor="end" font-size="10">{10**decade:,g}</text>')
    for place, ((key, title), colour) in enumerate(zip(series, COLOURS, strict=False)):
        parts.append(f'<text x="{LEFT}" y="{18 + 16 * place}" fill="{colour}" font-weight="bold">{title}</text>')
        dots = [(x(size), y(figures[key]), figures[key]) for size, figures in by_size.items()]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in dots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for a, b, value in dots:
            above = b - 8 if place == 0 else b + 16
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>')
            parts.append(
                f'<text x="{a:.1f}" y="{above:.1f}" text-anchor="middle" font-size="10" fill="{colour}">{number(value)}</text>'
            )
    return parts


def _decades(values, least):
    """Return the powers of ten around the values, at least so many decades of them."""
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + least)
    return range(low, high + 1)


# --- the documentation ------------------------------------------------------------------------------------


def markdown(runs):
    last, found = runs[-1], points(runs)
    lines = [f"- {fact}: {last[fact]}" for fact in FACTS]
    lines += ["", "![Cost per task and per lease, restart, and submissions, against size](scale.svg)", ""]
    for what, x_title, series in PANELS:
        if found[what]:
            keys = [key for key in next(iter(found[what].values())) if key not in {"what", "size"}]
            lines.append(f"| {x_title} | " + " | ".join(f"{size:,}" for size in found[what]) + " |")
            lines.append("| --- |" + " --- |" * len(found[what]))
            for key in keys:
                title = dict(series).get(key, MORE.get(key, key))
                lines.append(f"| {title} | " + " | ".join(number(each[key]) for each in found[what].values()) + " |")
            lines.append("")
    return "\n".join(lines[:-1])


MORE = {"us": "hub's CPU each, us", "ms_99": "latency, 99 %, ms", "mb": "hub's memory, MB"}
"""Titles of figures that are in tables, not in the picture."""


def write_docs(folder):
    """Draw the picture and replace the section between the marks."""
    runs = json.loads((folder / "scale.json").read_text())
    page = folder / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{markdown(runs)}\n{END}{rest.split(END)[1]}")
    (folder / "scale.svg").write_text(svg(runs))


if __name__ == "__main__":
    write_docs(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
