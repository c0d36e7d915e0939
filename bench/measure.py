"""One run: starts a server, checks it, loads it, measures it, and stops it.

Any fault disqualifies the run. The figures: `rate` requests/s, `p50` and `p99` in microseconds, `cpu`
microseconds of CPU per request, `core` the utilization of the server's core, `others` the share of both
cores that other processes used, `errors` their number, `pss` and `rss` bytes, `start` seconds, `connection`
bytes per idle connection, `burst` seconds for all requests.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from client import IdleConnections, fault_of, first_answer, free_port
from load import burst, load
from place import Place
from process import CannotStart, Session, busy_seconds, own_cpu_seconds
from scenarios import Kind, Scenario
from servers import Server

STARTS_IN_A_RUN = 5
BURSTS_IN_A_RUN = 3
TIME_TO_SETTLE = 0.3  # seconds after which the child of a single request has exited
IDLE_WATCH = 0.5  # seconds in which a server without requests must be idle
TIME_FOR_CHILDREN = 2.0
sequence = itertools.count(1)


@dataclass
class Run:
    figures: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def note(self, when: str, fault: str | None) -> None:
        if fault:
            self.faults.append(f"{when}: {fault}")


@dataclass
class Subject:
    """A server that has started and responded correctly, and the duration of the load."""

    session: Session
    scenario: Scenario
    port: int
    cores: set[int]
    seconds: float


def measure(server: Server, scenario: Scenario, place: Place, seconds: float) -> Run:
    """Run the scenario. Raises LeftOut before anything is started."""
    if scenario.kind is Kind.START:
        return measure_starts(server, scenario, place)
    run = Run()
    port = free_port()
    with open_session(place, server.start(scenario, place, port)) as session:
        subject = Subject(session, scenario, port, {place.server_core, place.load_core}, seconds)
        try:
            run.note("before the load", first_answer(session, scenario, port))
            if not run.faults:
                MEASURES[scenario.kind](run, subject)
                run.note("after the load", fault_of(scenario, port))
        except CannotStart as error:
            run.note("it did not start", str(error))
        except ConnectionRefusedError:
            run.note("it ended under load", session.last_words())
    return run


def open_session(place: Place, command: list[str]) -> Session:
    return Session(command, place.environment(), place.server_core, place.scratch / f"log-{next(sequence)}")


def measure_load(run: Run, subject: Subject) -> None:
    session, scenario, cores = subject.session, subject.scenario, subject.cores
    if scenario.fork:
        time.sleep(TIME_TO_SETTLE)
    at_rest = len(session.processes())
    load(scenario, subject.port, subject.seconds / 5)  # to warm up
    cpu, ours, busy, start = session.cpu_seconds(), own_cpu_seconds(), busy_seconds(cores), time.monotonic()
    done = load(scenario, subject.port, subject.seconds)
    cpu, ours, busy = session.cpu_seconds() - cpu, own_cpu_seconds() - ours, busy_seconds(cores) - busy
    elapsed = time.monotonic() - start
    memory = session.memory()
    run.faults += done.faults()
    if scenario.fork:
        run.faults += left_behind(session, at_rest)
    run.figures = {
        "rate": done.rate,
        **done.latencies,
        "cpu": cpu / max(1, done.requests) * 1e6,
        "core": cpu / elapsed,
        "others": max(0.0, busy - cpu - ours) / elapsed,
        "pss": memory.pss,
        "rss": memory.rss,
        "errors": sum(done.errors.values()),
    }


def left_behind(session: Session, at_rest: int) -> list[str]:
    """Checks that after the load no child is left and that the server is idle."""
    deadline = time.monotonic() + TIME_FOR_CHILDREN
    while (more := len(session.processes()) - at_rest) > 0:
        if time.monotonic() > deadline:
            return [f"{more} children were left behind"]
        time.sleep(0.01)
    cpu = session.cpu_seconds()
    time.sleep(IDLE_WATCH)
    spent = (session.cpu_seconds() - cpu) / IDLE_WATCH
    return [f"it spins: {spent:.0%} of a core without requests"] if spent > 0.1 else []


def measure_memory(run: Run, subject: Subject) -> None:
    run.faults += load(subject.scenario, subject.port, subject.seconds).faults()
    memory = subject.session.memory()
    run.figures = {"pss": memory.pss, "rss": memory.rss}


def measure_idle(run: Run, subject: Subject) -> None:
    count = subject.scenario.connections
    before = subject.session.memory().pss
    with IdleConnections(subject.scenario, subject.port) as idle:
        try:
            idle.open(count, subject.scenario.answer)
        except OSError as error:
            run.note(f"connection {len(idle.sockets):,} of {count:,}", str(error))
            return
        grown = subject.session.memory().pss - before
        if (kept := idle.open_still()) < count:
            run.faults.append(f"it kept {kept:,} of {count:,} connections")
    run.figures = {"connection": grown / count, "pss": before + grown}


def measure_burst(run: Run, subject: Subject) -> None:
    times = []
    for _ in range(BURSTS_IN_A_RUN):
        done = burst(subject.scenario, subject.port)
        run.faults += done.faults()
        if done.requests < subject.scenario.streams:
            run.faults.append(f"{done.requests} of {subject.scenario.streams} requests were answered")
        times.append(done.seconds)
    run.figures = {"burst": statistics.median(times)}


def measure_starts(server: Server, scenario: Scenario, place: Place) -> Run:
    run = Run()
    times = []
    for _ in range(STARTS_IN_A_RUN):
        port = free_port()
        command = server.start(scenario, place, port)
        start = time.monotonic()
        with open_session(place, command) as session:
            try:
                run.note("first answer", first_answer(session, scenario, port))
            except CannotStart as error:
                run.note("it did not start", str(error))
                return run
            times.append(time.monotonic() - start)
    run.figures = {"start": statistics.median(times)}
    return run


MEASURES: dict[Kind, Callable[[Run, Subject], None]] = {
    Kind.LOAD: measure_load,
    Kind.MEMORY: measure_memory,
    Kind.IDLE: measure_idle,
    Kind.BURST: measure_burst,
}
