"""HTTP/1.0 and 1.1 with well-behaved and other clients."""

from __future__ import annotations

import pytest
from harness import descriptors, eventually, rests

HELLO = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
CHUNKED = b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"


def echo(body, headers=""):
    return (
        f"POST /inputs/echo HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def test_a_connection_serves_many_requests(server):
    with server.wire() as wire:
        for number in range(100):
            assert wire.request(f"/inputs/echo?{number}", "POST", b"%d" % number).body == b"%d" % number


def test_connection_close_is_announced_and_honored(server):
    with server.wire() as wire:
        wire.send(LAST + HELLO)
        answer = wire.answer()
        assert answer.header("connection").lower() == "close"
        assert wire.closed()


@pytest.mark.parametrize("value", ["close", "CLOSE", "x, close", "close,x", "keep-alive, close"])
def test_connection_close_is_recognized_in_any_list(server, value):
    with server.wire() as wire:
        assert wire.request("/answers/hello", headers=f"Connection: {value}\r\n").text == "hello\n"
        assert wire.closed()


def test_http_1_0_closes_without_keep_alive(server):
    with server.wire() as wire:
        assert wire.request("/answers/hello", version="1.0").text == "hello\n"
        assert wire.closed()
    with server.wire() as wire:
        for _ in range(3):
            answer = wire.request("/answers/hello", version="1.0", headers="Connection: keep-alive\r\n")
            assert answer.header("connection").lower() == "keep-alive"
        assert wire.request("/answers/hello", version="1.0").text == "hello\n"
        assert wire.closed()


def test_requests_in_one_packet_are_answered_in_order(server):
    with server.wire() as wire:
        wire.send(echo(b"first") + HELLO + CHUNKED + b"\r\n5\r\nthird\r\n0\r\n\r\n" + LAST)
        assert [wire.answer().text for _ in range(4)] == ["first", "hello\n", "third", "hello\n"]
        assert wire.closed()


def test_a_hundred_requests_in_one_packet_are_answered(server):
    with server.wire() as wire:
        wire.send(b"".join(echo(b"%d" % number) for number in range(100)))
        wire.finish()
        assert [wire.answer().text for _ in range(100)] == [str(number) for number in range(100)]
        assert wire.closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        LAST,
        b"\r\n" + LAST,
        echo(b"the body", "Connection: close\r\n"),
        CHUNKED + b"Connection: close\r\n\r\n3;a=b\r\nthe\r\n5\r\n body\r\n0\r\nX-Trailer: y\r\n\r\n",
    ],
    ids=["get", "after an empty line", "length", "chunked"],
)
def test_a_request_may_arrive_byte_by_byte(server, request_bytes):
    answers = []
    for step in (None, 1, 7):
        with server.wire() as wire:
            wire.send(request_bytes, step)
            answer = wire.answer()
            assert wire.closed()
        answers.append((answer.status, answer.body))
    assert answers[0][0] == 200
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("body", [b"", b"x", b"the body" * 1000])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "REPORT"])
def test_any_method_may_have_a_body(server, method, body):
    with server.wire() as wire:
        for _ in range(2):
            answer = wire.request("/inputs/echo", method, body)
            assert (answer.header("x-method"), answer.body) == (method, body)


def test_head_has_no_body_and_the_connection_stays_open(server):
    with server.wire() as wire:
        answer = wire.request("/answers/hello", "HEAD")
        assert (answer.status, answer.header("content-length"), answer.body) == (200, "6", b"")
        assert wire.request("/answers/hello").text == "hello\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_100_continue_is_sent_when_the_server_waits_for_the_body(server, framing, concurrency):
    head = b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"
    with server.wire() as wire:
        wire.send(
            head
            + (b"Content-Length: 5\r\n\r\n" if framing == "length" else b"Transfer-Encoding: chunked\r\n\r\n")
        )
        assert wire.head()[1] == 100
        wire.send(b"hello" if framing == "length" else b"5\r\nhello\r\n0\r\n\r\n")
        answer = wire.answer()
        assert answer.text == "hello"
        if framing == "length" and concurrency == "fork":  # the parent does not know what a child has read
            assert answer.header("connection") == "close"
            assert wire.closed()
        else:
            assert wire.request("/answers/hello").text == "hello\n"


def test_100_continue_is_not_sent_when_the_body_has_arrived(server):
    with server.wire() as wire:
        wire.send(echo(b"hello", "Expect: 100-continue\r\n"))
        assert wire.answer().text == "hello"


def test_100_continue_is_not_sent_to_http_1_0(server):
    with server.wire() as wire:
        wire.send(b"POST /inputs/echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        wire.send(b"hello")
        assert wire.answer().text == "hello"


def test_chunks_may_have_extensions_and_trailers(server):
    body = (
        b"5;name=value;flag\r\nhello\r\nA\r\n0123456789\r\n000\r\nX-Trailer: dropped\r\nX-More: too\r\n\r\n"
    )
    with server.wire() as wire:
        wire.send(CHUNKED + b"\r\n" + body + HELLO)
        assert wire.answer().text == "hello0123456789"
        assert wire.answer().text == "hello\n"


def test_a_client_that_half_closes_its_connection_gets_its_response(server):
    with server.wire() as wire:
        wire.send(HELLO)
        wire.finish()
        assert wire.answer().text == "hello\n"
        assert wire.closed()


def test_an_idle_connection_is_closed(start):
    server = start("raw", "--keep-alive", "1")
    with server.wire() as wire:
        wire.request("/answers/hello")
        assert wire.closed()


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: test\r\n"])
def test_a_client_that_never_finishes_its_head_is_disconnected(start, sent):
    server = start("raw", "--head-timeout", "1")
    with server.wire() as wire:
        wire.send(sent)
        rest = wire.rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: test\r\n",
        echo(b"x" * 100)[:-10],
        CHUNKED + b"\r\n5\r\nhel",
        b"GET /answers/big?size=9000000 HTTP/1.1\r\nHost: test\r\n\r\n",
    ],
    ids=["nothing", "half a line", "no blank line", "half a body", "half a chunk", "unread answer"],
)
def test_clients_that_disconnect_leak_no_resources(server, sent, leave, many):
    """No descriptor, no process and no busy loop is left."""
    worker = server.workers()[0]
    server.get("/answers/hello")
    eventually(lambda: server.children(worker) == [], "no child before")
    rests(worker)
    before = descriptors(worker)
    for number in range(many(100)):
        wire = server.wire()
        wire.send(sent)
        getattr(wire, leave)()
        if number % 500 == 499:  # forks are slower than this client: limit the queue
            assert server.get("/answers/hello").status == 200
    assert server.get("/answers/hello").status == 200
    eventually(lambda: server.children(worker) == [], "every child to be reaped")
    eventually(lambda: descriptors(worker) <= before, f"no more than {before} descriptors")
    rests(worker)
    assert server.workers() == [worker]


@pytest.mark.parametrize("path", ["/answers/big?size=20000000", "/answers/many?pieces=200&size=100000"])
def test_a_slow_reader_does_not_block_others(server, path):
    """20 MB are far more than the socket buffers hold."""
    with server.wire(receive_buffer=4096) as slow:
        slow.send(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        slow.head()
        for _ in range(10):
            assert server.get("/answers/hello").text == "hello\n"
        assert len(slow.rest()) >= 20_000_000


def test_a_slow_sender_does_not_block_others(server):
    slow = [server.wire() for _ in range(20)]
    for wire in slow:
        wire.send(echo(b"slow")[:-2])
    assert server.get("/answers/hello").text == "hello\n"
    for wire in slow:
        wire.send(b"ow")
        assert wire.answer().text == "slow"
        wire.close()


def test_a_silent_client_does_not_block_others(server):
    silent = [server.wire() for _ in range(50)]
    for wire in silent:
        wire.send(b"GET /answers/hello HT")
    assert server.get("/answers/hello").text == "hello\n"
    for wire in silent:
        wire.close()


def test_four_threads_run_four_requests_at_once(shared, gate):
    server = shared("raw", "--threads", "4")
    wires = [server.wire() for _ in range(6)]
    for wire in wires:
        wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    gate.wait_for(4)
    gate.open()
    assert [wire.answer().text for wire in wires] == ["passed\n"] * 6
    words = [what for what, _ in gate.entries()]
    assert max(words[:end].count("enter") - words[:end].count("leave") for end in range(13)) == 4
    for wire in wires:
        wire.close()


def test_one_thread_runs_one_request_at_a_time(shared, gate):
    server = shared("raw", "--threads", "1")
    wires = [server.wire() for _ in range(3)]
    for wire in wires:
        wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    gate.wait_for(1)
    gate.open()
    assert [wire.answer().text for wire in wires] == ["passed\n"] * 3
    assert [what for what, _ in gate.entries()] == ["enter", "leave"] * 3
    for wire in wires:
        wire.close()


def test_curl_and_its_keep_alive_are_served(server):
    urls = [f"URL/inputs/echo?{number}" for number in range(20)]
    output = server.curl("--data", "x", "--write-out", "%{num_connects}\n", *urls).decode()
    assert output == "x1\n" + "x0\n" * 19
