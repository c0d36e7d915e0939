"""Clients that disconnect: apps can check for it, and queued requests of such clients are dropped."""

from __future__ import annotations

import json
import socket
import time

import pytest
from clients import ask
from conftest import CONCURRENCY
from harness import Wire, eventually, rests


def test_a_waiting_client_is_not_reported_as_gone(server):
    with server.wire() as wire:
        for _ in range(3):
            assert json.loads(wire.request("/clients/gone").body) == [False]
        # The next request has arrived, which is not a disconnect.
        wire.send(b"GET /clients/gone HTTP/1.1\r\nHost: test\r\n\r\n" * 2)
        assert [json.loads(wire.answer().body) for _ in range(2)] == [[False]] * 2


@pytest.mark.parametrize("leave", ["close", "reset", "finish"])
def test_an_app_can_check_whether_its_client_has_disconnected(server, gate, record, leave):
    """A half-close (`finish`) cannot be distinguished from a disconnect."""
    wire = ask(server, f"/clients/gone?gate={gate.directory}&record={record}")
    gate.wait_for(1)
    getattr(wire, leave)()
    gate.open()
    eventually(lambda: record.read_text() == "gone [False, True]\n", "the app to notice the disconnect")
    if leave == "finish":
        assert json.loads(wire.answer().body) == [False, True]
    wire.close()
    assert server.get("/answers/hello").status == 200


@pytest.mark.parametrize("leave", ["close", "reset"])
def test_an_app_can_check_for_its_client_while_it_streams(server, gate, record, leave):
    wire = ask(server, f"/clients/stream?gate={gate.directory}&record={record}")
    assert wire.head()[1] == 200
    assert wire.chunk() == b"first\n"
    gate.wait_for(1)
    getattr(wire, leave)()
    gate.open()
    eventually(
        lambda: record.read_text() == "gone True\nclosed\n",
        "the app to notice the disconnect and to be closed once",
    )


def test_a_stored_client_gone_callable_does_not_keep_the_connection_open(start):
    server = start("raw", "--threads", "1")
    with server.wire() as wire:
        assert json.loads(wire.request("/clients/earlier", headers="Connection: close\r\n").body) == []
        assert wire.closed()
    with server.wire() as wire:
        eventually(lambda: json.loads(wire.request("/clients/earlier").body)[0], "the first to be gone")
        assert not json.loads(wire.request("/clients/earlier").body)[1]


PLACES = {"inline": 1, "threads": 4, "fork": 4}


@pytest.fixture
def busy(start, concurrency, gate):
    """A server that is at its limit of concurrent requests until the test releases them."""
    children = ("--max-children", "4") if concurrency == "fork" else ()
    server = start("raw", *CONCURRENCY[concurrency], *children, "--head-timeout", "1.5")
    wires = [ask(server, gate.path) for _ in range(PLACES[concurrency])]
    gate.wait_for(len(wires))
    yield server
    for wire in wires:
        wire.close()


def all_are_served(server, gate):
    """Releases all requests, and waits until the queue is empty."""
    gate.open()
    with server.wire() as wire:
        assert wire.request("/answers/hello").text == "hello\n"
    rests(server.workers()[0])
    eventually(lambda: server.children() == [], "every child to be reaped")


def test_a_queued_request_is_dropped_when_its_client_resets_the_connection(busy, gate, record):
    gone = [ask(busy, f"/clients/called?record={record}") for _ in range(3)]
    rests(busy.workers()[0])
    for wire in gone:
        wire.reset()
    all_are_served(busy, gate)
    assert record.read_text() == ""


@pytest.mark.parametrize("concurrency", ["threads", "fork"], scope="module")
def test_a_queued_request_is_dropped_when_its_client_disconnects(busy, gate, record):
    """An end of the input long after the request is a disconnect, not a half-close.

    One client waits until the deadline of the other.
    """
    gone = [ask(busy, f"/clients/called?record={record}") for _ in range(3)]
    with busy.wire() as silent:
        assert silent.closed()
    for wire in gone:
        wire.close()
    all_are_served(busy, gate)
    assert record.read_text() == ""


def test_a_queued_request_whose_client_half_closed_is_answered(busy, gate, record):
    wire = ask(busy, f"/clients/called?record={record}")
    wire.finish()
    if len(gate.pids()) > 1:
        with busy.wire() as silent:
            assert silent.closed()
    gate.open()
    assert wire.answer().status == 200
    assert wire.closed()
    wire.close()
    all_are_served(busy, gate)
    assert record.read_text() == "called with 0\nclosed\n"


def test_a_server_stops_after_all_queued_clients_have_disconnected(busy, gate):
    gone = [ask(busy, "/answers/hello") for _ in range(3)]
    rests(busy.workers()[0])
    for wire in gone:
        wire.reset()
    busy.process.terminate()
    gate.open()
    assert busy.wait() == 0


def test_a_disconnect_on_a_unix_socket_is_detected_immediately(start, tmp_path, gate, record):
    path = tmp_path / "socket"
    start("raw", "--bind", f"unix:{path}", "--threads", "1")

    def ask(target):
        wire = Wire(str(path), socket.AF_UNIX)
        wire.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        return wire

    first = ask(gate.path)
    gate.wait_for(1)
    gone, last = ask(f"/clients/called?record={record}"), ask("/answers/hello")
    gone.close()
    end = time.monotonic() + 0.1
    eventually(lambda: time.monotonic() > end, "the request to have waited")
    gate.open()
    assert first.answer().text == "passed\n"
    assert last.answer().text == "hello\n"
    first.close()
    last.close()
