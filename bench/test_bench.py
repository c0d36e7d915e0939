"""Tests of the evaluation of results. Run with `pytest bench`. They measure nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from client import fault_of
from load import count_handshakes, count_others, read_h2load
from measure import Run
from report import section
from results import Table, ratio
from scenarios import SCENARIOS, Handshakes
from servers import SERVERS, Role
from targets import all_targets

HELLO = next(scenario for scenario in SCENARIOS if scenario.name == "hello-64")


def table(ours: list[Run], granian: list[Run]) -> Table:
    made = Table(HELLO)
    for number, (one, other) in enumerate(zip(ours, granian, strict=False), 1):
        made.add("mlws", Role.OURS, number, one)
        made.add("granian", Role.RIVAL, number, other)
    return made


def rate(value: float, *faults: str) -> Run:
    return Run({"rate": value}, list(faults))


def verdict_on_granian(made: Table) -> tuple[str, str]:
    target = next(target for target in all_targets() if (target.scenario, target.bound) == ("hello-64", 2))
    return target.check({HELLO.name: made})


def test_ratios_are_computed_within_each_round() -> None:
    slow_round = table([rate(300), rate(30), rate(310)], [rate(100), rate(10), rate(100)])
    assert ratio(slow_round.rows["mlws"], slow_round.rows["granian"], "rate") == 3


def test_a_disqualified_run_of_a_rival_does_not_count() -> None:
    made = table([rate(300), rate(300)], [rate(900, "wrong body"), rate(100)])
    assert verdict_on_granian(made) == ("3.00", "reached")
    assert "granian: 1 of 2 runs disqualified (wrong body)." in section(made)


def test_a_disqualified_run_of_mlws_misses_its_target() -> None:
    made = table([rate(900), rate(900, "it spins")], [rate(100), rate(100)])
    figure, verdict = verdict_on_granian(made)
    assert (verdict, "it spins" in figure) == ("**not reached**", True)


def test_a_server_without_a_clean_run_comes_last_and_is_named() -> None:
    made = table([rate(100)], [rate(900, "status 500")])
    assert [row.name for row in made.best_first()] == ["mlws", "granian"]
    assert verdict_on_granian(made)[1] == "not measured"
    assert "| granian" in section(made) and "disqualified" in section(made)


def test_every_target_names_an_existing_scenario_and_servers() -> None:
    everything = {scenario.name: Table(scenario) for scenario in SCENARIOS}
    assert all(target.was_run(everything) for target in all_targets())
    assert {target.check(everything)[1] for target in all_targets()} == {"not measured"}
    assert len({server.name for server in SERVERS}) == len(SERVERS)


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def body() -> list[bytes]:
    return [HELLO.answer]


@pytest.fixture
def port(body: list[bytes]) -> Iterator[int]:
    def app(environ, start_response):  # type: ignore[no-untyped-def]
        start_response("200 OK" if body else "500 Oops", [])
        return body

    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_correct_response_has_no_fault(port: int) -> None:
    assert fault_of(HELLO, port) is None


def test_a_wrong_body_and_a_wrong_status_are_faults(port: int, body: list[bytes]) -> None:
    body[:] = [b"Hello, Moon!\n"]
    assert fault_of(HELLO, port) == "wrong body: 13 bytes, 14 are right"
    body.clear()
    assert fault_of(HELLO, port) == "status 500"


H2LOAD = """\
Application protocol: h2

finished in 45.20ms, 353.98 req/s, 16.01KB/s
requests: 16 total, 16 started, 16 done, 13 succeeded, 3 failed, 1 errored, 0 timeout
"""


def test_what_h2load_reports() -> None:
    load = read_h2load(H2LOAD, tls=True)
    assert load.requests == 13
    assert load.seconds == pytest.approx(0.0452)
    assert load.errors == {"status": 2, "stream": 1, "timeout": 0, "negotiation": 0}


def test_http1_instead_of_http2_and_no_report_are_faults() -> None:
    assert read_h2load(H2LOAD.replace("h2\n", "http/1.1\n"), tls=True).errors["negotiation"] == 1
    assert read_h2load(H2LOAD.replace("Application protocol: h2\n", ""), tls=False).errors["negotiation"] == 0
    assert read_h2load("failed to connect", tls=False).faults()[0] == "no request was answered"


def test_handshakes_are_counted_by_their_kind() -> None:
    output = "Collecting connection statistics for 2 seconds\nrrr*r\n\n5 connections in 0.1s"
    assert count_handshakes(output) == 5
    assert count_others(output, Handshakes.RESUMED) == 1
    assert count_others(output, Handshakes.FULL) == 4
    assert count_handshakes("error") == 0
