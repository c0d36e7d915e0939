"""Workers that share a listening socket get fair shares of the connections, and do not wait for a stuck worker."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections import Counter

import pytest
from harness import eventually
from soak import raise_descriptors

PID = b"GET /gates/pid HTTP/1.1\r\nHost: test\r\n\r\n"


def spread(server, count):
    """The number of connections of each worker, after `count` were opened at once and used twice."""
    raise_descriptors(2 * count + 500)
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((server.host, server.port))
        pids = []
        for _ in range(2):
            for client in clients:
                selector.register(client, selectors.EVENT_WRITE)
            answers = dict.fromkeys(clients, b"")
            while selector.get_map():
                ready = selector.select(30)
                assert ready, "no answer in time"
                for key, events in ready:
                    client = key.fileobj
                    if events & selectors.EVENT_WRITE:
                        client.send(PID)
                        selector.modify(client, selectors.EVENT_READ)
                        continue
                    answers[client] += client.recv(1000)
                    head, _, body = answers[client].partition(b"\r\n\r\n")
                    assert answers[client], "the connection was closed"
                    if body:
                        assert head.startswith(b"HTTP/1.1 200 ")
                        selector.unregister(client)
            pids.append([json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers.values()])
        assert pids[0] == pids[1]
        return Counter(pids[0])


@pytest.mark.parametrize("count", [64, 512])
def test_each_worker_gets_its_fair_share(start, count):
    server = start("raw", "--workers", "8", "--threads", "4")
    eventually(lambda: len(server.workers()) == 8, "eight workers")
    shares = spread(server, count)
    print(f"{count} connections: {sorted(shares.values())}")
    fair = count / 8
    assert all(fair / 2 <= shares[pid] <= 2 * fair for pid in server.workers()), shares


def test_a_stuck_worker_does_not_keep_connections_from_the_others(start, gate):
    """The stuck worker has the fewest connections, so the others wait for it, but only briefly."""
    server = start("raw", "--workers", "4", "--threads", "1", "--timeout", "0")
    eventually(lambda: len(server.workers()) == 4, "four workers")
    with server.wire() as stuck:
        stuck.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        gate.wait_for(1)
        shares = spread(server, 200)
        print(f"200 connections, one worker of four stuck: {sorted(shares.values())}")
        assert len(shares) == 3
        assert gate.pids()[0] not in shares
        gate.open()
        assert stuck.answer().text == "passed\n"


def test_a_killed_worker_no_longer_counts(start):
    server = start("raw", "--workers", "2", "--threads", "1")
    for _ in range(3):
        with contextlib.suppress(ConnectionError):
            server.get("/gates/die?how=SIGKILL")
        eventually(lambda: len(server.workers()) == 2, "two workers")
        assert sum(spread(server, 40).values()) == 40
