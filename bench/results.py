"""The runs of all rounds, medians over the clean runs, and ratios.

A ratio is computed within each round, where both servers ran one after the other. The median of these is
not affected by variations of the machine between rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from measure import Run
from scenarios import Kind, Scenario
from servers import Role

# The figure by which a scenario is judged, and whether more is better.
MAIN_FIGURE = {
    Kind.LOAD: ("rate", True),
    Kind.START: ("start", False),
    Kind.MEMORY: ("pss", False),
    Kind.IDLE: ("connection", False),
    Kind.BURST: ("burst", False),
}


@dataclass
class Row:
    """A server or baseline in one scenario, with its runs by round."""

    name: str
    role: Role
    runs: dict[int, Run] = field(default_factory=dict)

    def clean(self) -> dict[int, Run]:
        return {number: run for number, run in self.runs.items() if not run.faults}

    def median(self, figure: str) -> float | None:
        values = [run.figures[figure] for run in self.clean().values() if figure in run.figures]
        return statistics.median(values) if values else None

    def spread(self, figure: str) -> float | None:
        """The range of the values, divided by the median."""
        values = [run.figures[figure] for run in self.clean().values() if figure in run.figures]
        return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else None

    def fault(self) -> str | None:
        """The first reason for disqualified runs, and their number."""
        faulty = [run for run in self.runs.values() if run.faults]
        if not faulty:
            return None
        return f"{len(faulty)} of {len(self.runs)} runs disqualified ({'; '.join(faulty[0].faults)})"


@dataclass
class Table:
    """One scenario: rows by name, and the reasons for skipped ones."""

    scenario: Scenario
    rows: dict[str, Row] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def figure(self) -> str:
        return MAIN_FIGURE[self.scenario.kind][0]

    def add(self, name: str, role: Role, number: int, run: Run) -> None:
        self.rows.setdefault(name, Row(name, role)).runs[number] = run

    def ours(self) -> Row | None:
        return next((row for row in self.rows.values() if row.role is Role.OURS), None)

    def best_first(self, rows: Iterable[Row] | None = None) -> list[Row]:
        """Sorted by the scenario's figure; those without a clean run come last."""
        figure, more_is_better = MAIN_FIGURE[self.scenario.kind]

        def place(row: Row) -> tuple[bool, float]:
            value = row.median(figure)
            return value is None, 0.0 if value is None else -value if more_is_better else value

        return sorted(self.rows.values() if rows is None else rows, key=place)

    def best_rival(self) -> Row | None:
        rivals = self.best_first(row for row in self.rows.values() if row.role is Role.RIVAL and row.clean())
        return rivals[0] if rivals else None

    def times_better(self, row: Row) -> float | None:
        """The factor by which mlws is better than the row, in the scenario's figure."""
        figure, more_is_better = MAIN_FIGURE[self.scenario.kind]
        ours = self.ours()
        if ours is None:
            return None
        return ratio(ours, row, figure) if more_is_better else ratio(row, ours, figure)


def ratio(one: Row, other: Row, figure: str) -> float | None:
    """The ratio of `one` to `other`, over rounds in which both have clean runs."""
    ratios = []
    for number, run in one.clean().items():
        beside = other.clean().get(number)
        if beside and figure in run.figures and beside.figures.get(figure):
            ratios.append(run.figures[figure] / beside.figures[figure])
    return statistics.median(ratios) if ratios else None


def as_json(tables: dict[str, Table]) -> dict[str, object]:
    """All unprocessed runs, by scenario, server and round."""
    return {
        name: {
            "left_out": table.left_out,
            "runs": {
                row.name: {number: asdict(run) for number, run in row.runs.items()}
                for row in table.rows.values()
            },
        }
        for name, table in tables.items()
    }
