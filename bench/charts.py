"""The charts: bars from best to worst, mlws in colour, the baseline as a line, disqualified runs hatched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report import COLUMNS
from results import Row, Table
from scenarios import Kind
from servers import Role

OVERVIEW = ["hello-64", "hello-64t", "flask", "flask-64t", "django", "sleep-512t"]
COLOURS = {Role.OURS: "#d9480f", Role.RIVAL: "#748ca5", Role.BESIDE: "#c3ced9"}
LINE = "#2b3440"
GAP = 0.012  # distance between a bar or line and its label, as a fraction of the axis
AXES = {
    Kind.LOAD: "requests/s",
    Kind.START: "shorter is better",
    Kind.MEMORY: "PSS, less is better",
    Kind.IDLE: "bytes per connection, less is better",
    Kind.BURST: "shorter is better",
}
SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",  # keeps text as text, so that files are small and searchable
    "svg.hashsalt": "mlws",  # reproducible output
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.bottom": False,
}


def draw_scenario(table: Table, path: Path) -> None:
    with mpl.rc_context(SETTINGS):
        page = Figure(figsize=(7, 0.9 + 0.3 * len(table.rows)), layout="constrained")
        draw(page.subplots(), table, f"{table.scenario.what} ({AXES[table.scenario.kind]})")
        save(page, path)


def draw_overview(tables: dict[str, Table], subtitle: str, path: Path) -> None:
    """Six scenarios on one page. Draws nothing if none of them was run."""
    shown = [tables[name] for name in OVERVIEW if name in tables]
    if not shown:
        return
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(SETTINGS):
        page = Figure(figsize=(4.6 * columns, 0.8 + 3.0 * rows), layout="constrained")
        for position, table in enumerate(shown, 1):
            axes = page.add_subplot(rows, columns, position)
            draw(axes, table, table.scenario.what, leave_out=frozenset({Role.BESIDE}))
        page.suptitle(f"Requests/s on one core\n{subtitle}", fontsize=9)
        save(page, path)


def save(page: Figure, path: Path) -> None:
    page.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})


def draw(axes: Axes, table: Table, title: str, leave_out: frozenset[Role] = frozenset()) -> None:
    rows = [row for row in table.best_first() if row.role not in {Role.FLOOR, *leave_out}]
    lines = floors(table)
    longest = max([*(shown_value(row, table.figure) for row in rows), *lines.values(), 1e-9])
    written = COLUMNS[table.scenario.kind][0][2]
    for position, row in enumerate(rows):
        draw_bar(axes, row, position, shown_value(row, table.figure), written, longest * GAP)
    for name, value in lines.items():
        axes.axvline(value, color=LINE, linewidth=1, linestyle="--")
        left = value > longest / 2
        place = value + longest * (-GAP if left else GAP)
        side = "right" if left else "left"
        label = f"{name}: {written(value)}"
        axes.text(place, len(rows) - 0.35, label, ha=side, va="top", fontsize=8, color=LINE)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - (0.1 if lines else 0.4), -0.6)
    axes.set_xlim(0, longest * 1.17)
    axes.tick_params(axis="both", length=0, labelbottom=False)
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")


def draw_bar(
    axes: Axes, row: Row, position: int, value: float, written: Callable[[float], str], gap: float
) -> None:
    colour, faulty = COLOURS[row.role], row.fault() is not None
    fill, hatch = ("white", "////") if faulty else (colour, "")
    axes.barh(position, value, color=fill, edgecolor=colour, hatch=hatch, height=0.72)
    words = [written(value)] if value else []
    if faulty:
        words.append("a run disqualified" if row.clean() else "disqualified")
    label = axes.text(value + gap, position, ", ".join(words), va="center", fontsize=8)
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # above the line of a baseline


def shown_value(row: Row, figure: str) -> float:
    """The figure of the clean runs. Without any, that of the others, so that the hatched bar has a length."""
    clean = row.median(figure)
    return (
        clean
        if clean is not None
        else max((run.figures.get(figure, 0.0) for run in row.runs.values()), default=0.0)
    )


def floors(table: Table) -> dict[str, float]:
    lines = {row.name: row.median(table.figure) for row in table.rows.values() if row.role is Role.FLOOR}
    if table.scenario.ideal:
        lines["threads / 10 ms"] = table.scenario.ideal
    return {name: value for name, value in lines.items() if value is not None}
