"""HTTP/2: hostile clients. Each attack of the table in docs/http2.md ends at its limit, while another client is served and the
memory of the worker stays within bounds."""

from __future__ import annotations

import random
import struct

import pytest
from conftest import CONCURRENCY
from h2.errors import ErrorCodes
from harness import rests
from http2_client import (
    ACK,
    CLEARTEXT,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    IMPATIENT,
    MB,
    NO_FLAGS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
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
CANCEL = struct.pack(">I", ErrorCodes.CANCEL)
NOTHING = struct.pack(">I", 0)


@pytest.fixture
def server(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *CLEARTEXT)


@pytest.fixture
def impatient(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *CLEARTEXT, *IMPATIENT)


# Resets.


def test_rapid_reset_ends_the_connection(server):
    """CVE-2023-44487"""
    with neighbour(server, BOUND), RawClient(server) as client:
        block = client.head()
        client.send(SETTINGS, ACK)
        for stream in range(1, 20_000, 2):
            if not client.send_bytes(
                frame(HEADERS, END_HEADERS | END_STREAM, stream, block) + frame(RST_STREAM, 0, stream, CANCEL)
            ):
                break
        assert client.goaway() in (CALM, None)
        assert stream < 19_999 or client.frames(GOAWAY)


def test_the_reset_limit_is_logged_once_a_minute_per_peer(start):
    server = start("raw", "--threads", "2", *CLEARTEXT)
    for _ in range(3):
        with RawClient(server) as client:
            block = client.head()
            client.send_bytes(
                b"".join(
                    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
                    + frame(RST_STREAM, 0, stream, CANCEL)
                    for stream in range(1, 600, 2)
                )
            )
            assert client.goaway() == CALM
    server.log.wait_for(r"WARNING\] .*127\.0\.0\.1.*too many reset streams")
    rests(server.workers()[0])
    assert server.log.text.count("too many reset streams") == 1


def test_occasional_resets_are_allowed(server):
    with RawClient(server) as client:
        for stream in range(1, 301, 2):  # 150, of the 200 that are allowed at once
            client.open(stream)
            client.send(RST_STREAM, NO_FLAGS, stream, CANCEL)
        client.open(301)
        assert client.status_of(301) == 200


def test_reset_requests_keep_their_place_in_the_app(start, gate):
    """However many requests a client starts and resets, no more than one per thread run."""
    server = start("raw", "--threads", "4", *CLEARTEXT)
    with RawClient(server) as client:
        for stream in range(1, 301, 2):
            client.open(stream, gate.path)
            if stream == 7:
                gate.wait_for(4)
            elif stream > 7:
                client.send(RST_STREAM, NO_FLAGS, stream, CANCEL)
        for stream in (1, 3, 5, 7):
            client.send(RST_STREAM, NO_FLAGS, stream, CANCEL)
        client.open(301, gate.path)
        client.ping()
        assert len(gate.pids()) == 4
        gate.open()
        assert client.status_of(301) == 200
    assert len(gate.pids()) == 5


def test_reset_requests_of_a_client_do_not_block_others(start, gate):
    server = start("raw", "--fork", "--max-children", "4", *CLEARTEXT)
    with RawClient(server) as client:
        for stream in range(1, 301, 2):
            client.open(stream, gate.path)
            client.send(RST_STREAM, NO_FLAGS, stream, CANCEL)
        client.ping()
        assert len(server.children()) <= 4
        gate.open()
        with Http2Client(server) as other:
            assert other.get().status == 200


MADE_RESETS = {
    "a zero increment": lambda client, stream: client.send(WINDOW_UPDATE, 0, stream, NOTHING),
    "an overflow of the window": lambda client, stream: client.send(
        WINDOW_UPDATE, 0, stream, struct.pack(">I", 2**31 - 1)
    ),
    "a priority of the wrong size": lambda client, stream: client.send(PRIORITY, 0, stream, b"\0" * 4),
    "a dependency on itself": lambda client, stream: client.send(
        PRIORITY, 0, stream, struct.pack(">IB", stream, 1)
    ),
    "data after the end": lambda client, stream: client.send(DATA, 0, stream, b"x"),
    "a second head": lambda client, stream: client.send(
        HEADERS, END_HEADERS | END_STREAM, stream, client.encoder.encode([("x", "y")])
    ),
}


@pytest.mark.parametrize("mistake", MADE_RESETS)
def test_resets_that_a_client_provokes_count_as_its_own(server, mistake):
    """CVE-2025-8671, "MadeYouReset". At most, the connection is closed."""
    with neighbour(server, BOUND), RawClient(server) as client:
        client.send(SETTINGS, ACK)
        for stream in range(1, 4000, 2):
            if not client.open(stream, "/answers/many?pieces=10&size=10") or not MADE_RESETS[mistake](
                client, stream
            ):
                break
        client.send(PING, 0, 0, b"the end.")
        while not client.ended and (PING, ACK, 0, b"the end.") not in client.received:
            client.receive()
        assert client.ended or len(client.frames(RST_STREAM)) <= 300


def test_malformed_requests_are_limited_like_resets(server):
    with neighbour(server, BOUND), RawClient(server) as client:
        client.send(SETTINGS, ACK)
        for stream in range(1, 1001, 2):
            client.send(
                HEADERS, END_HEADERS | END_STREAM, stream, client.encoder.encode([(":method", "GET")])
            )
        assert client.goaway() in (CALM, None)


# Streams.


def test_streams_beyond_the_limit_are_refused(start, gate):
    """Until a client has acknowledged the settings, it need not know how many streams it may open."""
    server = start("raw", "--threads", "4", *CLEARTEXT)
    with RawClient(server) as client:
        for stream in range(1, 301, 2):  # 150
            client.open(stream, gate.path)
        client.ping()
        refused = [struct.unpack(">I", payload)[0] for payload in client.frames(RST_STREAM)]
        assert refused == [ErrorCodes.REFUSED_STREAM] * 50
        gate.open()
        client.wait_for(lambda: len(client.frames(HEADERS)) == 100, "the other responses")
        client.send(SETTINGS, ACK)
        client.open(301)
        assert client.status_of(301) == 200


def test_a_client_that_ignores_the_limit_on_streams_is_disconnected(server):
    with neighbour(server, BOUND), RawClient(server) as client:
        client.send(SETTINGS, ACK)
        for stream in range(1, 4001, 2):
            client.open(stream, "/inputs/echo", "POST", end=False)
        assert client.goaway() in (CALM, None)


@pytest.mark.parametrize("number", [1, 5])
def test_the_setting_limits_streams(start, gate, number):
    server = start("raw", "--threads", "8", *CLEARTEXT, "--http2-max-concurrent-streams", str(number))
    with RawClient(server) as client:
        for stream in range(1, 2 * number + 3, 2):
            client.open(stream, gate.path)
        assert client.reset_of(2 * number + 1) == ErrorCodes.REFUSED_STREAM
        gate.wait_for(number)
        gate.open()
        assert client.status_of(1) == 200


# Heads.


def test_a_flood_of_continuations_ends_the_connection(server):
    """CVE-2024-27316"""
    with neighbour(server, BOUND), RawClient(server) as client:
        client.send(HEADERS, NO_FLAGS, 1, client.head())
        for _ in range(10_000):
            if not client.send(CONTINUATION, NO_FLAGS, 1, b"\0\1a\1b" * 3000):
                break
        assert client.goaway() in (CALM, None)


@pytest.mark.parametrize("payload", [b"", b"\0\1a\1b"])
def test_a_flood_of_small_continuations_ends_the_connection(server, payload):
    with neighbour(server, BOUND), RawClient(server) as client:
        client.send(HEADERS, NO_FLAGS, 1, client.head())
        for _ in range(100_000):
            if not client.send(CONTINUATION, NO_FLAGS, 1, payload):
                break
        assert client.goaway() in (CALM, None)


@pytest.mark.parametrize("part", [0, 1])
def test_a_head_that_does_not_end_times_out(impatient, part):
    with neighbour(impatient, BOUND), RawClient(impatient) as client:
        block = client.head()
        if part:
            client.send(HEADERS, NO_FLAGS, 1, block)
        else:
            client.send_bytes(frame(HEADERS, END_HEADERS, 1, block)[:-1])
        assert client.goaway() == CALM


def test_a_head_that_never_ends_times_out_however_many_streams_there_are(impatient):
    with RawClient(impatient) as client:
        client.open(1, "/hangs/slow_pieces")
        client.send(HEADERS, NO_FLAGS, 3, client.head())
        assert client.goaway() == CALM


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0)])
def test_a_silent_connection_is_closed(impatient, sent):
    with RawClient(impatient, start=False) as client:
        client.send_bytes(sent)
        assert client.goaway() in (None, ErrorCodes.NO_ERROR)


HPACK_HEAD = b"\x82\x86\x04\x0e/answers/hello\x01\x04test"
"""GET, http, path and authority, without additions to the dynamic table."""
HPACK_BOMB = b"\x40\x06x-bomb\x7f\xa1\x1e" + b"b" * 4000
"""A field of 4000 bytes that is added to the dynamic table; then 0xbe refers to it."""


@pytest.mark.parametrize(
    ("references", "is_rejected"), [(20, True), (50, True), (100, False), (16_000, False)]
)
def test_an_hpack_bomb_is_a_431_or_closes_the_connection(server, references, is_rejected):
    """CVE-2026-49975: one reference of one byte counts as 4038 bytes."""
    with neighbour(server, BOUND), RawClient(server) as client:
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, HPACK_HEAD + HPACK_BOMB)
        assert client.status_of(1) == 200
        for stream in range(3, 203, 2):
            block = HPACK_HEAD + b"\xbe" * references
            if not client.send(HEADERS, END_HEADERS | END_STREAM, stream, block):
                break
        if is_rejected:
            assert [client.status_of(stream) for stream in range(3, 203, 2)] == [431] * 100
        else:
            assert client.goaway() not in (None, ErrorCodes.NO_ERROR)
            assert set(client.statuses) == {1}


def test_a_head_somewhat_over_the_limit_is_a_431(server):
    with Http2Client(server) as client:
        for size in (66_000, 100_000, 200_000):
            cookies = [("cookie", "c" * 4000)] * (size // 4000)
            answer = client.request(HELLO, headers=cookies)
            assert (answer.status, answer.complete) == (431, True)
        assert client.get().status == 200


def test_the_heads_of_one_connection_share_a_limit(server):
    """100 requests whose bodies do not end, each with a head of 50 KB: one megabyte of them is held."""
    with neighbour(server, BOUND), RawClient(server) as client:
        fields = [(f"x-{number}", "h" * 7000) for number in range(7)]
        for stream in range(1, 201, 2):
            if not client.open(stream, "/inputs/echo", "POST", fields, end=False):
                break
        client.ping()
        refused = [struct.unpack(">I", payload)[0] for payload in client.frames(RST_STREAM)]
        assert set(refused) == {ErrorCodes.REFUSED_STREAM} and 75 <= len(refused) <= 90


@pytest.mark.parametrize("size", [1024, 8192])
def test_the_setting_limits_the_size_of_heads(start, size):
    server = start("raw", "--threads", "2", *CLEARTEXT, "--http2-max-header-list-size", str(size))
    with Http2Client(server) as client:
        assert client.request(HELLO, headers=[("x-a", "a" * (size // 2))]).status == 200
        assert client.request(HELLO, headers=[("x-a", "a" * size)]).status == 431
        assert client.get().status == 200


# Frames without progress.


FLOODS = {
    "SETTINGS": frame(SETTINGS, 0, 0),
    "SETTINGS with a table size": frame(SETTINGS, 0, 0, setting(1, 100)),
    "acknowledged SETTINGS": frame(SETTINGS, ACK, 0),
    "PING": frame(PING, 0, 0, b"pingping"),
    "acknowledged PING": frame(PING, ACK, 0, b"pingping"),
    "PRIORITY": frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
    "PRIORITY of idle streams": frame(PRIORITY, 0, 2**31 - 1, struct.pack(">IB", 0, 1)),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
    "WINDOW_UPDATE of a stream": frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)),
    "empty DATA": frame(DATA, 0, 1),
    "DATA of padding": frame(DATA, 8, 1, b"\x07" + b"\0" * 7),
    "unknown": frame(0xFF, 0, 0),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_without_progress_ends_the_connection(server, kind):
    """CVE-2019-9511 to CVE-2019-9518"""
    with neighbour(server, BOUND), RawClient(server) as client:
        client.open(1, "/inputs/echo", "POST", end=False)
        for _ in range(500):
            if not client.send_bytes(FLOODS[kind] * 100):
                break
        codes = {CALM, None} | ({ErrorCodes.PROTOCOL_ERROR} if kind == "acknowledged SETTINGS" else set())
        assert client.goaway() in codes


def test_many_pings_of_a_busy_client_are_allowed(server):
    with RawClient(server) as client:
        for number in range(500):
            stream = 2 * number + 1
            client.open(stream)
            client.send(PING, 0, 0, b"pingping")
            client.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 6))
            assert client.status_of(stream) == 200


# Violations of the protocol.


VIOLATIONS = {
    "a head of stream 0": frame(HEADERS, 5, 0, b"\x82"),
    "an even stream": frame(HEADERS, 5, 2, b"\x82"),
    "DATA of stream 0": frame(DATA, 0, 0, b"x"),
    "DATA of an idle stream": frame(DATA, 0, 5, b"x"),
    "RST_STREAM of an idle stream": frame(RST_STREAM, 0, 5, CANCEL),
    "WINDOW_UPDATE of an idle stream": frame(WINDOW_UPDATE, 0, 5, CANCEL),
    "a zero increment": frame(WINDOW_UPDATE, 0, 0, NOTHING),
    "an overflow of the window": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
    "a stray CONTINUATION": frame(CONTINUATION, 4, 1, b"\x82"),
    "a head within a head": frame(HEADERS, 0, 1, b"\x82") + frame(PING, 0, 0, b"pingping"),
    "PUSH_PROMISE": frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"),
    "SETTINGS of a stream": frame(SETTINGS, 0, 1),
    "SETTINGS of a wrong size": frame(SETTINGS, 0, 0, b"\0" * 5),
    "an acknowledgement with settings": frame(SETTINGS, ACK, 0, setting(3, 1)),
    "a window above the maximum": frame(SETTINGS, 0, 0, setting(4, 2**31)),
    "a frame size below the minimum": frame(SETTINGS, 0, 0, setting(5, 16_383)),
    "PING of a stream": frame(PING, 0, 1, b"pingping"),
    "PING of a wrong size": frame(PING, 0, 0, b"ping"),
    "a frame over the maximum": frame(DATA, 0, 1, b"x" * 16_385),
    "padding longer than the frame": frame(DATA, 8, 1, b"\x05abc"),
    "no header compression": frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    "the byte that breaks some decoders": frame(HEADERS, 5, 1, b"\x3f"),
    "GOAWAY of a stream": frame(GOAWAY, 0, 1, b"\0" * 8),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_ends_the_connection(server, name):
    with neighbour(server, BOUND), RawClient(server) as client:
        client.open(1, "/inputs/echo", "POST", end=False)
        if "stream 0" not in name and VIOLATIONS[name][3] == HEADERS:
            client = RawClient(server)  # a connection without the stream
        client.send_bytes(VIOLATIONS[name])
        assert client.goaway() not in (None, ErrorCodes.NO_ERROR)


def test_random_bytes_do_not_affect_others(server, at_length):
    chooser = random.Random(2)
    with neighbour(server, BOUND):
        for _ in range(at_length(100, 10_000)):
            with RawClient(server) as client:
                for _ in range(chooser.randrange(1, 20)):
                    payload = chooser.randbytes(chooser.choice([0, 4, 5, 8, 20]))
                    kind, flags, stream = (
                        chooser.randrange(11),
                        chooser.choice([0, 1, 4, 5, 8, 255]),
                        chooser.randrange(6),
                    )
                    client.send(kind, flags, stream, payload)
                    if chooser.random() < 0.3:
                        client.open(
                            2 * chooser.randrange(1, 50) + 1,
                            chooser.choice([HELLO, "/large/whole?lines=9999"]),
                        )
