"""PEP 3333: reading the request's body, measured against the standard library's `io.BytesIO`."""

from __future__ import annotations

import hashlib
import io
import json
import random
from urllib.parse import quote

import pytest
from apps.raw.inputs import make_calls

LINES = b"one\ntwo\n\nfour\r\nand five without an end"
SPOOLED = b"".join(b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(20_000))
BODIES = {"small": LINES, "empty": b"", "newline": b"\n", "one line": b"one line", "spooled": SPOOLED}

SCRIPTS = [
    [["read"], ["read"], ["readline"], ["readlines"], ["iterate"]],
    [["read", -1], ["read", 5]],
    [["read", None], ["read"]],
    [["read", 0], ["read", 1], ["read", 3], ["read", 100_000], ["read"]],
    [["read", 2], ["readline"], ["read", 3], ["readline"], ["readlines"]],
    [["readline"], ["readline"], ["readline"], ["readline"], ["readline"], ["readline"], ["readline"]],
    [["readline", 0], ["readline", 2], ["readline", 1], ["readline", 1000], ["readline", -1], ["read"]],
    [["readline", None], ["read"]],
    [["readlines"], ["read"]],
    [["readlines", None], ["read"]],
    [["readlines", -1], ["read"]],
    [["next"], ["next"], ["read", 4], ["iterate"], ["read"]],
    [["iterate"], ["readline"]],
    [["readline"], ["iterate"]],
]


@pytest.fixture(params=["length", "chunked"])
def framing(request):
    return request.param


def request_with(path, body, framing, cut=4099):
    """A POST with either framing; chunks have different sizes."""
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\n"
    if framing == "length":
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    chunks, sizes, start = [], random.Random(1), 0
    while start < len(body):
        piece = body[start : start + sizes.randint(1, cut)]
        chunks.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        start += len(piece)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(chunks) + b"0\r\n\r\n"


def results_of(server, body, framing, script, cut=4099):
    with server.wire() as wire:
        wire.send(request_with(f"/inputs/calls?calls={quote(json.dumps(script))}", body, framing, cut))
        answer = wire.answer()
    assert answer.status == 200
    return json.loads(answer.text)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    "script", SCRIPTS, ids=lambda script: " ".join(str(word) for call in script for word in call)
)
def test_input_reads_like_a_file(server, script, body, framing):
    assert results_of(server, BODIES[body], framing, script) == make_calls(io.BytesIO(BODIES[body]), script)


@pytest.mark.parametrize("body", ["small", "spooled"])
def test_readlines_with_a_hint_returns_complete_lines_and_loses_none(server, body, framing):
    """PEP 3333 lets a server ignore the hint."""
    script = [["readlines", 5], ["readlines"]]
    first, rest = results_of(server, BODIES[body], framing, script)
    whole = BODIES[body].splitlines(keepends=True)
    count = first[1] if first[0] == "many" else len(first)
    assert count >= 2
    assert [first, rest] == make_calls(io.BytesIO(b"".join(whole[:count])), [["readlines"]]) + make_calls(
        io.BytesIO(b"".join(whole[count:])), [["readlines"]]
    )


def test_chunks_of_one_byte_make_one_body(server):
    assert results_of(server, LINES, "chunked", [["read"]], cut=1) == [LINES.decode()]


def test_a_body_left_unread_is_not_parsed_as_a_request(server, framing):
    with server.wire() as wire:
        for _ in range(3):
            wire.send(
                request_with(
                    "/inputs/ignore", b"GET /answers/hello HTTP/1.1\r\nHost: t\r\n\r\n" * 50, framing
                )
            )
            assert wire.answer().text == "ignored"
        assert wire.request("/answers/hello").text == "hello\n"


def test_a_body_can_be_read_while_the_response_is_sent(server, framing):
    with server.wire() as wire:
        wire.send(request_with("/inputs/late", LINES, framing))
        assert wire.answer().body == b"read: " + LINES


def test_thirty_megabytes_arrive_completely(server, framing):
    body = random.Random(30).randbytes(30_000_000)
    with server.wire() as wire:
        wire.send(request_with("/inputs/size", body, framing, cut=1_000_000))
        result = json.loads(wire.answer().text)
    assert result == {"size": 30_000_000, "sha256": hashlib.sha256(body).hexdigest()}


def test_a_truncated_body_never_appears_complete(server, framing, gate):
    with server.wire() as wire:
        whole = request_with(gate.path, b"x" * 1000, framing)
        wire.send(whole[:-6])
        wire.finish()
        rest = wire.rest()
    assert rest == b"" or rest.startswith(b"HTTP/1.1 400 ")
    assert gate.entries() == []
