"""HTTP/2: requests and responses of every kind, over TLS and without, in each mode mode (docs/http2.md)."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from clients import resident, together
from conftest import CONCURRENCY, MODES
from h2.settings import SettingCodes
from harness import eventually
from http2_client import CLEARTEXT, HELLO, MB, Http2Client, trusting

LINES = "\n".join(f"line {number}" for number in range(1000)).encode()


@pytest.fixture
def connect(shared, mode, transport, certificate, authority):
    """Opens connections to a server, in each mode mode."""
    tls = transport == "tls"
    server = shared("raw", *MODES[mode], *(certificate if tls else CLEARTEXT))

    def connect(**how):
        return Http2Client(server, trusting(authority) if tls else None, **how)

    connect.server = server
    return connect


@pytest.fixture
def client(connect):
    with connect() as client:
        yield client


# Responses.


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("hello", b"hello\n"),
        ("one_piece", b"one piece"),
        ("pieces", b"two pieces"),
        ("nothing", b""),
        ("empty_piece", b""),
        ("iterator", b"an iterator"),
        ("known_iterator", b"an iterator"),
        ("generator", b"a generator"),
        ("empty_generator", b""),
        ("write", b"written twice"),
        ("write_and_return", b"written, then returned"),
    ],
)
def test_every_type_of_response_arrives(client, name, body):
    for _ in range(2):
        answer = client.request(f"/answers/{name}")
        assert (answer.status, bytes(answer.body), answer.complete) == (200, body, True)
        assert answer.header("content-type") == "text/plain; charset=utf-8"
        assert answer.header("content-length") in (None, str(len(body)))


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "404 Nope"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_head_and_some_statuses_have_no_body(client, method, status):
    answer = client.request(f"/answers/status?status={status.replace(' ', '%20')}", method=method)
    expected = b"" if method == "HEAD" or status[:3] in ("204", "304") else b"the body"
    assert (answer.status, bytes(answer.body), answer.complete) == (int(status[:3]), expected, True)
    assert status[:3] != "204" or answer.header("content-length") is None
    assert client.get().status == 200


def test_response_fields_are_lowercase_and_exclude_connection_fields(client):
    answer = client.request("/answers/headers?X-Mixed-Case=1&Set-Cookie=a=1&Set-Cookie=b=2&X-Empty=")
    assert all(name == name.lower() for name, _ in answer.headers)
    assert (answer.header("x-mixed-case"), answer.header("x-empty")) == ("1", "")
    assert answer.all("set-cookie") == ["a=1", "b=2"]
    names = {name for name, _ in answer.headers}
    assert not names & {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"}
    assert {"date", "server"} <= names


@pytest.mark.parametrize("kind", ["whole", "pieces", "generator", "file", "writes", "writes_then_file"])
def test_a_response_larger_than_every_window_arrives_completely(client, kind):
    answer = client.request(f"/large/{kind}?lines=500000")
    assert (answer.complete, len(answer.body)) == (True, 4_000_000)
    assert bytes(answer.body) == b"".join(b"%07d\n" % number for number in range(500_000))


@pytest.mark.parametrize("kind", ["whole", "generator", "file"])
def test_a_response_waits_for_a_client_that_pauses(connect, kind):
    with connect(reads=False) as client:
        stream = client.open(f"/large/{kind}?lines=500000")
        client.wait(lambda: len(stream.body) == 65_535, "a full window")
        client.ping()
        assert len(stream.body) == 65_535
        with connect() as other:
            assert other.get().status == 200
        client.reads = True
        client.read_more(stream, 65_535)
        client.finish(stream)
        assert stream.complete and bytes(stream.body[-8:]) == b"0499999\n"
        assert len(stream.body) == 4_000_000


def test_a_stream_is_served_while_another_one_waits_for_its_window(connect):
    """The windows of a stream and of the connection are separate (RFC 9113, section 5.2)."""
    with connect(settings={SettingCodes.INITIAL_WINDOW_SIZE: 1000}, reads=False) as client:
        stuck = client.open("/large/generator?lines=10000")
        client.wait(lambda: len(stuck.body) == 1000, "a full window")
        if "--threads 1" not in " ".join(
            connect.server.process.args
        ):  # there, a generator occupies the only thread
            assert client.request(HELLO).status == 200
        client.reads = True
        client.read_more(stuck, 100_000)
        assert len(client.finish(stuck).body) == 80_000


# Requests.


@pytest.mark.parametrize("size", [0, 1, 65_535, 200_000, 3 * MB])
@pytest.mark.parametrize("length", [True, False])
def test_a_body_of_any_size_arrives(client, size, length):
    """The default of --body-in-memory is 512 KiB, that of --body-buffer 1 MiB."""
    body = (LINES * (size // len(LINES) + 1))[:size]
    headers = [("content-length", str(size))] if length else []
    answer = client.request("/uploads/described", method="POST", body=body, headers=headers)
    result = json.loads(answer.body)
    assert (result["size"], result["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert result["environ"]["wsgi.input_terminated"] is True
    assert result["environ"]["HTTP_TRANSFER_ENCODING"] is None
    if length or 0 < size <= 512 * 1024:
        assert result["environ"]["CONTENT_LENGTH"] == str(size)


def test_a_body_is_echoed(client):
    body = LINES * 50
    answer = client.request("/inputs/echo", method="PUT", body=body)
    assert (answer.header("x-method"), bytes(answer.body)) == ("PUT", body)


def test_wsgi_input_reads_like_a_file(client):
    script = [
        ["read", 3],
        ["readline"],
        ["readline", 2],
        ["readlines", 18],
        ["read", 0],
        ["iterate"],
        ["read"],
    ]
    path = "/inputs/calls?calls=" + json.dumps(script).replace(" ", "").replace('"', "%22")
    answer = client.request(path, method="POST", body=b"one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n")
    result = json.loads(answer.body)
    assert result[:4] == ["one", "\n", "tw", ["o\n", "three\n", "four\n", "five\n"]]
    assert result[4:] == ["", ["six\n", "seven\n", "eight\n"], ""]


def test_several_large_uploads_at_once(connect):
    def upload(number):
        body = bytes([number]) * (2 * MB)
        with connect() as client:
            streams = [client.open("/uploads/described", method="POST", end=False) for _ in range(3)]
            for start in range(0, len(body), 100_000):
                for stream in streams:
                    client.send(stream, body[start : start + 100_000])
            for stream in streams:
                client.send(stream, b"", end=True)
            client.finish(*streams)
            return [json.loads(stream.body)["sha256"] for stream in streams], hashlib.sha256(body).hexdigest()

    for result, expected in together(*(lambda number=number: upload(number) for number in range(3))):
        assert result == [expected] * 3


def test_trailers_are_ignored(client):
    stream = client.open("/inputs/echo", method="POST", end=False)
    client.send(stream, b"body")
    client.send_trailers(stream, [("x-trailer", "1"), ("content-length", "100")])
    assert bytes(client.finish(stream).body) == b"body"
    stream = client.open("/environs/show", method="POST", end=False)
    client.send_trailers(stream, [("x-trailer", "1")])
    assert "HTTP_X_TRAILER" not in json.loads(client.finish(stream).body)["environ"]


def test_a_client_that_waits_gets_100_continue(client):
    headers = [("expect", "100-continue"), ("content-length", "4")]
    stream = client.open("/inputs/echo", method="POST", headers=headers, end=False)
    client.wait(lambda: stream.interim, "100 Continue")
    client.send(stream, b"body", end=True)
    assert (client.finish(stream).status, bytes(stream.body), stream.interim) == (200, b"body", [100])
    stream = client.open("/inputs/echo", method="POST", headers=[("expect", "100-continue")], end=True)
    assert (client.finish(stream).status, stream.interim) == (200, [])


def test_an_app_that_does_not_read_its_body_responds(client):
    answer = client.request("/inputs/ignore", method="POST", body=LINES)
    assert (answer.status, bytes(answer.body)) == (200, b"ignored")
    assert client.get().status == 200


# Environ.


def test_environ(client, transport):
    answer = client.request(
        "/environs/show/a%20b?q=1&r=%20",
        headers=[("user-agent", "test"), ("x-double", "1"), ("x-double", "2")],
        authority="shop.test:8443",
    )
    found = json.loads(answer.body)["environ"]
    assert found["SERVER_PROTOCOL"] == "HTTP/2.0"
    assert found["wsgi.url_scheme"] == ("https" if transport == "tls" else "http")
    assert found["HTTP_HOST"] == "shop.test:8443"
    assert (found["REQUEST_METHOD"], found["QUERY_STRING"]) == ("GET", "q=1&r=%20")
    assert (found["PATH_INFO"], found["RAW_URI"]) == ("/environs/show/a b", "/environs/show/a%20b?q=1&r=%20")
    assert (found["REMOTE_ADDR"], found["HTTP_USER_AGENT"]) == ("127.0.0.1", "test")
    assert found["HTTP_X_DOUBLE"] == "1,2"
    assert not [key for key in found if ":" in key]
    # As for a GET without a body over HTTP/1.
    assert ("CONTENT_LENGTH" in found, "CONTENT_TYPE" in found) == (False, False)


def test_environ_is_otherwise_that_of_http1(client, connect, transport, authority):
    server = connect.server
    ours = json.loads(client.request("/environs/show", headers=[("x-a", "b")]).body)
    if transport == "tls":
        from test_https import TlsWire

        wire = TlsWire((server.host, server.port), trusting(authority, "http/1.1"))
    else:
        wire = server.wire()
    with wire:
        theirs = json.loads(wire.request("/environs/show", headers="X-A: b\r\n").body)
    assert ours["types"] == theirs["types"]
    differ = {key for key, value in theirs["environ"].items() if value != ours["environ"][key]}
    assert differ <= {"SERVER_PROTOCOL", "REMOTE_PORT", "SSL_SESSION_RESUMED"}


def test_cookies_are_one_value(client):
    cookies = [("cookie", "a=1"), ("cookie", "b=2"), ("x-between", "1"), ("cookie", "c=3")]
    found = json.loads(client.request("/environs/show", headers=cookies).body)["environ"]
    assert found["HTTP_COOKIE"] == "a=1; b=2; c=3"


def test_a_host_field_may_repeat_or_replace_the_authority(client):
    for pseudo, headers in (
        (
            [(":method", "GET"), (":scheme", client.scheme), (":path", "/environs/show")],
            [("host", "shop.test")],
        ),
        (None, [("host", "test")]),
    ):
        answer = client.request("/environs/show", pseudo=pseudo, headers=headers)
        found = json.loads(answer.body)["environ"]
        assert found["HTTP_HOST"] == ("shop.test" if pseudo else "test")


def test_the_validator_of_the_standard_library_finds_no_error(client):
    assert client.request("/environs/strict").status == 200
    answer = client.request(
        "/environs/strict", method="POST", body=b"checked", headers=[("content-length", "7")]
    )
    assert (answer.status, bytes(answer.body)) == (200, b"checked")


# Many streams.


def test_32_concurrent_streams(client):
    streams = [client.open(f"/answers/many?pieces=20&size={size}") for size in range(1000, 33_000, 1000)]
    client.finish(*streams)
    assert [stream.status for stream in streams] == [200] * 32
    assert [len(stream.body) for stream in streams] == [20 * size for size in range(1000, 33_000, 1000)]


def test_a_thousand_requests_on_one_connection(client):
    for _ in range(20):
        streams = [client.open(HELLO) for _ in range(50)]
        client.finish(*streams)
        assert all(bytes(stream.body) == b"hello\n" and stream.complete for stream in streams)
    assert not client.goaways


def test_requests_of_one_connection_run_concurrently(start, gate):
    server = start("raw", "--threads", "8", *CLEARTEXT)
    with Http2Client(server) as client:
        streams = [client.open(gate.path) for _ in range(8)]
        gate.wait_for(8)
        gate.open()
        client.finish(*streams)
        assert [bytes(stream.body) for stream in streams] == [b"passed\n"] * 8


def test_responses_are_interleaved(start, gate):
    """A slow response does not block a later one."""
    server = start("raw", "--threads", "8", *CLEARTEXT)
    with Http2Client(server) as client:
        slow = [client.open(f"/gates/stream?gate={gate.directory}") for _ in range(4)]
        client.wait(lambda: all(stream.body == b"first\n" for stream in slow), "the first pieces")
        gate.wait_for(4)
        assert client.get().status == 200
        assert len(client.request("/large/whole?lines=100000").body) == 800_000
        gate.open()
        client.finish(*slow)
        assert [bytes(stream.body) for stream in slow] == [b"first\nsecond\n"] * 4


# Logs.


@pytest.mark.parametrize("mode", CONCURRENCY)
def test_the_access_log_shows_the_protocol(start, mode):
    server = start("raw", *CONCURRENCY[mode], *CLEARTEXT, "--access-logfile", "-")
    with Http2Client(server) as client:
        client.request("/answers/hello?x=1", headers=[("user-agent", "test")])
        client.request("/answers/status?status=404%20No", method="HEAD")
        client.request("/inputs/echo", method="POST", body=b"body")
        server.out.wait_for(r'127\.0\.0\.1 - - \[.+\] "GET /answers/hello\?x=1 HTTP/2\.0" 200 6 "-" "test"')
        server.out.wait_for(r'"HEAD /answers/status\?status=404%20No HTTP/2\.0" 404 ')
        server.out.wait_for(r'"POST /inputs/echo HTTP/2\.0" 200 4 ')
    assert len(re.findall("HTTP/2", server.out.text)) == 3


def test_connections_leak_no_resources(start, mode):
    """Streams, sockets and memory are released."""
    server = start("raw", *MODES[mode], *CLEARTEXT)
    workers = server.workers()

    def use():
        for _ in range(20):
            with Http2Client(server) as client:
                client.finish(*(client.open(HELLO) for _ in range(30)))
                client.open("/large/whole?lines=10000")  # more than a window: unfinished

    for _ in range(4):
        use()  # the allocator keeps its peak memory
    before = resident(*workers)
    for _ in range(4):
        use()
    assert resident(*workers) < before + 8 * MB
    eventually(lambda: server.get(HELLO).status == 200)
