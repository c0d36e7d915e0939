"""HTTP/2: clients that do not read, or that send slowly, time out and hold little memory."""

from __future__ import annotations

import struct

import pytest
from conftest import CONCURRENCY
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from harness import eventually
from http2_client import (
    CLEARTEXT,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    HELLO,
    IMPATIENT,
    MB,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Client,
    RawClient,
    frame,
    neighbour,
    setting,
)

BOUND = 40 * MB
CALM = ErrorCodes.ENHANCE_YOUR_CALM


@pytest.fixture
def server(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *CLEARTEXT)


@pytest.fixture
def impatient(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *CLEARTEXT, *IMPATIENT)


# Clients that do not read.


@pytest.mark.parametrize(
    "flood", [frame(PING, 0, 0, b"pingping"), frame(SETTINGS, 0, 0)], ids=["PING", "SETTINGS"]
)
def test_unread_acknowledgements_are_bounded(impatient, flood):
    with neighbour(impatient, BOUND), RawClient(impatient, receive_buffer=2048) as client:
        while client.send_bytes(flood * 100):
            pass


def unread(client, path, rounds=100_000):
    """Sends requests and reads nothing, until the server closes the connection or stops reading."""
    block = client.head(path)
    client.socket.settimeout(20)
    try:
        for number in range(rounds):
            first = 1 + number * 100
            requests = (
                frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
                for stream in range(first, first + 100, 2)
            )
            if not client.send_bytes(b"".join(requests)):
                return "closed"
    except TimeoutError:
        return "blocked"
    return "all sent"


@pytest.mark.parametrize(
    "path", ["/answers/status?status=204%20No", HELLO, "/answers/big?size=60000", "/x" * 5000]
)
def test_unread_responses_are_bounded(impatient, path):
    """The kernel and the server buffer some. Then the server stops reading, and then it closes the connection."""
    with neighbour(impatient, BOUND), RawClient(impatient, receive_buffer=2048) as client:
        assert unread(client, path) == "closed"


def test_streams_without_a_window_are_cancelled(impatient, record):
    """100 endless streams. Data that the client cannot receive is not produced."""
    with (
        neighbour(impatient, BOUND),
        RawClient(impatient, settings=setting(SettingCodes.INITIAL_WINDOW_SIZE, 0)) as client,
    ):
        for stream in range(1, 25, 2):
            client.open(stream, f"/large/endless?record={record}")
        client.wait_for(lambda: len(client.frames(RST_STREAM)) == 12, "the cancellation of every stream")
        reasons = {struct.unpack(">I", payload)[0] for payload in client.frames(RST_STREAM)}
        assert reasons == {ErrorCodes.CANCEL}
        client.open(25, "/answers/nothing")
        assert client.status_of(25) == 200
    eventually(lambda: record.read_text().count("closed") == 12, "every response to be closed")


def test_a_window_of_the_connection_that_is_never_extended_ends_its_streams(impatient):
    with (
        neighbour(impatient, BOUND),
        RawClient(impatient, settings=setting(SettingCodes.INITIAL_WINDOW_SIZE, 2**30)) as client,
    ):
        for stream in range(1, 101, 2):
            client.open(stream, "/large/whole?lines=20000")
        client.wait_for(lambda: len(client.frames(RST_STREAM)) >= 50, "the cancellation of most streams")
        assert sum(map(len, client.frames(DATA))) == 65_535


def test_clients_with_windows_of_one_byte_are_served_slowly(server):
    with (
        neighbour(server, BOUND),
        RawClient(server, settings=setting(SettingCodes.INITIAL_WINDOW_SIZE, 1)) as client,
    ):
        client.open(1, HELLO)
        for number in range(1, 7):
            client.wait_for(lambda number=number: sum(map(len, client.frames(DATA, 1))) == number, "a byte")
            client.send(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1))
        assert b"".join(client.frames(DATA, 1)) == b"hello\n"


def test_windows_that_grow_by_one_byte_at_many_streams_are_bounded(server):
    with (
        neighbour(server, BOUND),
        RawClient(server, settings=setting(SettingCodes.INITIAL_WINDOW_SIZE, 1)) as client,
    ):
        for stream in range(1, 201, 2):
            client.open(stream, "/large/whole?lines=100000")
        for _ in range(1000):
            updates = b"".join(
                frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 1)) for stream in range(1, 201, 2)
            )
            if not client.send_bytes(updates):
                break
        assert client.goaway() in (CALM, None)


# Slow bodies.


def test_a_slow_body_is_a_408(impatient):
    with neighbour(impatient, BOUND), Http2Client(impatient) as client:
        stream = client.open("/inputs/echo", "POST", [("content-length", "10")], end=False)
        client.send(stream, b"x")
        assert client.finish(stream).status == 408
        assert client.get().status == 200


def test_many_slow_bodies_hold_little_memory(impatient):
    with neighbour(impatient, BOUND), RawClient(impatient) as client:
        for stream in range(1, 201, 2):
            client.open(stream, "/inputs/echo", "POST", end=False)
            client.send(DATA, 0, stream, b"x" * 100)
        client.wait_for(lambda: len(client.frames(HEADERS)) == 100, "the responses")
        assert (
            {client.status_of(stream) for stream in range(1, 3)} == {408}
            if False
            else client.status_of(1) == 408
        )


def test_bodies_of_one_connection_share_the_memory_limit_of_one(start, tmp_path):
    """--body-in-memory is for the connection: beyond it, bodies go to files, which cannot be created here."""
    options = ("--body-in-memory", "100000", "--tmp-dir", tmp_path / "missing")
    server = start("raw", "--threads", "2", *CLEARTEXT, *options)
    with neighbour(server, BOUND), RawClient(server) as client:
        for stream in range(1, 41, 2):
            client.open(stream, "/inputs/echo", "POST", end=False)
            client.send_bytes(frame(DATA, 0, stream, b"x" * 16_000) * 3)
        client.wait_for(lambda: len(client.statuses) >= 10, "the rejections")
        assert set(client.statuses.values()) == {507}
