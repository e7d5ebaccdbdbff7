"""Draws the figures of `cargo bench --bench year -- --out FILE` as an SVG image.

python3 benches/year/plot.py FILE … > docs/images/year.svg
"""

import json
import math
import sys
from html import escape
from pathlib import Path

# Readable on white and on black.
GREY = "#808080"
COLOURS = ["#2f81f7", "#d9730d", "#2da44e", "#a371f7", "#e5534b", "#8a8a00"]

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 28, 40

NAMES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}


def name(run):
    return f"{NAMES[run['store']]}, {run['processes']} processes, {run['tokens']:,} tokens"


def refreshes(run):
    """Refresh requests of each token and day, between two points."""
    points = []
    earlier = {"day": 0, "refreshes": 0}
    for entry in run["series"]:
        days = entry["day"] - earlier["day"]
        if earlier["day"] >= 1:  # all companies have connected
            count = entry["refreshes"] - earlier["refreshes"]
            points.append((entry["day"], count / days / run["tokens"]))
        earlier = entry
    return points


def series(key, scale):
    return lambda run: [(entry["day"], entry[key] * scale) for entry in run["series"]]


PANELS = [
    ("Refresh requests of each token and day; dashed: minimum", refreshes, 1.0),
    ("Longest wait of a caller, seconds", series("longestMs", 1e-3), None),
    ("Store and its log, KiB for each token", None, None),
    ("Memory of the largest process, MiB", series("residentKib", 1 / 1024), None),
]


def size(run):
    return [
        (entry["day"], (entry["storeBytes"] + entry["logBytes"]) / 1024 / run["tokens"])
        for entry in run["series"]
    ]


def ceiling(value):
    """The next round number."""
    step = 10 ** math.floor(math.log10(value))
    return next(
        step * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * factor >= value
    )


def text(x, y, content, anchor="middle", size=11):
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(content)}</text>"
    )


def panel(runs, title, points_of, limit):
    lines = [points_of(run) for run in runs]
    days = ceiling(max((day for line in lines for day, _ in line), default=1))
    days = max(day for line in lines for day, _ in line) if days > 365 else days
    top = ceiling(max(max((y for line in lines for _, y in line), default=1), limit or 0, 1e-3))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(day, y):
        return LEFT + wide * day / days, TOP + high * (1 - y / top)

    parts = [text(WIDTH / 2, 16, title, size=12)]
    for step in range(5):
        x, y = place(days * step / 4, top * step / 4)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-opacity=".3"/>'
        )
        parts.append(text(LEFT - 5, y + 4, f"{top * step / 4:,.4g}", "end"))
        parts.append(text(x, HEIGHT - BOTTOM + 15, f"{days * step / 4:,.3g}"))
    parts.append(text(LEFT + wide / 2, HEIGHT - BOTTOM + 30, "simulated days"))
    if limit:
        _, y = place(0, limit)
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-dasharray="5 4"/>'
        )
    for line, colour in zip(lines, COLOURS, strict=False):
        places = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line)
        parts.append(
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        parts.extend(
            '<circle cx="{:.1f}" cy="{:.1f}" r="2" fill="{}"/>'.format(*place(*point), colour)
            for point in line[:: max(1, len(line) // 15)]
        )
    return parts


def draw(runs):
    panels = [(title, points or size, limit) for title, points, limit in PANELS]
    height = 2 * HEIGHT + 12 + 18 * len(runs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {height}" '
        f'font-family="sans-serif" fill="{GREY}">'
    ]
    for index, (title, points_of, limit) in enumerate(panels):
        parts.append(f'<g transform="translate({index % 2 * WIDTH} {index // 2 * HEIGHT})">')
        parts.extend(panel(runs, title, points_of, limit))
        parts.append("</g>")
    for index, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        y = 2 * HEIGHT + 14 + 18 * index
        parts.append(f'<path d="M{LEFT} {y - 4}h24" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(LEFT + 32, y, name(run), "start"))
    parts.append("</svg>")
    return "\n".join(parts)


if __name__ == "__main__":
    print(draw([json.loads(Path(path).read_text()) for path in sys.argv[1:]]))
