"""Hostile requests over a real socket: what must never reach the app, and that the client can read the response."""

from __future__ import annotations

import json

import pytest
from harness import eventually, rests

GET = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n"


def post(path, framing, version="1.1"):
    return f"POST {path} HTTP/{version}\r\nHost: test\r\n{framing}\r\n\r\n".encode()


# Bytes that are never a request (15).


@pytest.mark.parametrize("step", [None, 1], ids=["one packet", "packets of one byte"])
@pytest.mark.parametrize(
    "last",
    [
        GET + b"Connection: close\r\n\r\n",
        b"GET /answers/hello HTTP/1.0\r\n\r\n",
        post("/inputs/echo", "Connection: close\r\nContent-Length: 5") + b"hello",
        post("/inputs/echo", "Connection: close\r\nTransfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        b"GET /answers/hello HTTP/1.1\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "close with a length", "close with chunks", "an error"],
)
def test_data_after_the_last_request_is_not_run_as_a_request(server, record, last, step):
    with server.wire() as wire:
        wire.send(last + f"GET /clients/called?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode(), step)
        assert wire.answer().header("connection") == "close"
        assert wire.closed()
    assert server.get("/answers/hello").status == 200
    assert record.read_text() == ""


# Truncated and unread bodies (16).

SHORT = {
    "length": ("Content-Length: 6", b"hello"),
    "nothing of a length": ("Content-Length: 6", b""),
    "no last chunk": ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
    "half a chunk": ("Transfer-Encoding: chunked", b"5\r\nhel"),
    "no final line": ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n"),
    "half a final line": ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r"),
    "half a trailer": ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX: "),
    "on disk": ("Content-Length: 1000001", b"x" * 1_000_000),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_truncated_body_is_a_400_and_never_reaches_the_app(server, record, name):
    framing, body = SHORT[name]
    with server.wire() as wire:
        wire.send(post(f"/clients/called?record={record}", framing) + body)
        wire.finish()
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (400, "close")
        assert wire.closed()
    assert record.read_text() == ""


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("name", SHORT)
def test_a_body_whose_client_leaves_never_reaches_the_app(server, record, name, leave):
    framing, body = SHORT[name]
    wire = server.wire()
    wire.send(post(f"/clients/called?record={record}", framing) + body)
    getattr(wire, leave)()
    rests(server.workers()[0])
    assert record.read_text() == ""


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize("path", ["/inputs/ignore", "/failures/raises", "/answers/generator"])
def test_an_unread_body_is_never_parsed_as_the_next_request(server, path, size):
    hidden = (GET + b"\r\n") * (size // len(GET) + 1)
    with server.wire() as wire:
        answer = wire.request(path, "POST", hidden[:size])
        assert answer.complete
        assert wire.request("/inputs/echo", "POST", b"mine").text == "mine"


# Early responses that can be read (17).

EARLY = {
    "bad head": (b"POST /inputs/echo HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n", 400),
    "long line": (b"GET /" + b"q" * 9000 + b" HTTP/1.1\r\n", 414),
    "long field": (GET + b"X: " + b"y" * 9000 + b"\r\n", 431),
    "expectation": (post("/inputs/echo", "Expect: tea\r\nContent-Length: 5000000"), 417),
    "method": (b"M" * 40 + b" / HTTP/1.1\r\nHost: test\r\n\r\n", 501),
    "version": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "bad chunk": (post("/inputs/echo", "Transfer-Encoding: chunked") + b"z\r\n", 400),
}


@pytest.mark.parametrize("name", EARLY)
def test_a_client_that_sends_everything_first_can_read_an_early_response(server, name):
    """Five megabytes are more than the socket buffers hold.

    The client would not get the response if the server stopped reading.
    """
    request, status = EARLY[name]
    with server.wire() as wire:
        wire.send(request)
        for _ in range(50):
            wire.socket.sendall(b"x" * 100_000)
        answer = wire.answer()
        assert (answer.status, answer.complete) == (status, True)
        assert wire.rest() == b""


def send_for_ever(wire):
    while True:
        wire.socket.sendall(b"x" * 1_000_000)


def test_a_client_that_never_stops_sending_is_disconnected(server):
    with server.wire() as wire:
        wire.send(EARLY["bad head"][0])
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_for_ever(wire)
    assert server.get("/answers/hello").status == 200


# Data that stays data (18).


@pytest.mark.parametrize(
    ("sent", "seen"),
    [("%00", "\0"), ("%0d%0aX:y", "\r\nX:y"), ("%2500", "%00"), ("%252f", "%2f"), ("%", "%"), ("%zz", "%zz")],
)
def test_a_path_is_decoded_once_and_never_raw_in_the_log(server, sent, seen):
    before = len(server.log.text)
    answer = server.get(f"/environs/show/{sent}")
    assert json.loads(answer.body)["environ"]["PATH_INFO"] == f"/environs/show/{seen}"
    assert server.get(f"/failures/raises/{sent}").status == 500
    log = server.log.wait_for(r"(?s)\[ERROR\] .*?\n", since=before).group()
    assert f"/failures/raises/{sent}: " in log
    assert seen in log or "\0" not in log


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0"])
def test_an_upgrade_is_ignored(server, upgrade):
    with server.wire() as wire:
        answer = wire.request("/answers/hello", headers=f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n")
        assert (answer.status, answer.header("upgrade")) == (200, None)
        assert wire.request("/answers/hello").text == "hello\n"


# Responses without a body, or without a length (22).


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("status", ["204 None", "304 Same", "200 OK"])
def test_a_response_without_a_body_ends_after_its_head(server, record, status, method, version):
    """No body: the next bytes are the next head."""
    head = (
        f"{method} /answers/status?record={record}&status={status.replace(' ', '%20')} HTTP/{version}\r\n"
        "Host: test\r\nConnection: keep-alive\r\n\r\n"
    ).encode()
    with server.wire() as wire:
        wire.send(head + GET + b"Connection: close\r\n\r\n")
        answer = wire.answer(method)
        assert f"{answer.status} {answer.reason}" == status
        has_body = status == "200 OK" and method != "HEAD"
        assert answer.body == (b"the body" if has_body else b"")
        if answer.framing != "close":
            assert wire.answer().text == "hello\n"
    eventually(lambda: record.read_text() == "closed\n", "close() to be called once")


@pytest.mark.parametrize(
    "status", ["100 Continue", "101 Switching Protocols", "103 Early Hints", "199 x", "1000 x"]
)
def test_an_app_cannot_respond_with_an_interim_status(server, status):
    with server.wire() as wire:
        assert wire.request(f"/answers/status?status={status.replace(' ', '%20')}").status == 500
        assert wire.request("/answers/hello").status == 200


@pytest.mark.parametrize("path", ["/answers/generator", "/answers/many?pieces=200&size=1000"])
def test_an_http_1_0_response_without_a_length_ends_with_the_connection(server, path):
    with server.wire() as wire:
        wire.send(f"GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
        answer = wire.answer()
    assert answer.framing == "close"
    assert answer.header("connection") == "close"
    assert answer.body == (
        b"a generator" if "generator" in path else b"".join(bytes([97 + n % 26]) * 1000 for n in range(200))
    )
