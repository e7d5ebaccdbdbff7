"""Measures how costs grow with `cargo bench --bench growth`, stores the figures, and draws them.

    python3 benches/growth/plot.py [--quick] [--draw] [CURVE …]

The curves are tokens, locations, processes and hosts. The figures are stored next to this script.
`--quick` measures less and draws into another folder; `--draw` only draws. Needs matplotlib.
"""

import argparse
import csv
import io
import os
import pathlib
import subprocess
import sys
import tempfile

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot, ticker

HERE = pathlib.Path(__file__).resolve().parent
CURVES = ["tokens", "locations", "processes", "hosts"]

# Readable on white and on black.
GREY = "#808080"
COLOURS = ["#2f81f7", "#d9730d", "#2da44e", "#a371f7", "#e5534b", "#8a8a00"]

pyplot.rcParams.update(
    {
        "svg.hashsalt": "ghl-oauth",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": GREY,
        "axes.labelcolor": GREY,
        "axes.edgecolor": GREY,
        "axes.titlecolor": GREY,
        "axes.titlesize": 10,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": GREY,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
)


def measure(curve, quick):
    """Runs the benchmark for one curve and returns its table as text."""
    command = ["cargo", "bench", "--quiet", "--bench", "growth", "--", curve] + ["--quick"] * quick
    return subprocess.run(
        command, cwd=HERE.parent.parent, stdout=subprocess.PIPE, check=True, text=True
    ).stdout


def figures(table):
    """The table as {figure: ([x …], [value …])}."""
    found = {}
    for row in csv.DictReader(io.StringIO(table)):
        xs, values = found.setdefault(row["figure"], ([], []))
        xs.append(int(row["x"]))
        values.append(float(row["value"]))
    return found


class Panel:
    """One of two adjacent plots: the measurements and their limits."""

    def __init__(self, axes, title, x, y, log_y=True):
        self.axes = axes
        self.colours = iter(COLOURS)
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        axes.grid(True, which="major")

    def line(self, name, points, scale=1.0):
        xs, values = points
        colour = next(self.colours)
        self.axes.plot(
            xs,
            [value * scale for value in values],
            marker="o",
            markersize=3,
            label=name,
            color=colour,
        )

    def limit(self, name, value):
        self.axes.axhline(value, linestyle="--", linewidth=1, color=GREY)
        self.axes.annotate(
            name,
            (0.99, value),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color=GREY,
        )

    def finish(self, xs, everything=False):
        self.axes.set_xticks(xs)
        self.axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,.0f}"))
        self.axes.xaxis.set_minor_locator(ticker.NullLocator())
        self.axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda y, _: f"{y:,.10g}"))
        self.axes.yaxis.set_minor_formatter(ticker.NullFormatter())
        if everything:
            self.axes.set_ylim(bottom=0)
        self.axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def draw_tokens(table, left, right):
    panel = Panel(left, "Time", "tokens held", "µs")
    for figure, name in [
        ("save_ms", "a durable save"),
        ("list_ms", "a page of 100, listed"),
        ("open_ms", "the store opens"),
        ("due_ms", "a page of 100 that are due"),
        ("read_ms", "a record is read"),
    ]:
        panel.line(name, table[figure], 1e3)
    panel.line("a live token, from memory", table["lookup_ns"], 1e-3)
    if "sync_ms" in table:
        panel.limit("two pages written and synced", 1e3 * min(table["sync_ms"][1]))
    panel.limit("goal for a live token: 0.1 µs", 0.1)
    left.set_ylim(bottom=0.02)
    panel.finish(table["save_ms"][0])
    panel = Panel(right, "Memory of each live token", "tokens held", "bytes", log_y=False)
    panel.line("resident", table["resident_bytes"])
    panel.limit("goal: 100 MB for 100,000", 1000)
    panel.finish(table["resident_bytes"][0], everything=True)
    right.set_ylim(top=1400)


def draw_locations(table, left, right):
    panel = Panel(
        left, "Minting, under a limit of 400 a second", "locations", "ms for each", log_y=False
    )
    panel.line("measured", table["mint_ms"])
    panel.line("what the limit dictates", table["dictated_ms"])
    panel.finish(table["mint_ms"][0], everything=True)
    xs, measured = table["mint_ms"]
    # The API's window is forty times as long as the measured one.
    added = [
        100 * (took / least - 1) / 40
        for took, least in zip(measured, table["dictated_ms"][1], strict=True)
    ]
    panel = Panel(
        right, "What the library adds to the API's own pace", "locations", "percent", log_y=False
    )
    panel.line("measured less dictated", (xs, added))
    panel.limit("goal", 2)
    panel.finish(xs, everything=True)


def draw_processes(table, left, right):
    panel = Panel(left, "Refreshes", "processes with one SQLite store", "per second", log_y=False)
    panel.line("all processes together", table["refreshes_per_second"])
    panel.limit("the disk: two synced writes for each", max(table["syncs_per_second"][1]) / 2)
    panel.finish(table["refreshes_per_second"][0], everything=True)
    panel = Panel(right, "Waiting", "processes with one SQLite store", "ms")
    panel.line("the slowest refresh of all", table["slowest_ms"])
    panel.line("the last of 8 callers in each, one token", table["stampede_ms"])
    panel.limit("goal for callers: 50 ms at the server, and 20", 70)
    right.set_ylim(bottom=10)
    panel.finish(table["stampede_ms"][0])


def draw_hosts(table, left, right):
    panel = Panel(left, "Refreshes", "clients of one PostgreSQL server", "per second", log_y=False)
    panel.line("all clients together", table["refreshes_per_second"])
    panel.limit("the disk: two synced writes for each", max(table["syncs_per_second"][1]) / 2)
    panel.finish(table["refreshes_per_second"][0], everything=True)
    panel = Panel(
        right,
        "The database",
        "clients of one PostgreSQL server",
        "ms for each refresh; connections",
    )
    panel.line("its sessions' time for a refresh", table["database_ms"])
    panel.line("connections", table["connections"])
    panel.limit("PostgreSQL's own default: 100 connections", 100)
    panel.finish(table["database_ms"][0])


def draw(curve, table, folder):
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    {
        "tokens": draw_tokens,
        "locations": draw_locations,
        "processes": draw_processes,
        "hosts": draw_hosts,
    }[curve](figures(table), left, right)
    path = folder / f"{curve}.svg"
    # Without a date, so that equal figures produce an equal file.
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    path.write_text("".join(line.rstrip() + "\n" for line in path.read_text().splitlines()))
    pyplot.close(figure)
    print(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "curves", nargs="*", metavar="CURVE", help=", ".join(CURVES) + "; default: all"
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure less, and keep the stored figures"
    )
    parser.add_argument("--draw", action="store_true", help="draw the stored figures")
    wanted = parser.parse_args()
    unknown = set(wanted.curves) - set(CURVES)
    if unknown:
        parser.error(f"unknown curve {', '.join(sorted(unknown))}")
    folder = pathlib.Path(tempfile.gettempdir()) / "ghl-oauth-growth" if wanted.quick else HERE
    os.makedirs(folder, exist_ok=True)
    for curve in wanted.curves or CURVES:
        path = folder / f"{curve}.csv"
        if not wanted.draw:
            table = measure(curve, wanted.quick)
            if table.count("\n") < 2:
                print(f"{curve}: nothing was measured; is PostgreSQL installed?", file=sys.stderr)
                continue
            path.write_text(table)
        draw(curve, path.read_text(), folder)


if __name__ == "__main__":
    main()
