"""An error of an app is a 500 with one traceback in the log, and the next request is served."""

from __future__ import annotations

import pytest
from apps.raw.failures import HEADERS, STATUSES

BEFORE_THE_HEAD = [
    "raises",
    "raises_after_start",
    "raises_at_first_piece",
    "exits",
    "exits_in_generator",
    "base_exception",
    "recursion",
    "unprintable",
    "never_starts",
    "never_starts_nothing",
    "never_starts_generator",
    "starts_twice",
    "returns_none",
    "returns_number",
    "returns_bytes",
    "returns_text",
    "text_piece",
    "text_piece_from_iterator",
    "none_piece",
    "writes_text",
    *(f"status?{number}" for number in range(len(STATUSES))),
    *(f"headers?{number}" for number in range(len(HEADERS))),
]


@pytest.fixture(autouse=True)
def same_workers(server):
    """No test may end a worker."""
    workers = server.workers()
    yield
    assert server.workers() == workers


def failure(server, name, method="GET"):
    with server.wire() as wire:
        answer = wire.request(f"/failures/{name}", method)
    assert server.get("/answers/hello").text == "hello\n"
    return answer


@pytest.mark.parametrize("name", BEFORE_THE_HEAD)
def test_a_failing_app_is_a_500_and_the_server_continues(server, name):
    before = len(server.log.text)
    answer = failure(server, name)
    assert (answer.status, answer.complete) == (500, True)
    assert answer.all("set-cookie") == []
    server.log.wait_for(r"\[ERROR\]", since=before)


def test_head_of_a_failing_app_is_a_500_without_a_body(server):
    assert failure(server, "raises", "HEAD").status == 500


def test_the_request_and_traceback_are_logged_but_not_sent(server):
    before = len(server.log.text)
    answer = failure(server, "raises")
    assert "fire" not in answer.text
    assert "Traceback" not in answer.text
    log = server.log.wait_for(r"(?s)\[ERROR\].*ValueError: the app is on fire", since=before).group()
    assert log.count("Traceback") == 1
    assert "failures.py" in log
    assert "/failures/raises" in log


@pytest.mark.parametrize("name", ["midway", "midway_known", "midway_exit", "midway_text"])
def test_an_app_that_fails_midway_truncates_the_response(server, name):
    before = len(server.log.text)
    answer = failure(server, name)
    assert (answer.status, answer.body, answer.complete) == (200, b"so far ", False)
    server.log.wait_for(r"(?s)\[ERROR\].*(on fire|SystemExit|str)", since=before)


def test_an_app_that_fails_after_a_write_truncates_the_response(server):
    with server.wire() as wire:
        answer = wire.request("/answers/write_then_fail")
    assert answer.status == 500 or (answer.body, answer.complete) == (b"written ", False)
    assert server.get("/answers/hello").text == "hello\n"


def test_requests_pipelined_after_a_failure_are_answered_or_not_started(server):
    """Three requests in one packet, of which the first fails before its head.

    The others are either complete or not run.
    """
    one = b"GET /%s HTTP/1.1\r\nHost: test\r\n\r\n"
    with server.wire() as wire:
        wire.send(one % b"failures/raises" + one % b"answers/hello" * 2)
        wire.finish()
        assert wire.answer().status == 500
        rest = wire.rest()
    assert rest.count(b"HTTP/1.1 200 OK") in (0, 2)
    assert rest == b"" or rest.endswith(b"hello\n")
