"""HTTP/2: clients that cancel requests or disconnect. The app can notice it, and queued requests are dropped."""

from __future__ import annotations

import pytest
from conftest import CONCURRENCY, MODES
from harness import eventually, rests
from http2_client import CLEARTEXT, MB, Http2Client

PLACES = {"inline": 1, "threads": 4, "fork": 4}


@pytest.fixture
def server(shared, mode):
    return shared("raw", *MODES[mode], *CLEARTEXT)


@pytest.fixture
def client(server):
    with Http2Client(server) as client:
        yield client


# Clients that disconnect.


@pytest.mark.parametrize("leave", ["cancel", "close"])
def test_an_app_can_check_whether_its_stream_was_cancelled(server, mode, gate, record, leave):
    with Http2Client(server) as client:
        stream = client.open(f"/clients/gone?gate={gate.directory}&record={record}")
        gate.wait_for(1)
        if leave == "cancel":
            client.cancel(stream)
            client.ping()
        else:
            client.close()
            if mode == "fork":  # the child learns it from the worker, which has noticed when it serves others
                with Http2Client(server) as other:
                    other.ping()
        gate.open()
        eventually(lambda: record.read_text() == "gone [False, True]\n", "the app to notice the disconnect")
        if leave == "cancel":
            assert client.get().status == 200
            assert (stream.status, stream.complete) == (None, False)


def test_a_streaming_app_notices_the_cancellation_and_is_closed(server, gate, record):
    with Http2Client(server) as client:
        stream = client.open(f"/clients/stream?gate={gate.directory}&record={record}")
        client.wait(lambda: stream.body == b"first\n", "the first piece")
        gate.wait_for(1)
        client.cancel(stream)
        client.ping()
        gate.open()
        eventually(
            lambda: record.read_text() == "gone True\nclosed\n",
            "the app to notice the disconnect and to be closed once",
        )
        assert client.get().status == 200


def test_an_endless_stream_ends_when_it_is_cancelled(server, record):
    with Http2Client(server) as client:
        stream = client.open(f"/large/endless?record={record}")
        client.wait(lambda: len(stream.body) > MB, "a megabyte")
        client.cancel(stream)
        eventually(lambda: record.read_text() == "closed\n", "the app to be closed")
        assert client.get().status == 200


@pytest.mark.parametrize("name", PLACES)
def test_a_queued_request_that_is_cancelled_is_dropped(start, gate, record, name):
    children = ("--max-children", "4") if name == "fork" else ()
    server = start("raw", *CONCURRENCY[name], *children, *CLEARTEXT)
    with Http2Client(server) as client, Http2Client(server) as other:
        busy = [client.open(gate.path) for _ in range(PLACES[name])]
        gate.wait_for(len(busy))
        for origin in (client, other):
            waiting = [origin.open(f"/clients/called?record={record}") for _ in range(10)]
            for stream in waiting:
                origin.cancel(stream)
        client.ping()
        other.ping()
        gate.open()
        client.finish(*busy)
        assert client.get().status == other.get().status == 200
    rests(server.workers()[0])
    assert record.read_text() == ""


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "fork"])
def test_a_read_raises_if_the_stream_was_cancelled(shared, mode, record):
    """With --fork, the whole body is received before the child is created."""
    server = shared("raw", *MODES[mode], *CLEARTEXT, "--body-buffer", "1000")
    with Http2Client(server) as client:
        stream = client.open(
            f"/uploads/catches?record={record}", "POST", [("content-length", "9000")], end=False
        )
        client.send(stream, b"x" * 2000)
        eventually(lambda: record.read_text() == "called\n", "the app to be called")
        client.cancel(stream)
        _, *errors = eventually(
            lambda: (lines := record.read_text().splitlines())[2:] and lines, "two errors"
        )
        assert all(
            error.startswith(("ConnectionAbortedError: ", "ConnectionResetError: ")) for error in errors
        )
        assert client.get().status == 200


def test_an_upload_that_is_cancelled_early_reaches_no_app(server, record):
    with Http2Client(server) as client:
        stream = client.open(f"/clients/called?record={record}", "POST", end=False)
        client.send(stream, b"x" * 1000)
        client.cancel(stream)
        assert client.get().status == 200
    assert record.read_text() == ""
