"""`--fork`: clients that read slowly do not occupy processes, and get their complete responses."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from harness import eventually, gone

#: More than the system buffers for a connection.
LINES = 1_000_000
CONTENT = b"".join(b"%07d\n" % number for number in range(LINES))
KINDS = ["whole", "pieces", "generator", "file", "writes", "writes_then_file"]


@pytest.fixture
def forking(shared):
    return shared("raw", "--fork", "--max-children", "2")


def slow(server, path, version="1.1", headers=""):
    """A client whose response has begun to arrive, but is unread."""
    wire = server.wire(receive_buffer=4096)
    separator = "&" if "?" in path else "?"
    target = f"{path}{separator}lines={LINES}"
    wire.send(f"GET {target} HTTP/{version}\r\nHost: test\r\n{headers}\r\n".encode())
    wait_for_first_byte(wire)
    return wire


def wait_for_first_byte(wire):
    wire.socket.recv(1, socket.MSG_PEEK)


def childless(server):
    worker = server.workers()[0]
    eventually(lambda: server.children(worker) == [], "the children to exit")


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_reader_holds_no_process_and_gets_every_byte(forking, kind):
    wires = [slow(forking, f"/large/{kind}") for _ in range(3)]
    childless(forking)
    assert forking.get("/answers/hello").text == "hello\n"
    for wire in wires:
        with wire:
            answer = wire.answer()
            assert (answer.status, answer.complete) == (200, True)
            assert answer.body == CONTENT
            assert wire.request("/answers/hello").text == "hello\n", "the connection can be used again"


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_delimited_by_close_reaches_a_slow_reader(forking, kind):
    with slow(forking, f"/large/{kind}", version="1.0") as wire:
        childless(forking)
        answer = wire.rest()
    assert answer.partition(b"\r\n\r\n")[2] == CONTENT


def test_pipelined_requests_of_a_slow_reader_are_answered_in_order(forking):
    with forking.wire(receive_buffer=4096) as wire:
        large = f"GET /large/generator?lines={LINES} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
        small = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n"
        wire.send((large + small) * 2)
        wait_for_first_byte(wire)
        childless(forking)
        bodies = [wire.answer().body for _ in range(4)]
    assert bodies == [CONTENT, b"hello\n"] * 2


def test_later_data_of_the_child_follows_the_unread_data(forking, gate):
    with slow(forking, f"/large/gated?gate={gate.directory}") as wire:
        gate.wait_for(1)
        gate.open()
        childless(forking)
        assert wire.answer().body == CONTENT + b"end\n"


def test_a_slow_reader_that_catches_up_gets_new_data_immediately(forking, gate):
    with slow(forking, f"/large/gated?gate={gate.directory}") as wire:
        gate.wait_for(1)
        wire.head()
        got = b""
        while CONTENT[-8:] not in got[-20:]:
            got += wire.stream.read1(65536)
        gate.open()
        assert b"end\n" in wire.stream.read(9)


@pytest.mark.parametrize("how", ["dies", "raises"])
def test_a_truncated_response_is_recognizable_for_a_slow_reader(forking, record, how):
    with slow(forking, f"/large/{how}?record={record}") as wire:
        childless(forking)
        answer = wire.answer()
    assert not answer.complete
    assert CONTENT.startswith(answer.body)
    assert how == "dies" or answer.body == CONTENT


@pytest.mark.parametrize("how", ["dies", "raises"])
def test_a_truncated_response_delimited_by_close_ends_with_a_reset(forking, record, how):
    with slow(forking, f"/large/{how}?record={record}", version="1.0") as wire:
        childless(forking)
        assert is_reset(wire)


def is_reset(wire):
    try:
        while wire.stream.read(65536):
            pass
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize(
    "options",
    [
        ("--response-memory", "1K"),
        ("--response-memory", "1M"),
        ("--response-memory", "1K", "--response-spool", "1M"),
    ],
    ids=" ".join,
)
def test_data_beyond_the_memory_limit_goes_to_files_and_then_blocks_the_child(start, options):
    server = start("raw", "--fork", *options)
    wires = [slow(server, f"/large/{kind}") for kind in KINDS]
    if "--response-spool" not in options:
        childless(server)
    assert server.get("/answers/hello").text == "hello\n"
    for wire in wires:
        with wire:
            assert wire.answer().body == CONTENT
    childless(server)


def test_temporary_files_are_removed_when_slow_readers_have_finished(start):
    server = start("raw", "--fork", "--response-memory", "1K")
    with slow(server, "/large/generator") as wire:
        childless(server)
        worker = server.workers()[0]
        assert deleted_files(worker), "the response is in a file without a name"
        assert wire.answer().body == CONTENT
        eventually(lambda: not deleted_files(worker), "the file to be closed")


def deleted_files(pid):
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.endswith("(deleted)"):
            found.append(target)
    return found


def test_a_slow_reader_that_disconnects_ends_its_response(start, record):
    server = start("raw", "--fork", "--response-memory", "1M", "--response-spool", "1M")
    wire = slow(server, f"/large/endless?record={record}")
    eventually(lambda: server.children(), "the child")
    wire.reset()
    eventually(lambda: record.read_text() == "closed\n", "close() of the response")
    childless(server)
    assert server.get("/answers/hello").text == "hello\n"


def test_a_client_that_never_reads_is_disconnected_at_the_write_timeout(start, record):
    server = start(
        "raw", "--fork", "--write-timeout", "1", "--response-memory", "1M", "--response-spool", "1M"
    )
    with slow(server, f"/large/endless?record={record}") as wire:
        eventually(lambda: record.read_text() == "closed\n", "close() of the response")
        childless(server)
        assert is_reset(wire)


def test_a_child_that_hangs_is_killed_although_its_client_reads_slowly(start, gate):
    server = start("raw", "--fork", "--timeout", "1")
    with slow(server, f"/large/gated?gate={gate.directory}") as wire:
        gate.wait_for(1)
        assert eventually(lambda: gone(gate.pids()[0]))
        answer = wire.answer()
    assert (answer.status, answer.complete) == (200, False)
    assert CONTENT.startswith(answer.body)
    server.log.wait_for("request timeout: ")


def test_a_process_that_the_application_leaves_behind_does_not_hold_up_the_response(forking, gate):
    with slow(forking, f"/large/leaves_process?gate={gate.directory}") as wire:
        gate.wait_for(1)
        childless(forking)
        assert wire.answer().body == CONTENT
        assert wire.request("/answers/hello").text == "hello\n"


def test_a_graceful_stop_waits_for_slow_readers(start):
    server = start("raw", "--fork")
    with slow(server, "/large/generator") as wire:
        childless(server)
        server.process.send_signal(signal.SIGTERM)
        assert wire.answer().body == CONTENT
    assert server.wait() == 0


def test_background_threads_and_slow_readers_can_be_combined(forking, gate, record):
    """The worker sends the response, and the child waits for its threads."""
    with slow(forking, f"/large/with_thread?gate={gate.directory}&record={record}") as wire:
        gate.wait_for(1)
        assert wire.answer().body == CONTENT
        assert wire.request("/answers/hello").text == "hello\n"
        gate.open()
        eventually(lambda: record.read_text() == "done\n", "the background work")
