"""Requests that a strict server rejects: one error response, then the close, and the app is not called."""

from __future__ import annotations

import pytest

END = b"\r\n"
HOST = b"Host: test\r\n"
LINE = b"GET /answers/hello HTTP/1.1\r\n"
GET = LINE + HOST
POST = b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "length and chunked": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "chunked and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", {400}),
    "two equal lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", {400}),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", {400}),
    "a list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", {400}),
    "a length over 64 bits": (POST + b"Content-Length: 18446744073709551616\r\n\r\n", {400}),
    **{
        f"length {length!r}": (POST + b"Content-Length: %s\r\n\r\nhello" % length, {400})
        for length in (b"", b"+5", b"-1", b"0x5", b"1_0", b"5.0", b"5 5", b"five", b"\xb2")
    },
    "a space before the colon": (GET + b"X : y\r\n\r\n", {400}),
    "a tab before the colon": (GET + b"X\t: y\r\n\r\n", {400}),
    "no colon": (GET + b"nonsense\r\n\r\n", {400}),
    "an empty name": (GET + b": y\r\n\r\n", {400}),
    "a name that is no token": (GET + b"X(Y): z\r\n\r\n", {400}),
    "a name above ASCII": (GET + b"X\xe9: z\r\n\r\n", {400}),
    "gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", {400, 501}),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked, gzip": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked, identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", {400, 501}),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", {400, 501}),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "quoted chunked": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', {400, 501}),
    "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n", {400, 501}),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "chunked, chunked": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    **{
        f"chunk size {size!r}": (CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n", {400})
        for size in (b"", b";", b"0x5", b"+5", b"-5", b"5_0", b" 5", b"5 ", b"g", b"0" * 16 + b"5", b"5;a b", b"5;\0")
    },
    "a chunk longer than its size": (CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", {400}),
    "a chunk without CRLF": (CHUNKED + b"5\r\nhello0\r\n\r\n", {400}),
    "a chunk ended by LF": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", {400}),
    "a chunk size ended by LF": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", {400}),
    "extensions without end": (CHUNKED + b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n", {400, 413, 431}),
    "Content-Length in a trailer": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", {400}),
    "Transfer-Encoding in a trailer": (CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", {400}),
    "Host in a trailer": (CHUNKED + b"0\r\nHost: evil\r\n\r\n", {400}),
    "trailers without end": (CHUNKED + b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 600 + END, {400, 431}),
    "LF after the request line": (b"GET / HTTP/1.1\nHost: test\r\n\r\n", {400}),
    "LF after a header": (LINE + b"Host: test\n\r\n", {400}),
    "LF for the blank line": (GET + b"\n", {400}),
    "CR in a value": (GET + b"X: y\rz\r\n\r\n", {400}),
    "CR before the end": (GET + b"X: y\r\r\n\r\n", {400}),
    "NUL in a value": (GET + b"X: y\0z\r\n\r\n", {400}),
    "BEL in a value": (GET + b"X: y\x07z\r\n\r\n", {400}),
    "DEL in a value": (GET + b"X: y\x7fz\r\n\r\n", {400}),
    "a folded line": (GET + b"X: y\r\n z\r\n\r\n", {400}),
    "a space before the first header": (LINE + b" X: y\r\n" + HOST + END, {400}),
    "two empty lines first": (b"\r\n\r\n" + GET + END, {400}),
    "no Host": (LINE + END, {400}),
    "two Hosts": (GET + b"Host: other\r\n\r\n", {400}),
    "two equal Hosts": (GET + HOST + END, {400}),
    **{
        f"Host {host!r}": (LINE + b"Host: %s\r\n\r\n" % host, {400})
        for host in (b"", b"u@test", b"test/path", b"a,b", b"a b", b"a\tb", b"a:port", b"a?b", b"a#b", b"a\\b", b"a<b>")
    },
    "two Content-Types": (POST + b"Content-Type: a/b\r\n" * 2 + b"Content-Length: 0\r\n\r\n", {400}),
    "CONNECT": (b"CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n", {405, 501}),
    "* for GET": (b"GET * HTTP/1.1\r\nHost: test\r\n\r\n", {400}),
    "a relative target": (b"GET hello HTTP/1.1\r\nHost: test\r\n\r\n", {400}),
    "an empty target": (b"GET  HTTP/1.1\r\nHost: test\r\n\r\n", {400, 505}),
    "a fragment": (b"GET /answers/hello#here HTTP/1.1\r\nHost: test\r\n\r\n", {400}),
    "a space in the target": (b"GET /answers/hello you HTTP/1.1\r\nHost: test\r\n\r\n", {400, 505}),
    "NUL in the target": (b"GET /answers/\0hello HTTP/1.1\r\nHost: test\r\n\r\n", {400}),
    "a byte above ASCII in the target": (b"GET /caf\xe9 HTTP/1.1\r\nHost: test\r\n\r\n", {400}),
    "a request line too long": (b"GET /" + b"a" * 8190 + b" HTTP/1.1\r\nHost: test\r\n\r\n", {414}),
    "a request line that never ends": (b"GET /" + b"a" * 9000, {414}),
    "a header too long": (GET + b"X: " + b"y" * 8300 + b"\r\n\r\n", {431}),
    "a header that never ends": (GET + b"X: " + b"y" * 20_000, {431}),
    "a name that never ends": (GET + b"X" * 20_000, {400, 431}),
    "too many headers": (GET + b"X: y\r\n" * 101 + END, {431}),
    "a method too long": (b"A" * 33 + b" / HTTP/1.1\r\nHost: test\r\n\r\n", {501}),
    "a method that is no token": (b"GE(T / HTTP/1.1\r\nHost: test\r\n\r\n", {400}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {505}),
    **{
        f"version {version!r}": (f"GET /answers/hello {version}\r\nHost: test\r\n\r\n".encode(), {400, 505})
        for version in ("HTTP/2.0", "http/1.1", "HTTP/01.1", "HTTP/1", "HTTP/1.1x", "HTTP", "FTP/1.1", "")
    },
    "no version at all": (b"GET /answers/hello\r\n\r\n", {400, 505}),
    "two spaces": (b"GET  /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n", {400, 505}),
    "two spaces before the version": (b"GET /answers/hello  HTTP/1.1\r\nHost: test\r\n\r\n", {400, 505}),
    "tabs": (b"GET\t/answers/hello\tHTTP/1.1\r\nHost: test\r\n\r\n", {400, 505}),
    "a space at the end of the line": (b"GET /answers/hello HTTP/1.1 \r\nHost: test\r\n\r\n", {400, 505}),
    "a space before the method": (b" " + GET + END, {400}),
    "an unknown expectation": (POST + b"Expect: miracles\r\nContent-Length: 5\r\n\r\nhello", {417}),
    "garbage": (bytes(range(255, 0, -1)) + b"\r\n\r\n", {400}),
}  # fmt: skip


@pytest.fixture(scope="module")
def strict(shared):
    return shared("raw", "--threads", "1")


@pytest.mark.parametrize("step", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", REFUSED)
def test_rejects_and_closes(strict, name, step):
    request, statuses = REFUSED[name]
    if step and len(request) > 2000:
        step = 97
    with strict.wire() as wire:
        wire.send(request, step)
        answer = wire.answer()
        assert answer.status in statuses
        assert answer.header("connection").lower() == "close"
        assert answer.complete
        assert wire.closed()


@pytest.mark.parametrize("name", REFUSED)
def test_never_runs_data_after_a_rejection(strict, name, gate):
    """A second request in the same packet must not reach the app."""
    hidden = f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    gate.open()
    with strict.wire() as wire:
        wire.send(REFUSED[name][0] + hidden)
        assert wire.answer().status in REFUSED[name][1]
        assert wire.closed()
    assert gate.entries() == []


@pytest.mark.parametrize("name", ["no Host", "two lengths", "garbage", "a header too long"])
def test_rejects_after_a_valid_request_too(strict, name):
    with strict.wire() as wire:
        wire.send(GET + END + REFUSED[name][0])
        assert wire.answer().text == "hello\n"
        assert wire.answer().status in REFUSED[name][1]
        assert wire.closed()


def test_rejects_in_each_concurrency_mode(server):
    for name in ("no Host", "two lengths", "chunk size b'0x5'", "a folded line"):
        with server.wire() as wire:
            wire.send(REFUSED[name][0])
            assert wire.answer().status in REFUSED[name][1]
            assert wire.closed()


TAKEN = {
    "an empty line first": b"\r\n" + GET + END,
    "the longest method": b"A" * 32 + b" /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n",
    "a hundred headers": GET + b"X: y\r\n" * 99 + END,
    "a long request line": b"GET /answers/hello?" + b"q" * 8000 + b" HTTP/1.1\r\nHost: test\r\n\r\n",
    "a long header": GET + b"X: " + b"y" * 8000 + END + END,
    "a tab in a value": GET + b"X:\ty\tz\t\r\n\r\n",
    "bytes above ASCII in a value": GET + b"X: caf\xc3\xa9\r\n\r\n",
    "chunked in capitals": GET + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n",
    "an absolute target": b"GET http://test/answers/hello HTTP/1.1\r\nHost: test\r\n\r\n",
    "a host with a port": LINE + b"Host: test.example:8080\r\n\r\n",
    "a host in IPv6": LINE + b"Host: [::1]:8080\r\n\r\n",
    "an upgrade": GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "leading zeros in a length": GET + b"Content-Length: 000\r\n\r\n",
}


@pytest.mark.parametrize("name", TAKEN)
def test_accepts_unusual_but_valid_requests(strict, name):
    with strict.wire() as wire:
        wire.send(TAKEN[name])
        assert wire.answer().text == "hello\n"
        assert wire.request("/answers/hello").text == "hello\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("path", ["/inputs/echo", "/inputs/ignore"])
def test_a_body_over_the_limit_is_a_413_that_a_sending_client_can_read(shared, concurrency, framing, path):
    options = {"inline": ("--threads", "1"), "threads": ("--threads", "4"), "fork": ("--fork",)}[concurrency]
    server = shared("raw", "--limit-request-body", "1000000", *options)
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\n".encode()
    piece = b"x" * 65536
    with server.wire() as wire:
        if framing == "length":
            wire.send(head + b"Content-Length: 3000000\r\n\r\n")
        else:
            wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
            piece = b"10000\r\n" + piece + b"\r\n"
        wire.send(piece * 40, step=len(piece))
        answer = wire.answer()
        assert (answer.status, answer.complete) == (413, True)
        assert wire.closed()
    with server.wire() as wire:
        assert len(wire.request("/inputs/echo", "POST", b"x" * 1_000_000).body) == 1_000_000


def test_a_body_over_the_limit_gets_413_instead_of_100_continue(shared):
    server = shared("raw", "--limit-request-body", "1000000", "--threads", "1")
    with server.wire() as wire:
        wire.send(POST + b"Expect: 100-continue\r\nContent-Length: 1000001\r\n\r\n")
        assert wire.answer().status == 413
        assert wire.closed()


def test_limits_can_be_set(shared):
    options = (
        "--limit-request-line",
        "100",
        "--limit-request-fields",
        "3",
        "--limit-request-field_size",
        "50",
    )
    server = shared("raw", "--threads", "1", *options)
    requests = {
        b"GET /answers/hello HTTP/1.1\r\nHost: test\r\nA: b\r\nC: d\r\n\r\n": 200,
        b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: test\r\n\r\n": 414,
        b"GET / HTTP/1.1\r\nHost: test\r\nA: b\r\nC: d\r\nE: f\r\n\r\n": 431,
        b"GET / HTTP/1.1\r\nHost: test\r\nA: " + b"b" * 60 + b"\r\n\r\n": 431,
    }
    for request, status in requests.items():
        with server.wire() as wire:
            wire.send(request)
            assert wire.answer().status == status
