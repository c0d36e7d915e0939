"""103 Early Hints: `environ["wsgi.early_hints"]` in each concurrency mode, with TLS and without (docs/http2.md)."""

from __future__ import annotations

import json
import subprocess

import pytest
from clients import SlowWire, get, target
from conftest import CONCURRENCY
from harness import eventually
from http2_client import CLEARTEXT, Http2Client, trusting
from test_https import TlsWire
from wire import DEADLINE

STYLE = ("Link", "</style.css>; rel=preload; as=style")
HINT = (103, "Early Hints", [STYLE])
HTTP2_STYLE = ("link", STYLE[1])


@pytest.fixture(scope="module")
def options(authority):
    issued = authority.issue("localhost", "127.0.0.1")
    return {"plain": (), "tls": ("--certfile", str(issued.certificate), "--keyfile", str(issued.key))}


@pytest.fixture(params=["plain", "tls"])
def transport(request):
    return request.param


@pytest.fixture
def server(shared, concurrency, transport, options):
    return shared("raw", *CONCURRENCY[concurrency], *options[transport])


@pytest.fixture
def server_with_http2(shared, concurrency, transport, options):
    return shared("raw", *CONCURRENCY[concurrency], *options[transport], *CLEARTEXT)


@pytest.fixture
def connect(transport, authority):
    def connect(server):
        if transport == "plain":
            return server.wire()
        return TlsWire((server.host, server.port), trusting(authority, "http/1.1"))

    return connect


def interim(wire):
    """The next interim response."""
    version, status, reason, headers = wire.head()
    assert version == "1.1" and status < 200
    return status, reason, headers


def test_hints_arrive_before_the_application_continues(server, connect, gate):
    with connect(server) as wire:
        wire.send(get(f"/hints/early?gate={gate.directory}"))
        assert interim(wire) == HINT
        gate.wait_for(1)
        gate.open()
        assert interim(wire) == (103, "Early Hints", [("X-Bytes", "\xe9"), ("X-Raw", "\xe9")])
        answer = wire.answer()
        assert (answer.status, answer.text, answer.header("link")) == (200, "hinted\n", None)
        # The connection is still usable.
        assert wire.request("/answers/hello").status == 200


def test_each_request_of_a_connection_has_its_hints(server, connect):
    with connect(server) as wire:
        wire.send(get("/hints/inside") * 3)
        for _ in range(3):
            assert interim(wire) == HINT
            assert wire.answer().text == "hinted\n"


@pytest.mark.parametrize("path", ["/hints/late", "/hints/late?write=1", "/hints/written"])
def test_nothing_is_sent_after_the_response_has_begun(server, connect, path):
    with connect(server) as wire:
        assert wire.request(path).text == "first\nsecond\n"


def test_http10_has_no_hints(server, connect):
    with connect(server) as wire:
        assert wire.request("/hints/early", version="1.0").text == "hinted\n"


def test_head_has_hints(server, connect):
    with connect(server) as wire:
        wire.send(get("/hints/inside").replace(b"GET", b"HEAD"))
        assert interim(wire) == HINT
        assert wire.answer("HEAD").status == 200


def test_invalid_fields_are_errors_and_nothing_is_sent(server, connect):
    with connect(server) as wire:
        raised = json.loads(wire.request("/hints/invalid").body)
    assert raised == ["ValueError"] * 6 + ["TypeError"] * 6


def test_fields_of_the_connection_are_ignored(server, connect):
    with connect(server) as wire:
        wire.send(get("/hints/ignored"))
        assert interim(wire) == HINT
        assert wire.answer().text == "hinted\n"
        assert wire.request("/answers/hello").status == 200


def test_the_callable_of_an_earlier_request_does_nothing(server, connect):
    with connect(server) as wire:
        for _ in range(3):
            assert wire.request("/hints/later").status == 200


def test_an_application_may_fail_after_its_hints(server, connect):
    with connect(server) as wire:
        wire.send(get("/hints/fails?how=raise"))
        assert interim(wire) == HINT
        assert wire.answer().status == 500


@pytest.mark.parametrize("concurrency", ["fork"])
def test_a_process_may_die_after_its_hints(shared, concurrency, transport, options, connect):
    server = shared("raw", *CONCURRENCY[concurrency], *options[transport])
    with connect(server) as wire:
        wire.send(get("/hints/fails?how=exit"))
        assert interim(wire) == HINT
        assert wire.answer().status == 500


def test_the_timeout_results_in_a_504_after_hints(start, concurrency, transport, options, connect):
    server = start("raw", *CONCURRENCY[concurrency], "--timeout", "0.5", *options[transport])
    with connect(server) as wire:
        wire.send(get("/hints/fails?how=hang"))
        assert interim(wire) == HINT
        assert wire.answer().status == 504


def test_a_client_that_does_not_read_occupies_no_thread(server, transport, authority, record):
    address = (server.host, server.port)
    if transport == "plain":
        wire = SlowWire(address)
    else:
        wire = TlsWire(address, trusting(authority, "http/1.1"), receive_buffer=4096)
    with wire:
        wire.send(get(target("/hints/many", count=2000, record=record)))
        eventually(lambda: record.read_text() == "hinted\n", "the application to continue")
        hints = 0
        while (head := wire.head())[1] == 103:
            assert head[3][0][1].endswith(" " + "x" * 4000)
            hints += 1
        assert head[1] == 200 and 0 < hints < 2000
        assert wire.stream.read(7) == b"hinted\n"


@pytest.fixture
def curl(transport, authority):
    """Starts curl for a path; the heads of all responses are on its output."""

    def curl(server, http, path):
        scheme = "https" if transport == "tls" else "http"
        http = "--http2-prior-knowledge" if http == "--http2" and transport == "plain" else http
        words = ["--max-time", str(DEADLINE), "--silent", "--show-error", "--include", "--no-buffer", http]
        words += ["--cacert", str(authority.certificate), f"{scheme}://localhost:{server.port}{path}"]
        return subprocess.Popen(["curl", *words], stdout=subprocess.PIPE, text=True, encoding="latin-1")

    return curl


def read_to_end(client):
    with client:
        output = client.stdout.read()
        assert client.wait(DEADLINE) == 0
    return output


@pytest.mark.parametrize(
    ("http", "hints", "final"),
    [
        ("--http1.0", "", "HTTP/1.1 200 OK"),
        (
            "--http1.1",
            "HTTP/1.1 103 Early Hints\nLink: </style.css>; rel=preload; as=style\n\n",
            "HTTP/1.1 200 OK",
        ),
        ("--http2", "HTTP/2 103 \nlink: </style.css>; rel=preload; as=style\n\n", "HTTP/2 200 "),
    ],
)
def test_curl_accepts_hints(server_with_http2, curl, http, hints, final):
    output = read_to_end(curl(server_with_http2, http, "/hints/inside"))
    assert output.startswith(f"{hints}{final}\n")
    assert output.endswith("\n\nhinted\n")


@pytest.fixture
def http2(server_with_http2, transport, authority):
    """Makes HTTP/2 connections."""

    def http2(**how):
        context = trusting(authority, "h2") if transport == "tls" else None
        return Http2Client(server_with_http2, context, **how)

    return http2


def test_http2_hints_arrive_before_the_application_continues(http2, gate):
    with http2() as client:
        stream = client.open(f"/hints/early?gate={gate.directory}")
        client.wait(lambda: stream.interim_headers == [HTTP2_STYLE], "the hints")
        gate.wait_for(1)
        assert stream.interim == [103] and stream.status is None
        gate.open()
        client.finish(stream)
        assert stream.interim_headers[1:] == [("x-bytes", "\xe9"), ("x-raw", "\xe9")]
        assert (stream.interim, stream.status, stream.text) == ([103, 103], 200, "hinted\n")


def test_an_http2_client_that_does_not_read_occupies_neither_threads_nor_memory(http2, record):
    with http2(receive_buffer=4096) as client:
        stream = client.open(target("/hints/many", count=2000, record=record))
        eventually(lambda: record.read_text() == "hinted\n", "the application to continue")
        client.finish(stream)
        assert stream.status == 200 and 0 < len(stream.interim) < 2000


@pytest.mark.parametrize("path", ["/hints/late", "/hints/written"])
def test_http2_has_no_hints_after_the_response_has_begun(http2, path):
    with http2() as client:
        stream = client.request(path)
        assert (stream.interim, stream.text) == ([], "first\nsecond\n")


def test_http2_responses_may_fail_after_hints(http2, concurrency):
    with http2() as client:
        for how in ("raise", "exit") if concurrency == "fork" else ("raise",):
            stream = client.request(f"/hints/fails?how={how}")
            assert (stream.interim, stream.status) == ([103], 500)


def test_http2_fields_of_the_connection_are_ignored(http2):
    with http2() as client:
        stream = client.request("/hints/ignored")
        assert (stream.interim_headers, stream.status) == ([HTTP2_STYLE], 200)


def test_http2_invalid_fields_are_errors_and_nothing_is_sent(http2):
    with http2() as client:
        stream = client.request("/hints/invalid")
        assert json.loads(bytes(stream.body)) == ["ValueError"] * 6 + ["TypeError"] * 6
        assert stream.interim == []
