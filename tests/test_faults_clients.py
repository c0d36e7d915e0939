"""Thousands of clients that are slow, read nothing, or reset; and enough valid requests to reveal a leak."""

from __future__ import annotations

import os

import pytest
from conftest import CONCURRENCY
from harness import descriptors, eventually, rests
from soak import connected, crowd, raise_descriptors, resident, settled

PATIENCE = ("--head-timeout", "600", "--keep-alive", "600", "--timeout", "600")
EACH = 16 * 1024
# The budget of all unread responses together.
RESPONSE_MEMORY = 64 << 20
# The size of `/faults/long`.
LONG = 128 * 4096
"""Bytes of the server's memory that a slow client may use."""

SLOW = {
    "silent": (b"", b""),
    "head": (b"GET /answers/hello HTTP/1.1\r\nHost: test\r\nX-Slow: ", b"s"),
    "body": (b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nbody", b"s"),
    "chunked body": (
        b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\ns\r\n",
    ),
    "idle": (b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n", b""),
}


def is_well(server, times=20):
    """A well-behaved client gets its responses."""
    with server.wire() as wire:
        for _ in range(times):
            assert wire.request("/answers/hello").text == "hello\n"
    assert server.get("/inputs/echo", "POST", b"good").text == "good"


def expect(client, count):
    """Reads exactly that number of bytes."""
    while count > 0:
        piece = client.recv(min(count, 65536))
        assert piece, "closed instead of served on"
        count -= len(piece)


@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients_do_not_block_others_and_use_little_memory(start, concurrency, kind, at_length):
    forks = concurrency == "fork" and kind == "idle"
    count = at_length(100, 2000) if forks else at_length(500, 10_000)
    raise_descriptors(count + 500)
    server = start("raw", *CONCURRENCY[concurrency], *PATIENCE)
    (worker,) = server.workers()
    is_well(server)
    before, memory = settled(server), resident(worker)
    request, more = SLOW[kind]
    with crowd(server, count, request) as clients:
        eventually(lambda: descriptors(worker) >= before + count, "all of them to be accepted")
        is_well(server)
        for _ in range(3):
            for client in clients:
                client.sendall(more)
            is_well(server)
        rests(worker)
        assert (resident(worker) - memory) // count <= EACH
    eventually(lambda: settled(server) == before, "every descriptor to be closed")
    is_well(server)


@pytest.mark.parametrize("concurrency", ["inline", "threads"])
def test_slow_readers_do_not_block_others_and_share_the_memory_for_responses(start, concurrency, at_length):
    """Their streams are produced to the end, and unread data is buffered. No thread waits for them."""
    count = at_length(200, 2_000)
    raise_descriptors(2 * count + 500)
    server = start("raw", *CONCURRENCY[concurrency], *PATIENCE)
    (worker,) = server.workers()
    is_well(server)
    before, memory = settled(server), resident(worker)
    with crowd(server, count, b"GET /faults/long HTTP/1.1\r\nHost: test\r\n\r\n", reads=False) as clients:
        eventually(lambda: descriptors(worker) >= before + count, "all of them to be accepted")
        is_well(server)
        rests(worker)
        assert resident(worker) - memory <= RESPONSE_MEMORY + count * EACH
        for client in clients[:10]:
            expect(client, LONG)
    eventually(lambda: settled(server) == before, "every descriptor to be closed")
    is_well(server)


def test_a_slow_reader_of_a_child_does_not_block_others_and_gets_its_response(start):
    server = start("raw", "--fork", *PATIENCE)
    with server.wire(receive_buffer=4096) as slow:
        slow.send(b"GET /answers/big?size=20000000 HTTP/1.1\r\nHost: test\r\n\r\n")
        slow.head()
        is_well(server)
        eventually(lambda: server.children() == [], "the child to end")
        assert slow.stream.read(20_000_000) == b"b" * 20_000_000
        assert slow.request("/answers/hello").text == "hello\n"


STAGES = {
    "before the first byte": (b"", 0),
    "in the head": (b"GET /faults/stream?record=%b HTTP/1.1\r\nHost: te", 0),
    "in the body": (b"POST /faults/noted?record=%b HTTP/1.1\r\nHost: t\r\nContent-Length: 99\r\n\r\npart", 0),
    "in a chunk": (
        b"POST /faults/noted?record=%b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npa",
        0,
    ),
    "before the answer": (b"GET /faults/noted?record=%b HTTP/1.1\r\nHost: t\r\n\r\n", 0),
    "before a stream": (b"GET /faults/stream?record=%b HTTP/1.1\r\nHost: t\r\n\r\n", 0),
    "in the answer": (b"GET /faults/stream?record=%b HTTP/1.1\r\nHost: t\r\n\r\n", 9000),
    "after the answer": (b"GET /faults/noted?record=%b HTTP/1.1\r\nHost: t\r\n\r\n", 100),
    "with more behind": (b"GET /faults/noted?record=%b HTTP/1.1\r\nHost: t\r\n\r\n" * 3, 100),
    "after a refusal": (b"nonsense\r\n\r\n", 12),
}


def test_clients_that_reset_at_any_stage_leak_no_resources(start, concurrency, record, at_length):
    """Started responses are closed, and all descriptors, children and memory are released."""
    server = start("raw", *CONCURRENCY[concurrency], *PATIENCE)
    (worker,) = server.workers()
    is_well(server)
    before = settled(server)
    stages = [(request.replace(b"%b", os.fsencode(record)), wanted) for request, wanted in STAGES.values()]
    count = at_length(400, 20_000) if concurrency == "fork" else at_length(800, 40_000)
    for number in range(count):
        request, wanted = stages[number % len(stages)]
        with connected(server) as client:
            client.sendall(request)
            expect(client, wanted)
    is_well(server)
    eventually(lambda: settled(server) == before, "every descriptor to be closed")

    def notes():
        return record.read_text().split()

    eventually(lambda: notes().count("began") == notes().count("closed"), "whatever was begun to be closed")
    assert notes().count("began") > count // len(stages) * 2
    assert server.workers() == [worker]
    assert server.zombies() == []
    assert "Traceback" not in server.log.text


MIX = (
    b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody",
    b"GET /answers/generator HTTP/1.1\r\nHost: test\r\nX-Header: of any kind\r\n\r\n",
    b"GET /environs/show?a=query HTTP/1.1\r\nHost: test\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
    b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n",
)


def test_memory_does_not_grow_with_the_number_of_requests(start, concurrency, at_length):
    """The last nine tenths of the requests may increase memory by less than a megabyte."""
    count = at_length(400, 50_000) if concurrency == "fork" else at_length(20_000, 1_000_000)
    server = start("raw", *CONCURRENCY[concurrency], *PATIENCE)
    (worker,) = server.workers()
    is_well(server)
    before = settled(server)
    batch, answers = b"".join(MIX) * 10, 10 * len(MIX)
    batches = count // answers
    with server.wire() as wire:
        wire.send(batch)
        assert {wire.answer().status for _ in range(answers)} == {200}
        for number in range(batches):
            wire.send(batch)
            received = b""
            while not received.endswith(b"\r\n\r\nhello\n") or received.count(b"HTTP/1.1 ") < answers:
                received += wire.stream.read1(1 << 16)
            assert received.count(b"HTTP/1.1 200 OK\r\n") == answers
            if number == batches // 10:
                memory = resident(worker)
    eventually(lambda: settled(server) == before, "every descriptor to be closed")
    assert resident(worker) - memory < 1 << 20
    is_well(server)
