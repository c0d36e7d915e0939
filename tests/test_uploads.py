"""Uploads that the application reads while the client sends them (docs/limits.md, "Uploads")."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import select
import time
from pathlib import Path

import pytest
from apps.raw.inputs import make_calls
from apps.raw.uploads import SCRIPTS
from conftest import CONCURRENCY
from harness import eventually, rests
from soak import resident

LINES = b"one\ntwo\n\nfour\r\n" + b"x" * 2000 + b"\nand the last without an end"
STREAMED = ("--body-buffer", "0")
HELLO = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture
def streaming(shared, concurrency):
    """A server that calls the application before any body with a Content-Length is complete."""
    return shared("raw", *CONCURRENCY[concurrency], *STREAMED)


@pytest.fixture(params=["length", "chunked"])
def framing(request):
    return request.param


def head(path, framing, length=None, more=""):
    if framing == "length":
        more += f"Content-Length: {length}\r\n"
    else:
        more += "Transfer-Encoding: chunked\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: test\r\n{more}\r\n".encode()


def framed(body, framing, size=4099):
    """The body as it is sent, chunked in chunks of about this size."""
    if framing == "length":
        return body
    chunks, sizes, start = [], random.Random(1), 0
    while start < len(body):
        piece = body[start : start + sizes.randint(1, size)]
        chunks.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        start += len(piece)
    return b"".join(chunks) + b"0\r\n\r\n"


def send_until_answered(wire, request, total):
    """Sends up to `total` bytes of repeated `request`s until the response begins. Returns how many were sent."""
    sent, data = 0, request * (65536 // len(request) + 1)
    wire.socket.setblocking(False)
    try:
        while sent < total:
            readable, writable, _ = select.select([wire.socket], [wire.socket], [])
            if readable:
                break
            if writable:
                sent += wire.socket.send(data)
    finally:
        wire.socket.settimeout(30)
    return sent


def says_nothing(wire):
    """Returns whether nothing has been received so far."""
    return not select.select([wire.socket], [], [], 0)[0]


# Uploads that are rejected early.


def test_a_huge_upload_is_rejected_early(server, record):
    """None of the data is run as a request."""
    hidden = f"GET /clients/called?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    with server.wire() as wire:
        wire.send(head("/uploads/ignores_body", "length", 400_000_000))
        sent = send_until_answered(wire, hidden, 400_000_000)
        answer = wire.answer()
        assert (answer.status, answer.text, answer.header("connection")) == (401, "no\n", "close")
        assert wire.closed()
    assert sent < 40_000_000
    assert server.get("/answers/hello").status == 200
    assert record.read_text() == ""


@pytest.mark.parametrize("path", ["/upload", "/file"])
@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"], ids=["sent at once", "Expect"])
def test_flask_rejects_an_upload_over_its_limit_early(shared, concurrency, path, expect):
    server = shared("flask_uploads:app", *CONCURRENCY[concurrency])
    more = "Content-Type: multipart/form-data; boundary=b\r\n" + expect
    with server.wire() as wire:
        wire.send(head(path, "length", 400_000_000, more))
        if not expect:
            assert send_until_answered(wire, b"x", 400_000_000) < 40_000_000
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (413, "close")
    assert server.get("/upload", "POST", b"x" * 1_000_000).text == "1000000\n"


def test_flask_reads_a_large_form_while_it_is_sent(shared, concurrency):
    server = shared("flask_uploads:app", *CONCURRENCY[concurrency], *STREAMED)
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n%b\r\n--b--\r\n' % (
        b"x" * 900_000
    )
    with server.wire() as wire:
        wire.send(head("/file", "length", len(part), "Content-Type: multipart/form-data; boundary=b\r\n"))
        wire.send(part)
        assert wire.answer().text == "900000\n"


# Expect: 100-continue (PEP 3333, "HTTP 1.1 Expect/Continue").

EXPECT = "Expect: 100-continue\r\n"


def test_100_continue_is_sent_when_the_application_reads_and_not_before(server, gate):
    with server.wire() as wire:
        wire.send(head(f"/uploads/behind_gate?gate={gate.directory}", "length", 5, EXPECT))
        gate.wait_for(1)
        rests(server.workers()[0])
        assert says_nothing(wire)
        gate.open()
        assert wire.head()[1] == 100
        wire.send(b"hello")
        assert wire.answer().text == "hello"


def test_a_response_without_reading_replaces_100_continue(server):
    with server.wire() as wire:
        wire.send(head("/uploads/ignores_body", "length", 5, EXPECT))
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (401, "close")
        wire.send(HELLO)
        assert wire.closed()


def test_100_continue_is_not_sent_if_the_client_does_not_wait_for_it(server, gate):
    with server.wire() as wire:
        wire.send(head(f"/uploads/behind_gate?gate={gate.directory}", "length", 5, EXPECT))
        gate.wait_for(1)
        wire.send(b"hello")
        gate.open()
        assert wire.answer().text == "hello"


def test_100_continue_is_not_sent_in_the_middle_of_a_response(server):
    with server.wire() as wire:
        wire.send(head("/uploads/writes_first", "length", 5, EXPECT))
        answer = wire.answer()
        assert (answer.status, answer.text) == (200, "begun\nConnectionAbortedError")
        assert answer.header("connection") == "close"
        assert wire.closed()


def test_data_after_an_expected_body_is_the_next_request(server, framing, concurrency):
    with server.wire() as wire:
        wire.send(head("/inputs/echo", framing, 5, EXPECT))
        assert wire.head()[1] == 100
        wire.send(framed(b"hello", framing) + HELLO)
        assert wire.answer().text == "hello"
        is_closed = framing == "length" and concurrency == "fork"
        assert wire.closed() if is_closed else wire.answer().text == "hello\n"


def test_100_continue_for_a_chunked_body_is_sent_before_the_application_is_called(server, record):
    """Once, and the application is called when the body is complete."""
    with server.wire() as wire:
        wire.send(head(f"/uploads/described?record={record}", "chunked", more=EXPECT))
        assert wire.head()[1] == 100
        wire.send(b"5\r\nhello\r\n")
        rests(server.workers()[0])
        assert record.read_text() == ""
        wire.send(b"0\r\n\r\n")
        assert json.loads(wire.answer().text)["environ"]["CONTENT_LENGTH"] == "5"
    assert record.read_text() == "called\n"


def test_100_continue_for_a_chunked_body_follows_the_response_before_it(server):
    with server.wire() as wire:
        wire.send(HELLO + head("/inputs/echo", "chunked", more=EXPECT))
        assert wire.answer().text == "hello\n"
        assert wire.head()[1] == 100
        wire.send(framed(b"hello", "chunked") + HELLO)
        assert wire.answer().text == "hello"
        assert wire.answer().text == "hello\n"


def test_100_continue_is_not_sent_if_the_first_chunk_comes_with_the_head(server):
    with server.wire() as wire:
        wire.send(head("/inputs/echo", "chunked", more=EXPECT) + b"5\r\nhel")
        rests(server.workers()[0])
        assert says_nothing(wire)
        wire.send(b"lo\r\n0\r\n\r\n")
        assert wire.answer().text == "hello"


def test_an_expected_chunked_body_that_grows_over_the_limit_is_a_413(shared, concurrency):
    server = shared("raw", *CONCURRENCY[concurrency], "--limit-request-body", "1000")
    with server.wire() as wire:
        wire.send(head("/inputs/echo", "chunked", more=EXPECT))
        assert wire.head()[1] == 100
        wire.send(b"3e9\r\n")
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (413, "close")
        assert wire.closed()


# Reading while the client sends.


@pytest.mark.parametrize("script", range(len(SCRIPTS)))
@pytest.mark.parametrize("step", [None, 7], ids=["at once", "in small packets"])
def test_incomplete_input_reads_like_a_file(streaming, record, script, step):
    with streaming.wire() as wire:
        wire.send(head(f"/uploads/calls?script={script}&record={record}", "length", len(LINES)))
        eventually(record.read_text, "the application to be called")
        wire.send(LINES, step)
        assert json.loads(wire.answer().body) == make_calls(io.BytesIO(LINES), SCRIPTS[script])


@pytest.mark.parametrize("expect", ["", EXPECT], ids=["sent at once", "Expect"])
def test_a_large_upload_arrives_whole(server, framing, concurrency, expect):
    """It is larger than the default of --body-buffer."""
    body = random.Random(3).randbytes(20_000_000)
    with server.wire() as wire:
        wire.send(head("/uploads/described", framing, len(body), expect))
        if expect:
            assert wire.head()[1] == 100
        wire.send(framed(body, framing, 1_000_000) + HELLO)
        answer = wire.answer()
        result = json.loads(answer.text)
        assert (result["size"], result["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert result["environ"] == {
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_TRANSFER_ENCODING": None,
            "wsgi.input_terminated": True,
        }
        if framing == "length" and concurrency == "fork":
            assert answer.header("connection") == "close"
            assert wire.closed()
        else:
            assert answer.header("connection") is None
            assert wire.answer().text == "hello\n"
            assert wire.request("/inputs/echo", "POST", b"again").text == "again"


def test_a_chunked_body_over_the_buffer_does_not_occupy_a_thread_while_it_is_sent(start, record):
    server = start("raw", "--threads", "1", "--body-buffer", "1000")
    with server.wire() as slow:
        slow.send(
            head(f"/uploads/described?record={record}", "chunked") + framed(b"y" * 2000, "chunked")[:-5]
        )
        assert server.get("/answers/hello").text == "hello\n"
        assert record.read_text() == ""
        slow.send(b"0\r\n\r\n")
        result = json.loads(slow.answer().text)
        assert (result["size"], result["environ"]["CONTENT_LENGTH"]) == (2000, "2000")


def test_a_body_up_to_the_buffer_does_not_occupy_a_thread_while_it_is_sent(start, record):
    server = start("raw", "--threads", "1", "--body-buffer", "1000")
    with server.wire() as slow:
        slow.send(head(f"/uploads/described?record={record}", "length", 1000) + b"x" * 999)
        assert server.get("/answers/hello").text == "hello\n"
        assert record.read_text() == ""
        slow.send(b"x")
        assert json.loads(slow.answer().text)["size"] == 1000


def test_a_response_can_be_streamed_while_its_request_is_received(streaming):
    pieces = [b"%d" % number * 1000 for number in range(1, 6)]
    with streaming.wire() as wire:
        wire.send(head("/uploads/echo_stream", "length", sum(map(len, pieces))))
        wire.head()
        assert wire.chunk() == b"begun\n"
        for piece in pieces:
            wire.send(piece)
            received = b""
            while len(received) < len(piece):
                received += wire.chunk()
            assert received == piece
        assert wire.chunk() == b""


def test_a_client_that_half_closes_after_a_slow_upload_gets_its_response(streaming, framing):
    with streaming.wire() as wire:
        wire.send(head("/uploads/asks_after_client", framing, 5))
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 1.2, "a late half-close to be one that gives up")
        wire.send(framed(b"hello", framing))
        wire.finish()
        assert wire.answer().text == "hello"


# Clients that are slow, disconnect, or send invalid data while the application reads.


@pytest.fixture
def impatient(shared, concurrency):
    return shared("raw", *CONCURRENCY[concurrency], *STREAMED, "--body-timeout", "0.5", "--body-rate", "0")


def test_a_client_that_is_too_slow_gets_408(impatient, framing):
    since = len(impatient.log.text)
    with impatient.wire() as wire:
        wire.send(head("/inputs/echo", framing, 100) + (b"x" if framing == "length" else b"5\r\nhel"))
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (408, "close")
        assert wire.closed()
    assert "Traceback" not in impatient.log.text[since:]


def test_the_application_sees_a_timeout(impatient):
    with impatient.wire() as wire:
        wire.send(head("/uploads/catches", "length", 100) + b"x")
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert json.loads(answer.text) == ["TimeoutError: the request body arrived too slowly"] * 2


@pytest.mark.parametrize("leave", ["close", "reset", "finish"])
def test_the_application_sees_that_the_client_disconnected(streaming, record, leave):
    since = len(streaming.log.text)
    wire = streaming.wire()
    wire.send(head(f"/uploads/catches?record={record}", "length", 100) + b"x")
    eventually(lambda: record.read_text() == "called\n", "the application to be called")
    getattr(wire, leave)()
    _, *errors = eventually(lambda: (lines := record.read_text().splitlines())[2:] and lines, "two errors")
    assert len(errors) == 2
    assert all(error.startswith(("ConnectionAbortedError: ", "ConnectionResetError: ")) for error in errors)
    assert "Traceback" not in streaming.log.text[since:]
    wire.close()


def test_a_truncated_upload_is_a_400(streaming, framing):
    with streaming.wire() as wire:
        wire.send(head("/inputs/echo", framing, 100) + (b"x" if framing == "length" else b"5\r\nhel"))
        wire.finish()
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (400, "close")
    assert streaming.get("/answers/hello").status == 200


def test_a_malformed_chunk_is_a_400_and_nothing_after_it_is_run(streaming, record):
    since = len(streaming.log.text)
    with streaming.wire() as wire:
        wire.send(head("/inputs/echo", "chunked") + b"5\r\nhello\r\n")
        wire.send(f"nonsense\r\nGET /clients/called?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (400, "close")
        assert wire.closed()
    assert record.read_text() == ""
    assert "Traceback" not in streaming.log.text[since:]


def test_a_chunked_body_that_grows_over_the_limit_is_a_413(shared, concurrency):
    server = shared("raw", *CONCURRENCY[concurrency], *STREAMED, "--limit-request-body", "1000")
    with server.wire() as wire:
        wire.send(head("/inputs/echo", "chunked") + b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        wire.send(b"1\r\nx\r\n0\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (413, "close")
        assert wire.closed()


def test_another_error_after_a_failed_read_is_a_500(streaming):
    since = len(streaming.log.text)
    with streaming.wire() as wire:
        wire.send(head("/uploads/other_error", "length", 100) + b"x")
        wire.finish()
        answer = wire.answer()
        assert (answer.status, answer.header("connection")) == (500, "close")
    streaming.log.wait_for("KeyError", since)


def test_waiting_for_the_client_does_not_count_towards_the_timeout(shared, record, concurrency):
    server = shared("raw", *CONCURRENCY[concurrency], *STREAMED, "--timeout", "1")
    with server.wire() as wire:
        wire.send(head(f"/uploads/times?record={record}", "length", 6))
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 1.5, "the timeout to pass")
        wire.send(b"a\n")
        eventually(lambda: record.read_text() == "a\n", "the line to be read")
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 1.5, "the timeout to pass again")
        wire.send(b"b\nc\n")
        assert wire.answer().text == "done\n"
    assert "request timeout: " not in server.log.text


@pytest.mark.parametrize("mode", ["inline", "fork"])
def test_a_signal_handler_of_the_application_runs_while_it_waits_for_the_client(shared, mode):
    server = shared("raw", *CONCURRENCY[mode], *STREAMED)
    with server.wire() as wire:
        wire.send(head("/uploads/alarmed", "length", 10) + b"x")
        assert wire.answer().text == "rung"


# What the application leaves unread.


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize(
    "path", ["/inputs/ignore", "/failures/raises", "/answers/generator", "/uploads/first_bytes?size=5"]
)
def test_unread_input_is_never_run_as_a_request(streaming, record, framing, path, size):
    """A short rest is discarded, and the connection is kept.

    With a long rest it is closed so that the response can be read.
    """
    hidden = f"GET /clients/called?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    body = (hidden * (size // len(hidden) + 1))[:size]
    with streaming.wire() as wire:
        wire.send(head(path, framing, size) + framed(body, framing))
        assert wire.answer().complete
        wire.send(HELLO)
        with contextlib.suppress(ConnectionResetError):
            if wire.stream.peek(1):
                assert wire.answer().text == "hello\n"
    assert streaming.get("/answers/hello").status == 200
    assert record.read_text() == ""


@pytest.mark.parametrize("mode", ["inline", "threads"])
def test_a_short_unread_rest_is_discarded_and_the_connection_kept(shared, mode):
    server = shared("raw", *CONCURRENCY[mode], *STREAMED)
    body = b"z" * 100_000
    with server.wire() as wire:
        wire.send(head("/uploads/first_bytes?size=5", "length", len(body)) + body[:50_000])
        answer = wire.answer()
        assert (answer.body, answer.header("connection")) == (b"zzzzz", None)
        wire.send(body[50_000:] + HELLO)
        assert wire.answer().text == "hello\n"


def test_an_input_used_after_its_request_reads_nothing(start):
    server = start("raw", "--threads", "1", *STREAMED)
    with server.wire() as wire:
        wire.send(head("/uploads/keeps", "length", 10) + b"0123")
        assert wire.answer().text == "kept\n"
        wire.send(b"456789" + HELLO)
        assert wire.answer().text == "hello\n"
        assert json.loads(wire.request("/uploads/reads_kept").text) == ["0 bytes"]


# Memory.


def test_small_bodies_on_many_connections_stay_within_the_budget(start, tmp_path, framing):
    """400 of 500 KB on 200 connections are 80 MB, of which 4 may be in memory, besides the first 16 KiB of each."""
    server = start("raw", "--threads", "1", "--bodies-in-memory", "4000000", "--tmp-dir", tmp_path)
    (worker,) = server.workers()
    body = b"m" * 500_000
    request = head("/uploads/described", framing, len(body)) + framed(body, framing, 100)
    assert server.get("/answers/hello").status == 200
    before = resident(worker)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(200)]
        for wire in wires:
            wire.send(request[: len(request) * 4 // 5])
        rests(worker)
        assert resident(worker) - before < 4_000_000 + len(wires) * 45_000 + 4_000_000
        for wire in wires:
            wire.send(request[len(request) * 4 // 5 :])
            assert json.loads(wire.answer().text)["size"] == len(body)


def test_chunks_of_one_byte_are_coalesced_and_do_not_delay_others(start, tmp_path):
    server = start("raw", "--threads", "1", "--bodies-in-memory", "0", "--tmp-dir", tmp_path)
    (worker,) = server.workers()

    def written():
        counts = dict(line.split(": ") for line in Path(f"/proc/{worker}/io").read_text().splitlines())
        return int(counts["syscw"])

    assert server.get("/answers/hello").status == 200
    before = written()
    with server.wire() as wire:
        wire.send(head("/uploads/described", "chunked") + b"1\r\nx\r\n" * 700_000 + b"0\r\n\r\n")
        assert json.loads(wire.answer().text)["size"] == 700_000
    assert written() - before < 1000
