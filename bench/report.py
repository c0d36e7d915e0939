"""The tables, in Markdown that is also readable in a terminal."""

from __future__ import annotations

from results import Row, Table
from scenarios import Kind
from servers import Role
from targets import all_targets

DISTURBED = 0.05  # share of two cores from which other processes affect the figures


def seconds(value: float) -> str:
    """Formats a time in seconds with three significant digits."""
    for unit, scale in (("µs", 1e6), ("ms", 1e3)):
        if value * scale < 999.5:
            return f"{value * scale:.3g} {unit}"
    return f"{value:.2f} s"


def microseconds(value: float) -> str:
    return seconds(value / 1e6)


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def per_second(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def integer(value: float) -> str:
    return f"{value:,.0f}"


def percent(value: float) -> str:
    return f"{value:.0%}"


# For each kind of scenario: title of the column, figure, format.
COLUMNS = {
    Kind.LOAD: [
        ("requests/s", "rate", per_second),
        ("p50", "p50", microseconds),
        ("p99", "p99", microseconds),
        ("CPU/request", "cpu", microseconds),
        ("core", "core", percent),
        ("PSS", "pss", megabytes),
        ("RSS", "rss", megabytes),
        ("errors", "errors", integer),
    ],
    Kind.START: [("first answer", "start", seconds)],
    Kind.MEMORY: [("PSS", "pss", megabytes), ("RSS", "rss", megabytes)],
    Kind.IDLE: [("bytes/connection", "connection", integer), ("PSS", "pss", megabytes)],
    Kind.BURST: [("all responses", "burst", seconds)],
}


def full_report(
    facts: dict[str, str], tables: dict[str, Table], commands: dict[str, str], absent: list[str]
) -> str:
    parts = [
        "# Benchmark\n\nHow to read this: [bench/README.md](../../README.md).",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "## Targets\n\n" + target_table(tables),
        *[section(table) for table in tables.values()],
        "## How each was started\n\nIn the first scenario it took part in; others change threads, workers and the like.",
        "\n".join(f"- {name}: `{line}`" for name, line in commands.items()),
    ]
    if absent:
        parts.append("## Not installed\n\n" + "\n".join(f"- {name}" for name in absent))
    return "\n\n".join(parts) + "\n"


def target_table(tables: dict[str, Table]) -> str:
    lines, not_run = [], 0
    for target in all_targets():
        if not target.was_run(tables):
            not_run += 1
            continue
        shown, verdict = target.check(tables)
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g} {target.unit}".strip()
        lines.append([target.scenario, target.what, bound, shown, verdict])
    notes = [f"{not_run} targets are of scenarios that this run leaves out."] if not_run else []
    if disturbed := [name for name, table in tables.items() if disturbed_rows(table)]:
        notes.append(f"Not to be trusted, as strangers took time of the two cores: {', '.join(disturbed)}.")
    titles = ["scenario", "target", "bound", "figure", "verdict"]
    return "\n\n".join([markdown(titles, lines, numbers=False), *notes])


def section(table: Table) -> str:
    parts = [f"## {table.scenario.name}: {table.scenario.what}"]
    if table.rows:
        parts.append(scenario_table(table))
    notes = [f"{row.name}: {fault}." for row in table.best_first() if (fault := row.fault())]
    for reason in dict.fromkeys(table.left_out.values()):
        names = ", ".join(name for name, why in table.left_out.items() if why == reason)
        notes.append(f"Left out ({reason}): {names}.")
    if disturbed := disturbed_rows(table):
        notes.append(f"Disturbed by other work on the machine: {', '.join(disturbed)}.")
    if table.scenario.ideal:
        notes.insert(0, f"The application's sleeping allows {table.scenario.ideal:,.0f} requests/s.")
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def disturbed_rows(table: Table) -> list[str]:
    return [row.name for row in table.rows.values() if (row.median("others") or 0) > DISTURBED]


def scenario_table(table: Table) -> str:
    columns = COLUMNS[table.scenario.kind]
    titles = ["", *[title for title, _, _ in columns], "spread", "mlws is"]
    return markdown(titles, [line(table, row) for row in table.best_first()])


def line(table: Table, row: Row) -> list[str]:
    names = {Role.OURS: f"**{row.name}**", Role.FLOOR: f"*{row.name}*", Role.BESIDE: f"*{row.name}*"}
    name = names.get(row.role, row.name)
    if not row.clean():
        return [name, "disqualified"]
    cells = [name]
    for _, figure, written in COLUMNS[table.scenario.kind]:
        value = row.median(figure)
        cells.append("" if value is None else written(value))
    spread, better = row.spread(table.figure), table.times_better(row)
    cells.append("" if spread is None else percent(spread))
    cells.append("" if better is None or row.role is Role.OURS else f"{better:.2f}x")
    return cells


def markdown(titles: list[str], lines: list[list[str]], numbers: bool = True) -> str:
    """Pads the cells, so that the source is readable as a table: the first column aligned to the left, numbers to the right."""
    rows = [titles, *[cells + [""] * (len(titles) - len(cells)) for cells in lines]]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(titles))]

    def written(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=False))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + (":" if numbers and column else "-") for column, width in enumerate(widths)]
    return "\n".join([written(rows[0]), f"| {' | '.join(rule)} |", *map(written, rows[1:])])
