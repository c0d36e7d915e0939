"""Each limit of docs/limits.md has the default and the effect that the table gives."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess

import pytest
from clients import ask
from harness import MLWS, ROOT, descriptors, eventually, rests

ROWS = re.findall(
    r"(?m)^\| `(--[a-z_-]+)` \| (.+?) \| .+? \| (.+?) \|$", (ROOT / "docs/limits.md").read_text()
)
GET = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n"
INLINE = ("--threads", "1")
NO_MEMORY = ("--body-in-memory", "1000", "--bodies-in-memory", "0")
BODIES = {"--body-buffer", "--body-in-memory", "--bodies-in-memory", "--tmp-dir"}
SLOW = b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1001\r\n\r\n"


def status_of(server, request):
    """The status of the response. After an error the server has to close."""
    with server.wire() as wire:
        wire.send(request)
        answer = wire.answer()
        assert answer.status == 200 or wire.closed()
        return answer.status


def test_the_table_has_every_limit_and_every_limit_has_a_test():
    assert {option for option, _, _ in ROWS} == {*SIZES, *PATIENCE, *CROWDS, *BODIES}


@pytest.mark.parametrize(("option", "default"), [row[:2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_table_has_the_defaults(option, default):
    help_text = subprocess.run([MLWS, "--help"], check=True, capture_output=True, text=True).stdout
    of_option = re.search(rf"(?s) {option} <.+?(?=\n\n| --[a-z-]+ <)", help_text).group()
    shown = re.search(r"\[default:\s+(\S+?)\]", of_option)
    assert shown is None or shown.group(1) == default.removesuffix(" (none)")
    assert shown is not None or not default.isdigit()


SIZES = {
    "--limit-request-line": ("50", GET, GET.replace(b"hello", b"hello?" + b"q" * 50), 414),
    "--limit-request-fields": ("2", GET + b"A: b\r\n", GET + b"A: b\r\n" * 2, 431),
    "--limit-request-field_size": ("20", GET + b"A: b\r\n", GET + b"A: " + b"b" * 20 + b"\r\n", 431),
    "--limit-request-head": ("100", GET, GET + b"A: b\r\n" * 20, 431),
    "--limit-request-body": ("10", GET + b"Content-Length: 0\r\n", GET + b"Content-Length: 11\r\n", 413),
    "--http-compat": ("strict", GET, b"GET /answers/hello HTTP/1.1\r\n", 400),
}


@pytest.mark.parametrize("option", SIZES)
def test_a_request_that_exceeds_a_size_limit_is_rejected(start, option):
    limit, below, above, status = SIZES[option]
    server = start("raw", "--threads", "1", option, limit)
    assert status_of(server, below + b"\r\n") == 200
    assert status_of(server, above + b"\r\n") == status
    assert str(status) in {option: seen for option, _, seen in ROWS}[option]


def test_gunicorn_mode_accepts_what_gunicorn_accepts(start):
    server = start("raw", "--threads", "1", "--http-compat", "gunicorn")
    assert status_of(server, b"GET /answers/hello HTTP/1.1\r\n\r\n") == 200


def test_a_body_that_exceeds_the_memory_limit_goes_to_an_unlinked_file(start, tmp_path):
    server = start("raw", *INLINE, *NO_MEMORY, "--tmp-dir", tmp_path)
    worker = server.workers()[0]

    def files():
        found = []
        for number in os.listdir(f"/proc/{worker}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found.append(os.readlink(f"/proc/{worker}/fd/{number}"))
        return [link for link in found if link.startswith(str(tmp_path))]

    with server.wire() as wire:
        wire.send(SLOW[:-2] + b"X: y\r\n\r\n" + b"x" * 1000)
        rests(worker)
        assert files() == []
        wire.send(b"x")
        assert wire.answer().body == b"x" * 1001
        wire.send(SLOW.replace(b"1001", b"2000") + b"x" * 1999)
        eventually(lambda: len(files()) == 1, "the file")
        assert os.listdir(tmp_path) == []
        wire.send(b"x")
        assert wire.answer().body == b"x" * 2000
    eventually(lambda: files() == [], "the file to be gone")


def test_long_bodies_share_a_memory_budget_and_return_it(start, tmp_path):
    """A file cannot be created, so a 507 shows that the budget was used up."""
    options = ("--body-in-memory", "1000", "--bodies-in-memory", "3000", "--tmp-dir", tmp_path / "missing")
    server = start("raw", *INLINE, *options)

    def post(size):
        return SLOW.replace(b"1001", str(size).encode()) + b"x" * size

    for _ in range(3):
        with server.wire() as first:
            first.send(post(1500)[:-1])
            rests(server.workers()[0])
            assert status_of(server, post(1501)) == 507
            assert status_of(server, post(1500)) == 200
            first.send(b"x" + GET[:3])
            assert first.answer().body == b"x" * 1500
            assert status_of(server, post(3000)) == 200
            first.send(GET[3:] + b"\r\n")
            assert first.answer().status == 200


def test_only_a_body_over_the_buffer_is_read_while_it_is_sent(start, record):
    server = start("raw", *INLINE, "--body-buffer", "1000")
    path = f"/uploads/described?record={record}".encode()
    with server.wire() as wire:
        wire.send(SLOW.replace(b"/inputs/echo", path).replace(b"1001", b"1000"))
        rests(server.workers()[0])
        assert record.read_text() == ""
        wire.send(b"x" * 1000)
        assert wire.answer().status == 200
        wire.send(SLOW.replace(b"/inputs/echo", path))
        eventually(lambda: record.read_text() == "called\n" * 2, "the application to be called")
        wire.send(b"x" * 1001)
        assert wire.answer().status == 200


def test_a_body_that_cannot_be_stored_is_a_507(start, tmp_path):
    server = start("raw", *INLINE, *NO_MEMORY, "--tmp-dir", tmp_path / "missing")
    assert status_of(server, SLOW + b"x" * 1001) == 507
    assert status_of(server, SLOW.replace(b"1001", b"1000") + b"x" * 1000) == 200
    server.log.wait_for("storing a request body failed")


# Timeouts. Each test waits for the server's own clock. A server without the limit would never close the connection.


def keep_alive(server, wire):
    assert wire.request("/answers/hello").status == 200
    assert wire.closed()


def head_timeout(server, wire):
    wire.send(b"GET / HT")
    assert wire.answer().status == 408
    assert wire.closed()
    with server.wire() as silent:
        assert silent.rest() == b""


def body_timeout(server, wire):
    wire.send(SLOW)
    assert wire.answer().status == 408
    assert wire.closed()


def body_rate(server, wire):
    """A thousand received bytes extend the timeout by a thousand seconds, one byte by one second."""
    wire.send(SLOW + b"x" * 1000)
    with server.wire() as slower:
        slower.send(SLOW + b"x")
        assert slower.answer().status == 408
    wire.send(b"x")
    assert len(wire.answer().body) == 1001


def write_timeout(server, wire):
    worker = server.workers()[0]
    wire.send(GET + b"\r\n")
    assert wire.answer().status == 200
    before = descriptors(worker)
    with server.wire(receive_buffer=4096) as deaf:
        deaf.send(b"GET /answers/big?size=50000000 HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually(lambda: descriptors(worker) > before, "the client to be accepted")
        eventually(lambda: descriptors(worker) <= before, "the client to be cut")
        answer = deaf.answer()
    assert (answer.status, answer.complete) == (200, False)


def timeout(server, wire):
    assert wire.request("/misbehaviour/spins").status == 504
    assert wire.closed()


PATIENCE = {
    "--keep-alive": (keep_alive, ()),
    "--head-timeout": (head_timeout, ()),
    "--body-timeout": (body_timeout, ()),
    "--body-rate": (body_rate, ("--body-timeout", "0.5")),
    "--write-timeout": (write_timeout, ()),
    "--timeout": (timeout, ()),
}


@pytest.mark.parametrize("option", PATIENCE)
def test_timeouts_expire(start, option):
    scene, more = PATIENCE[option]
    mode = () if "--fork" in more else ("--threads", "1")
    server = start("raw", *mode, option, "1", *more)
    with server.wire() as wire:
        scene(server, wire)
    assert server.get("/answers/hello").status == 200


# Many clients.


def worker_connections(start, gate):
    server = start("raw", "--threads", "2", "--worker-connections", "2")
    wires = [ask(server, gate.path) for _ in range(2)]
    gate.wait_for(2)
    with ask(server, "/answers/hello") as waiting:
        waiting.socket.setblocking(False)
        rests(server.workers()[0])
        with pytest.raises(BlockingIOError):
            waiting.socket.recv(1)
        waiting.socket.settimeout(wires[0].socket.gettimeout())
        gate.open()
        for wire in wires:
            assert wire.answer().status == 200
        wires[0].close()
        assert waiting.answer().status == 200
    wires[1].close()


def test_a_full_worker_closes_the_longest_idle_connection_for_a_new_client(start):
    server = start("raw", "--worker-connections", "3", "--keep-alive", "600")
    wires = [server.wire() for _ in range(3)]
    for wire in wires:
        assert wire.request("/answers/hello").status == 200
    with server.wire() as new:
        assert new.request("/answers/hello").status == 200
        assert wires[0].closed()
        for wire in (*wires[1:], new):
            assert wire.request("/answers/hello").status == 200
    for wire in wires:
        wire.close()


@pytest.mark.parametrize(
    "concurrency", [(), ("--threads", "1"), ("--fork",)], ids=["threads", "inline", "fork"]
)
def test_a_connection_that_never_sent_a_request_is_closed_before_others(start, concurrency):
    patience = ("--keep-alive", "600", "--head-timeout", "600")
    server = start("raw", "--worker-connections", "2", *patience, *concurrency)
    with server.wire() as used, server.wire() as silent:
        assert used.request("/answers/hello").status == 200
        with server.wire() as new:
            assert new.request("/answers/hello").status == 200
            assert silent.closed()
            assert used.request("/answers/hello").status == 200


def max_children(start, gate):
    server = start("raw", "--fork", "--max-children", "2")
    wires = [ask(server, gate.path) for _ in range(5)]
    gate.wait_for(2)
    rests(server.workers()[0])
    assert len(server.children()) == gate.inside() == 2
    gate.open()
    for wire in wires:
        assert wire.answer().text == "passed\n"
        wire.close()


def max_queue(start, gate):
    server = start("raw", "--threads", "2", "--max-queue", "2")
    wires = [ask(server, gate.path) for _ in range(2)]
    gate.wait_for(2)
    for _ in range(2):
        wires.append(ask(server, gate.path))
        rests(server.workers()[0])
    with ask(server, gate.path) as rejected:
        answer = rejected.answer()
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert rejected.closed()
    gate.open()
    for wire in wires:
        assert wire.answer().text == "passed\n"
        wire.close()


CROWDS = {
    "--worker-connections": worker_connections,
    "--max-children": max_children,
    "--max-queue": max_queue,
}


@pytest.mark.parametrize("option", CROWDS)
def test_the_number_of_connections_is_limited(start, gate, option):
    CROWDS[option](start, gate)
