"""103 Early Hints: `environ["wsgi.early_hints"]` in each concurrency mode, with TLS and without (docs/http2.md)."""

from __future__ import annotations

import json
import subprocess

import pytest
from certificates import Authority
from clients import SlowWire, get, target
from conftest import CONCURRENCY
from harness import eventually
from test_https import TlsWire, trusting
from wire import DEADLINE, Wire

STYLE = ("Link", "</style.css>; rel=preload; as=style")
HINT = (103, "Early Hints", [STYLE])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


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
def connect(transport, authority):
    def connect(server):
        if transport == "plain":
            return server.wire()
        return TlsWire((server.host, server.port), trusting(authority))

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
        # The connection is in good order.
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
        wire = TlsWire(address, trusting(authority), receive_buffer=4096)
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
def server_with_http2(shared, concurrency, transport, options):
    return shared(
        "raw", *CONCURRENCY[concurrency], *options[transport], "--http2-cleartext", "prior-knowledge"
    )


def literal(name, value):
    """A field of a request head, uncompressed (RFC 7541, section 6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text for text in (name, value))


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def next_head(wire):
    """Reads up to the next HEADERS frame, before which there is no DATA, RST_STREAM or GOAWAY. Returns its size."""
    while True:
        length, kind = int.from_bytes(wire.stream.read(3), "big"), wire.stream.read(1)[0]
        wire.stream.read(5 + length)
        assert kind not in (0, 3, 7), f"a frame of type {kind} instead of a head"
        if kind == 1:
            return length


@pytest.fixture
def connect_http2(transport, authority):
    """Connects and sends a request for a path."""

    def connect_http2(server, path, **settings):
        address = (server.host, server.port)
        context = trusting(authority)
        context.set_alpn_protocols(["h2"])
        wire = Wire(address, **settings) if transport == "plain" else TlsWire(address, context, **settings)
        fields = {":method": "GET", ":scheme": "http", ":authority": "test", ":path": path}
        head = b"".join(literal(name.encode(), value.encode()) for name, value in fields.items())
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 5, 1, head))
        return wire

    return connect_http2


def test_http2_hints_arrive_before_the_application_continues(server_with_http2, connect_http2, gate, curl):
    path = f"/hints/early?gate={gate.directory}"
    with connect_http2(server_with_http2, path) as wire:
        next_head(wire)
        gate.wait_for(1)
        gate.open()
        next_head(wire)  # the second hints
        next_head(wire)  # the response
    output = read_to_end(curl(server_with_http2, "--http2", path))
    hints = "HTTP/2 103 \nlink: </style.css>; rel=preload; as=style\n\nHTTP/2 103 \nx-bytes: \xe9\nx-raw: \xe9\n\n"
    assert output.startswith(f"{hints}HTTP/2 200 \n") and output.endswith("\n\nhinted\n")


def test_an_http2_client_that_does_not_read_occupies_neither_threads_nor_memory(
    server_with_http2, connect_http2, record
):
    path = target("/hints/many", count=2000, record=record)
    with connect_http2(server_with_http2, path, receive_buffer=4096) as wire:
        eventually(lambda: record.read_text() == "hinted\n", "the application to continue")
        large = 0
        while next_head(wire) > 1000:
            large += 1
        assert 0 < large < 2000


@pytest.mark.parametrize("path", ["/hints/late", "/hints/written"])
def test_http2_has_no_hints_after_the_response_has_begun(server_with_http2, curl, path):
    output = read_to_end(curl(server_with_http2, "--http2", path))
    assert output.startswith("HTTP/2 200 ") and output.endswith("\n\nfirst\nsecond\n")


def test_http2_responses_may_fail_after_hints(server_with_http2, concurrency, curl):
    for how in ("raise", "exit") if concurrency == "fork" else ("raise",):
        output = read_to_end(curl(server_with_http2, "--http2", f"/hints/fails?how={how}"))
        assert output.startswith("HTTP/2 103 \n") and "\n\nHTTP/2 500 \n" in output


def test_http2_fields_of_the_connection_are_ignored(server_with_http2, curl):
    output = read_to_end(curl(server_with_http2, "--http2", "/hints/ignored"))
    assert output.startswith("HTTP/2 103 \nlink: </style.css>; rel=preload; as=style\n\nHTTP/2 200 \n")
