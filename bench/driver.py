"""Runs the benchmark: all servers in all selected scenarios, in several rounds, and writes the results.

Rounds are the outermost loop, so that a disturbance of some minutes affects one run of many scenarios,
which the median ignores, instead of all runs of one.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from floors import measure_floor
from machine import directory_name, facts
from measure import Run, measure
from place import BENCH, Place, set_up
from report import COLUMNS, full_report
from results import Table, as_json
from scenarios import SCENARIOS, Floor, Scenario
from servers import SERVERS, LeftOut, Role, Server, installed

RESULTS = BENCH / "results"
Step = tuple[Table, str, Role, Callable[[], Run]]


def main() -> int:
    options = read_options()
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:18} {scenario.what}")
        return 0
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # so that child processes are stopped, as on Ctrl-C
    with tempfile.TemporaryDirectory(prefix="mlws-bench-") as scratch:
        place = set_up(Path(scratch))
        allow_many_connections()
        return Benchmark(options, place).run()


def read_options() -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="bin/bench.sh", description="Measures mlws beside its rivals.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all of them unless some are named")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run (3)")
    parser.add_argument("--seconds", type=float, default=4, help="how long one run is (4)")
    parser.add_argument("--servers", metavar="A,B", help="only these servers; the floors are always there")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    options = parser.parse_args()
    if unknown := sorted(set(options.scenarios) - set(names)):
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(names)}")
    known = {server.name for server in SERVERS}
    options.servers = set(options.servers.split(",")) if options.servers else known
    if unknown := sorted(options.servers - known):
        parser.error(f"no server {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("a run takes at least one round of one second")
    options.full = not options.scenarios and options.servers == known
    options.scenarios = [scenario for scenario in SCENARIOS if scenario.name in (options.scenarios or names)]
    return options


def allow_many_connections() -> None:
    """Raises the limit of this process and its children: 10,000 connections have two ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Benchmark:
    """One run of the program. A full run is stored by date and machine and becomes the latest; others are partial."""

    def __init__(self, options: argparse.Namespace, place: Place) -> None:
        self.options = options
        self.place = place
        self.tables = {scenario.name: Table(scenario) for scenario in options.scenarios}
        self.commands: dict[str, str] = {}
        chosen = [server for server in SERVERS if server.name in options.servers or server.role is Role.FLOOR]
        self.servers = [server for server in chosen if installed(server)]
        self.absent = [server.name for server in chosen if server not in self.servers]
        packages = sorted({server.package for server in self.servers if server.package})
        self.facts = facts(["bin/bench.sh", *sys.argv[1:]], options.rounds, options.seconds, packages)
        self.directory = RESULTS / (directory_name() if options.full else "partial")

    def run(self) -> int:
        for name in self.absent:
            say(f"{name} is not installed and left out")
        steps = self.steps()
        start = time.monotonic()
        finished = 0
        try:
            for number in range(1, self.options.rounds + 1):
                for index, step in enumerate(steps):
                    self.take(number, step, (number - 1) * len(steps) + index, len(steps), start)
                finished = number
                self.write()
        except KeyboardInterrupt:
            say(f"interrupted after {finished} of {self.options.rounds} rounds")
        if not finished:
            return 130
        print((self.directory / "table.md").read_text())
        say(f"written to {self.directory.relative_to(BENCH.parent)}")
        if finished < self.options.rounds:
            return 130
        if self.options.full:
            self.become_latest()
        return 0

    def steps(self) -> list[Step]:
        """Runs one round, and records the servers that are skipped in a scenario."""
        steps: list[Step] = []
        for table in self.tables.values():
            scenario = table.scenario
            for server in self.servers:
                try:
                    command = server.start(scenario, self.place, 8000)
                except LeftOut as why:
                    if str(why):
                        table.left_out[server.name] = str(why)
                    continue
                self.commands.setdefault(server.name, self.place.public(command))
                steps.append((table, server.name, server.role, self.server_step(server, scenario)))
            if scenario.floor and scenario.floor is not Floor.EPOLL:
                floor_step = self.floor_step(scenario.floor, scenario)
                steps.append((table, scenario.floor.value, Role.FLOOR, floor_step))
        return steps

    def server_step(self, server: Server, scenario: Scenario) -> Callable[[], Run]:
        return lambda: measure(server, scenario, self.place, self.options.seconds)

    def floor_step(self, floor: Floor, scenario: Scenario) -> Callable[[], Run]:
        return lambda: measure_floor(floor, scenario, self.place, self.options.seconds)

    def take(self, number: int, step: Step, done: int, in_round: int, start: float) -> None:
        table, name, role, run_it = step
        run = run_it()
        table.add(name, role, number, run)
        title, figure, written = COLUMNS[table.scenario.kind][0]
        outcome = "; ".join(run.faults) or f"{written(run.figures[figure])} {title}"
        left = (time.monotonic() - start) / (done + 1) * (in_round * self.options.rounds - done - 1)
        say(
            f"round {number}/{self.options.rounds}  {table.scenario.name:17} {name:24} {outcome}"
            f"  ({left / 60:.0f} min left)"
        )

    def write(self) -> None:
        """Called after each round, so that an interrupted run keeps its figures."""
        from charts import draw_overview, draw_scenario  # matplotlib is not needed for --list

        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        report = full_report(self.facts, self.tables, self.commands, self.absent)
        (self.directory / "table.md").write_text(report)
        results = {"facts": self.facts, "scenarios": as_json(self.tables)}
        (self.directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        for name, table in self.tables.items():
            if table.rows:
                draw_scenario(table, self.directory / f"{name}.svg")
        subtitle = f"{self.facts['machine']}, {self.facts['python']}, {self.facts['date'][:10]}"
        draw_overview(self.tables, subtitle, self.directory / "overview.svg")

    def become_latest(self) -> None:
        latest = RESULTS / "latest"
        latest.mkdir(exist_ok=True)
        for name in ("table.md", "overview.svg"):
            shutil.copyfile(self.directory / name, latest / name)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
