"""The targets of the project, each with the figure of this run and whether it is reached.

A disqualified run of mlws misses its target. Disqualified runs of other servers are ignored.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from results import Row, Table, ratio
from scenarios import Floor

Tables = dict[str, Table]
Figure = Callable[[Tables, str], tuple[float, str]]


class NotMeasured(Exception):
    """There are no clean figures for the comparison, for the reason in the message."""


class Disqualified(Exception):
    """A run of mlws was disqualified, so the target is missed, for the reason in the message."""


@dataclass(frozen=True)
class Target:
    """`figure` returns the value for the scenario, and a remark.

    `unit` is for values that are not ratios. `other` is the scenario to compare with, if it is another
    one.
    """

    scenario: str
    what: str
    bound: float
    at_least: bool
    figure: Figure
    unit: str = ""
    other: str | None = None

    def was_run(self, tables: Tables) -> bool:
        return self.scenario in tables and (self.other is None or self.other in tables)

    def check(self, tables: Tables) -> tuple[str, str]:
        """Returns the figure and the verdict."""
        try:
            value, remark = self.figure(tables, self.scenario)
        except NotMeasured as missing:
            return str(missing), "not measured"
        except Disqualified as fault:
            return str(fault), "**not reached**"
        reached = value >= self.bound if self.at_least else value <= self.bound
        digits = 1 if value >= 1 else 2
        shown = f"{value:,.{digits}f} {self.unit}" if self.unit else f"{value:.2f}"
        return f"{shown}{remark}", "reached" if reached else "**not reached**"


def all_targets() -> Iterator[Target]:
    epoll, call, fork = Floor.EPOLL.value, Floor.CALL.value, Floor.FORK_WARM.value
    for name in ("hello-64", "hello-512"):
        yield Target(name, "requests/s, of the bare epoll loop's", 0.88, True, ours_to(epoll))
        yield Target(
            name, "CPU per request, of the bare epoll loop's", 1.3, False, ours_to(epoll, figure="cpu")
        )
        yield Target(name, "times fastwsgi", 1.1, True, ours_to("fastwsgi", "fastpysgi"))
        yield Target(name, "times bjoern", 1.2, True, ours_to("bjoern"))
        yield Target(name, "times granian", 2, True, ours_to("granian"))
        yield Target(name, "times gunicorn", 20, True, ours_to("gunicorn sync", "gunicorn gthread"))
    yield ours_to_ours("hello-64t", "of our own inline", 0.95, True, other="hello-64")
    yield Target("hello-64t", "times granian", 2, True, ours_to("granian"))
    for name in ("flask", "django"):
        yield Target(name, "of the app's calls/s in a plain loop", 0.80, True, ours_to(call))
        yield Target(name, "times the best rival", 1, True, ours_to_best_rival)
        yield Target(name, "times granian", 1.4, True, ours_to("granian"))
    yield ours_to_ours("flask-64t", "of our own inline", 0.92, True, other="flask")
    yield ours_to_ours("flask-64t", "p99, of that with 4 threads", 3, False, other="flask-4t", figure="p99")
    yield Target("sleep-512t", "times granian", 1.15, True, ours_to("granian"))
    yield Target("sleep-128t", "of 128 threads / 10 ms", 0.95, True, own("rate", per=12_800))
    for name in ("echo-10k", "stream-100x1k", "upload-10m"):
        yield Target(name, "times the best rival", 1, True, ours_to_best_rival)
    yield Target("file-10m", "CPU per request, of nginx's", 1.2, False, ours_to("nginx", figure="cpu"))
    for name in ("fork-hello-warm", "fork-flask-warm"):
        yield Target(name, "of the bare fork loop", 0.95, True, ours_to(fork))
    yield ours_to_ours("fork-flask-warm", "times the cold one", 2, True, other="fork-flask")
    yield Target(
        "start", "above `python -c 'import app'`", 20, False, above(Floor.IMPORT, "start", 0.001), "ms"
    )
    yield Target(
        "memory-1", "above the interpreter with the app", 5, False, above(Floor.HOLD, "pss", 1e6), "MB"
    )
    yield Target("idle-10k", "for each connection", 2048, False, own("connection", per=1), "bytes")
    yield from encrypted_targets()
    yield from http2_targets()


def encrypted_targets() -> Iterator[Target]:
    yield cpu_of_plain("tls-hello-64", 1.35)
    yield Target("tls-hello-64", "times granian", 3.3, True, ours_to("granian"))
    yield Target("tls-full", "CPU per handshake, of nginx's", 1.1, False, ours_to("nginx", figure="cpu"))
    yield Target("tls-file-10m", "CPU per request, of nginx's", 1.25, False, ours_to("nginx", figure="cpu"))
    yield Target(
        "tls-upload-100m",
        "CPU per request, of nginx + mlws",
        1.25,
        False,
        ours_to("nginx + mlws", figure="cpu"),
    )
    yield Target("tls-idle-2k", "for each connection", 12 << 10, False, own("connection", per=1), "bytes")


def http2_targets() -> Iterator[Target]:
    for name, bound in (("h2c-hello", 1.2), ("h2-hello", 1.35)):
        yield cpu_of_plain(name, bound)
        yield Target(name, "times granian", 3.5, True, ours_to("granian"))
        yield Target(name, "times gunicorn", 40, True, ours_to("gunicorn gthread"))
    for name in ("h2c-burst", "h2-burst"):
        yield Target(name, "until all answers", 0.45, False, own("burst", per=1), "s")
    yield Target("h2-idle-2k", "for each connection", 24 << 10, False, own("connection", per=1), "bytes")


def cpu_of_plain(scenario: str, bound: float) -> Target:
    what = "CPU per request, of our own plain HTTP/1"
    return ours_to_ours(scenario, what, bound, at_least=False, other="hello-64", figure="cpu")


def ours_to_ours(
    scenario: str, what: str, bound: float, at_least: bool, other: str, figure: str = "rate"
) -> Target:
    return Target(scenario, what, bound, at_least, ours_to("mlws", figure=figure, other=other), other=other)


def ours_to(*names: str, figure: str = "rate", other: str | None = None) -> Figure:
    """The ratio of mlws to the best of these servers, in the same scenario or in another."""

    def value(tables: Tables, scenario: str) -> tuple[float, str]:
        best = best_row(tables[other or scenario], *names)
        return compare(best_row(tables[scenario], "mlws"), best, figure), f" ({best.name})" if len(
            names
        ) > 1 else ""

    return value


def ours_to_best_rival(tables: Tables, scenario: str) -> tuple[float, str]:
    best = tables[scenario].best_rival()
    if best is None:
        raise NotMeasured("no rival answered right")
    return compare(best_row(tables[scenario], "mlws"), best, "rate"), f" ({best.name})"


def above(floor: Floor, figure: str, unit: float) -> Figure:
    """The excess over the baseline, in each round."""

    def value(tables: Tables, scenario: str) -> tuple[float, str]:
        ours = best_row(tables[scenario], "mlws").clean()
        least = best_row(tables[scenario], floor.value).clean()
        more = [
            run.figures[figure] - least[number].figures[figure]
            for number, run in ours.items()
            if number in least
        ]
        if not more:
            raise NotMeasured("there are no clean runs of both in the same round")
        return statistics.median(more) / unit, ""

    return value


def own(figure: str, per: float) -> Figure:
    def value(tables: Tables, scenario: str) -> tuple[float, str]:
        runs = best_row(tables[scenario], "mlws").clean().values()
        return statistics.median(run.figures[figure] for run in runs) / per, ""

    return value


def best_row(table: Table, *names: str) -> Row:
    """The best of these servers with clean runs. Raises Disqualified if mlws has other ones."""
    present = [table.rows[name] for name in names if name in table.rows]
    if not present:
        raise NotMeasured(f"{names[0]}: {table.left_out.get(names[0]) or 'not in this run'}")
    best = table.best_first(present)[0]
    if best.name == "mlws" and (fault := best.fault()):
        raise Disqualified(fault)
    if not best.clean():
        raise NotMeasured(f"{best.name}: {best.fault()}")
    return best


def compare(one: Row, other: Row, figure: str) -> float:
    value = ratio(one, other, figure)
    if value is None:
        raise NotMeasured(f"{one.name} and {other.name} have no clean runs in the same round")
    return value
