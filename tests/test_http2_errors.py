"""HTTP/2: an error of one request is a response or a reset on its stream, and the connection stays open."""

from __future__ import annotations

import json

import pytest
from conftest import MODES
from h2.errors import ErrorCodes
from http2_client import (
    CLEARTEXT,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    HELLO,
    NO_FLAGS,
    RST_STREAM,
    Http2Client,
    RawClient,
)
from test_watchdog import where


@pytest.fixture
def server(shared, mode):
    return shared("raw", *MODES[mode], *CLEARTEXT)


@pytest.fixture
def client(server):
    with Http2Client(server) as client:
        yield client


def head(*fields, without=(), **replaced):
    """The fields of a request by which the app records its call."""
    pseudo = {"method": "GET", "scheme": "http", "authority": "test", "path": "/clients/called?record=RECORD"}
    pseudo.update(replaced)
    return [(f":{name}", value) for name, value in pseudo.items() if name not in without] + list(fields)


MALFORMED = {
    "no method": head(without=["method"]),
    "no scheme": head(without=["scheme"]),
    "no path": head(without=["path"]),
    "neither authority nor Host": head(without=["authority"]),
    "an empty path": head(path=""),
    "a path without a slash": head(path="clients"),
    "an absolute target as path": head(path="http://test/"),
    "a star that is not for OPTIONS": head(path="*"),
    "a space in the path": head(path="/a b"),
    "a repeated pseudo-header": [*head(), (":path", "/other")],
    "a pseudo-header behind a field": [*head(without=["path"]), ("x-a", "b"), (":path", "/")],
    "a pseudo-header of responses": [*head(), (":status", "200")],
    "Host differs from the authority": head(("host", "other")),
    "two Host fields": head(("host", "test"), ("host", "test")),
    "Connection": head(("connection", "close")),
    "Keep-Alive": head(("keep-alive", "timeout=5")),
    "Proxy-Connection": head(("proxy-connection", "keep-alive")),
    "Transfer-Encoding": head(("transfer-encoding", "chunked")),
    "Upgrade": head(("upgrade", "h2c")),
    "TE that is not trailers": head(("te", "gzip")),
    "a length that is no number": head(("content-length", "x")),
    "a length with a sign": head(("content-length", "+0")),
    "a value that begins with a space": head(("x-a", " b")),
    "a value that ends with a tab": head(("x-a", "b\t")),
}
"""The stream is reset, at least."""

UNREADABLE = {
    "an uppercase name": head(("X-A", "b")),
    "an empty name": head(("", "b")),
    "a space in a name": head(("x a", "b")),
    "a colon in a name": head(("x:a", "b")),
    "a line feed in a name": head(("x\na", "b")),
    "a line feed in a value": head(("x-a", "b\nc: d")),
    "a carriage return in a value": head(("x-a", "b\rc: d")),
    "a zero byte in a value": head(("x-a", "b\0")),
    "a line feed in the path": head(path="/a\nb"),
    "a line feed in the authority": head(authority="test\r\nx: y"),
    "a method that is no token": head(method="GET /x"),
    "an unknown pseudo-header": [*head(), (":protocol-of-mine", "x")],
}
"""These may also end the connection, because it could not be decoded further (see the limitations of crates/http2)."""


def sent(server, fields, record):
    """The error code of the stream or of the connection that this request causes."""
    with RawClient(server) as client:
        fields = [(name, value.replace("RECORD", str(record))) for name, value in fields]
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, client.encoder.encode(fields))
        while not client.frames(RST_STREAM, 1) and client.receive():
            pass
        if client.ended:
            return None, client.goaway()
        client.open(3)
        assert client.status_of(3) == 200
        return client.reset_of(1), None


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_resets_its_stream(server, record, name):
    assert sent(server, MALFORMED[name], record) == (ErrorCodes.PROTOCOL_ERROR, None)
    assert record.read_text() == ""


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_request_that_cannot_be_parsed_reaches_no_app(server, record, name):
    with Http2Client(server) as other:
        assert other.get().status == 200
        reset, goaway = sent(server, UNREADABLE[name], record)
        assert ErrorCodes.PROTOCOL_ERROR in (reset, goaway)
        assert other.get().status == 200
    assert record.read_text() == ""


def test_te_trailers_is_allowed(client):
    assert client.request(HELLO, headers=[("te", "trailers")]).status == 200


@pytest.mark.parametrize(
    ("announced", "sizes"), [(10, [5]), (10, [0]), (3, [5]), (3, [3, 1]), (0, [1]), (1, [])]
)
def test_a_length_that_does_not_match_the_data_resets_the_stream(server, record, announced, sizes):
    with RawClient(server) as client:
        path = f"/clients/called?record={record}"
        client.open(1, path, "POST", [("content-length", str(announced))], end=not sizes)
        for number, size in enumerate(sizes, 1):
            client.send(DATA, END_STREAM if number == len(sizes) else NO_FLAGS, 1, b"x" * size)
        assert client.reset_of(1) == ErrorCodes.PROTOCOL_ERROR
        client.open(3)
        assert client.status_of(3) == 200
    assert record.read_text() == ""


def test_a_body_shorter_than_its_length_before_trailers_resets_the_stream(server, record):
    with RawClient(server) as client:
        client.open(1, f"/clients/called?record={record}", "POST", [("content-length", "5")], end=False)
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, client.encoder.encode([("x-trailer", "1")]))
        assert client.reset_of(1) == ErrorCodes.PROTOCOL_ERROR
    assert record.read_text() == ""


# Limits of requests.


STATUSES = {
    "a long path": (414, {"path": "/" + "a" * 9000}, []),
    "a long query": (414, {"path": "/?" + "a" * 9000}, []),
    "a long field": (431, {}, [("x-a", "a" * 9000)]),
    "many fields": (431, {}, [(f"x-{number}", "a") for number in range(101)]),
    "many long fields": (431, {}, [(f"x-{number}", "a" * 8000) for number in range(9)]),
    "long cookies": (431, {}, [("cookie", f"a{number}={'b' * 100}") for number in range(100)]),
    "a host that is none": (400, {"authority": "a,b"}, []),
    "two types": (400, {}, [("content-type", "text/plain"), ("content-type", "text/html")]),
    "two lengths": (400, {}, [("content-length", "0"), ("content-length", "0")]),
    "another expectation": (417, {}, [("expect", "magic")]),
    "a long method": (501, {"method": "A" * 33}, []),
}


@pytest.mark.parametrize("name", STATUSES)
def test_a_request_over_a_limit_is_rejected(client, record, name):
    status, replaced, fields = STATUSES[name]
    replaced = {"path": f"/clients/called?record={record}", **replaced}
    answer = client.request("", pseudo=head(*fields, **replaced))
    assert (answer.status, answer.complete) == (status, True)
    assert answer.text.startswith(f"{status} ") or name in ("many long fields",)
    assert answer.header("connection") is None
    assert client.get().status == 200
    assert record.read_text() == ""


def test_connect_is_rejected(client):
    answer = client.request("", pseudo=[(":method", "CONNECT"), (":authority", "test:443")])
    assert (answer.status, answer.complete) == (501, True)
    assert client.get().status == 200


def test_the_rejection_of_a_head_request_has_no_body(client):
    answer = client.request("/" + "a" * 9000, method="HEAD")
    assert (answer.status, bytes(answer.body)) == (414, b"")
    assert client.get().status == 200


@pytest.mark.parametrize("length", [True, False])
def test_a_body_over_the_limit_is_a_413(shared, mode, record, length):
    server = shared("raw", *MODES[mode], *CLEARTEXT, "--limit-request-body", "1000")
    fields = [("content-length", "1001")] if length else []
    with Http2Client(server) as client:
        stream = client.open(f"/clients/called?record={record}", "POST", fields, end=False)
        if not length:
            client.send(stream, b"x" * 1001)
        assert (client.finish(stream).status, stream.complete) == (413, True)
        # The client need not send the rest; data in flight is ignored.
        client.wait(lambda: stream.reset is not None or client.get().status == 200)
        assert stream.reset in (None, ErrorCodes.NO_ERROR)
        assert client.request("/inputs/echo", method="POST", body=b"x" * 1000).status == 200
    assert record.read_text() == ""


def test_a_rejected_upload_does_not_exhaust_the_window_of_the_connection(shared, mode):
    server = shared("raw", *MODES[mode], *CLEARTEXT, "--limit-request-body", "1000")
    with RawClient(server) as client:
        for stream in range(1, 200, 2):  # 100 streams, each with 64 KiB of unread data
            client.open(stream, "/inputs/echo", "POST", end=False)
            for _ in range(4):
                client.send(DATA, NO_FLAGS, stream, b"x" * 16_000)
            assert client.status_of(stream) == 413
        client.open(201, "/inputs/echo", "POST", end=False)
        client.send(DATA, END_STREAM, 201, b"y" * 1000)
        assert client.status_of(201) == 200


# Failures of the app.


@pytest.mark.parametrize(
    "name", ["raises", "exits", "raises_at_first_piece", "never_starts", "text_piece", "returns_none"]
)
def test_an_app_that_fails_before_its_response_is_a_500(client, name):
    answer = client.request(f"/failures/{name}")
    assert (answer.status, answer.complete) == (500, True)
    assert client.get().status == 200


FAILS_MIDWAY = {
    "/answers/noted?at=middle": b"one ",
    "/misbehaviour/midway_number": b"so far ",
    "/misbehaviour/write_then_raise": b"so far ",
    "/large/raises?lines=50000": None,
    "/misbehaviour/declares_length?shape=list&pieces=3&length=5": b"xxx",
}


@pytest.mark.parametrize("path", FAILS_MIDWAY)
def test_an_app_that_fails_within_its_response_resets_the_stream(client, path):
    answer = client.request(path)
    assert (answer.status, answer.complete, answer.reset) == (200, False, ErrorCodes.INTERNAL_ERROR)
    expected = FAILS_MIDWAY[path]
    assert len(answer.body) <= 400_000 if expected is None else expected.startswith(bytes(answer.body))
    assert client.get().status == 200


def test_more_data_than_announced_is_not_sent(client):
    answer = client.request("/misbehaviour/declares_length?shape=list&pieces=5&length=3")
    assert (answer.status, answer.header("content-length")) == (200, "3")
    assert bytes(answer.body) == b"xxx"
    assert client.get().status == 200


@pytest.mark.parametrize("how", ["exit", "SIGKILL", "segfault"])
def test_a_child_that_dies_is_an_error_of_its_stream(shared, how):
    server = shared("raw", *MODES["fork"], *CLEARTEXT)
    with Http2Client(server) as client:
        assert client.request(f"/gates/die?how={how}").status == 500
        answer = client.request(f"/gates/die?sent=5&how={how}")
        assert (answer.status, bytes(answer.body)) == (200, b"xxxxx")
        assert (answer.complete, answer.reset) == (False, ErrorCodes.INTERNAL_ERROR)
        assert client.get().status == 200
        assert len(server.workers()) == 1


# The watchdog.


def test_a_request_that_hangs_is_a_504(start, mode):
    server = start("raw", *MODES[mode], *CLEARTEXT, "--timeout", "1")
    with Http2Client(server) as client:
        hanging = client.open("/hangs/blocks")
        answer = client.finish(hanging)
        assert (answer.status, answer.complete) == (504, True)
        assert answer.text == "504 Gateway Timeout: the request took too long\n"
        if mode == "fork":  # elsewhere the worker is replaced
            assert client.get().status == 200
    server.log.wait_for(r"ERROR\] request timeout: GET /hangs/blocks from 127\.0\.0\.1 .* 1\.\d s")
    server.log.wait_for(where("blocks"))
    with Http2Client(server) as client:
        assert client.get().status == 200


def test_a_response_that_hangs_midway_is_reset(start, mode):
    server = start("raw", *MODES[mode], *CLEARTEXT, "--timeout", "1")
    with Http2Client(server) as client:
        answer = client.request("/hangs/stream")
        assert (answer.status, bytes(answer.body), answer.complete) == (200, b"first\n", False)
        assert answer.reset == ErrorCodes.INTERNAL_ERROR
    server.log.wait_for(where("stream"))
    with Http2Client(server) as client:
        assert client.get().status == 200


@pytest.mark.parametrize("name", ["threads", "fork"])
def test_the_other_streams_of_the_connection_are_finished(start, name):
    server = start("raw", *MODES[name], *CLEARTEXT, "--timeout", "1")
    with Http2Client(server) as client:
        hanging = client.open("/hangs/blocks")
        other = client.open("/hangs/slow_pieces")
        client.finish(hanging, other)
        assert hanging.status == 504
        assert (other.status, bytes(other.body), other.complete) == (200, b"piece\n" * 8, True)


# Permitted behaviour of clients.


def test_frames_that_are_unknown_or_late_are_ignored(server):
    with RawClient(server) as client:
        client.send(0xFA, 0xFF, 0, b"unknown")
        client.open(1)
        assert client.status_of(1) == 200
        client.send(RST_STREAM, NO_FLAGS, 1, b"\0\0\0\x08")  # it has ended already
        client.send(0xFB, 0, 1, b"unknown")
        client.open(3)
        assert client.status_of(3) == 200


def test_a_head_in_many_frames_is_one(server):
    with RawClient(server) as client:
        block = client.head("/environs/show", headers=[("x-long", "v" * 3000)])
        client.send(HEADERS, END_STREAM, 1, block[:10])
        for start in range(10, len(block), 1000):
            flags = END_HEADERS if start + 1000 >= len(block) else NO_FLAGS
            client.send(CONTINUATION, flags, 1, block[start : start + 1000])
        assert client.status_of(1) == 200
        client.wait_for(lambda: b"v" * 3000 in b"".join(client.frames(DATA, 1)), "the body")


def test_padding_counts_and_is_discarded(server):
    with RawClient(server) as client:
        block = client.head("/inputs/echo", "POST")
        client.send(HEADERS, END_HEADERS | 8, 1, b"\x05" + block + b"\0" * 5)
        for _ in range(1000):  # 256 KB of padding, for 1 KB of data
            client.send(DATA, 8, 1, b"\xff" + b"x" + b"\0" * 255)
        client.send(DATA, END_STREAM | 8, 1, b"\x01" + b"y" + b"\0")
        assert client.status_of(1) == 200
        client.wait_for(lambda: len(b"".join(client.frames(DATA, 1))) == 1001, "the body")
        assert json.dumps(client.ended) == "false"
