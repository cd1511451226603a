"""The side-by-side figures as one picture: how many times better or worse than Fallow embedded each system is."""

import math
from statistics import median
from typing import Any

from plan import NAMES, ROWS

WIDTH, LEFT, RIGHT, LINE, TOP, RADIUS = 1000, 320, 20, 26, 70, 5
DECADES = 5
"""Half the width: from 1/100,000 to 100,000."""
COLOURS = {
    "embedded": "#1b7837",
    "hub": "#7fbf7b",
    "pool": "#333333",
    "joblib": "#8c510a",
    "ray": "#2166ac",
    "dask": "#e08214",
    "parsl": "#762a83",
    "celery": "#b2182b",
    "hyperqueue": "#35978f",
}


def svg(results: dict[str, Any], systems: list[str]) -> str:
    """Return a picture with a line for each row and a dot for each system; to the right is better."""
    rows = [row for row in ROWS if "embedded" in results["samples"].get(row.key, {})]
    height = TOP + LINE * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, name in enumerate(systems):
        x, y = 20 + number % 5 * 190, 18 + number // 5 * 22
        parts.append(f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 10}" y="{y + 4}">{NAMES[name]}</text>')
    bottom = TOP + LINE * len(rows)
    for decade in range(-DECADES, DECADES + 1):
        x = _x(10.0**decade)
        stroke = "#666" if decade == 0 else "#ddd"
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="{stroke}"/>')
        label = f"{10**decade:,}x" if decade >= 0 else f"1/{10**-decade:,}"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" font-size="10">{label}</text>')
    for line, row in enumerate(rows):
        y = TOP + LINE * line + LINE // 2
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{row.title}</text>')
        samples = results["samples"][row.key]
        ours = median(samples["embedded"])
        for name in systems:
            theirs = median(samples[name]) if name in samples else 0.0
            if theirs <= 0 or ours <= 0:
                continue
            times = theirs / ours if row.more_is_better else ours / theirs
            parts.append(
                f'<circle cx="{_x(times):.1f}" cy="{y}" r="{RADIUS}" fill="{COLOURS[name]}" fill-opacity="0.85">'
                f"<title>{NAMES[name]}: {times:.3g}</title></circle>"
            )
    parts.append(
        f'<text x="{_x(1):.1f}" y="{bottom + 34}" text-anchor="middle">times as good as Fallow embedded</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(times: float) -> float:
    at = max(-DECADES, min(DECADES, math.log10(times)))
    return LEFT + (at + DECADES) / (2 * DECADES) * (WIDTH - LEFT - RIGHT)
