"""HTTP/2: how connections end: GOAWAY on shutdown, reload and idleness, without losing a request."""

from __future__ import annotations

import signal
import threading

import pytest
from certificates import Authority
from conftest import MODES
from h2.errors import ErrorCodes
from harness import eventually
from http2_client import (
    CLEARTEXT,
    GOAWAY,
    HEADERS,
    HELLO,
    MAX_STREAM,
    PING,
    RST_STREAM,
    Http2Client,
    RawClient,
    goaway_of,
    trusting,
)
from wire import DEADLINE

NO_ERROR = ErrorCodes.NO_ERROR


def goaways(client):
    return [goaway_of(payload) for payload in client.frames(GOAWAY)]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_running_streams_finish_after_goaway(start, mode, gate, signum):
    server = start("raw", *MODES[mode], *CLEARTEXT)
    with Http2Client(server) as client:
        stream = client.open(gate.path)
        gate.wait_for(1)
        server.process.send_signal(signum)
        client.wait(lambda: client.goaways, "the first GOAWAY")
        assert client.goaways[0] == (MAX_STREAM, NO_ERROR)
        gate.open()
        client.finish(stream)
        assert (stream.status, bytes(stream.body)) == (200, b"passed\n")
        assert client.closed()
        assert client.goaways[-1] == (stream.number, NO_ERROR)
    if signum == signal.SIGTERM:
        assert server.wait() == 0


def test_a_request_after_goaway_is_served_or_excluded(start, gate):
    server = start("raw", "--threads", "4", *CLEARTEXT)
    with Http2Client(server) as client:
        first = client.open(gate.path)
        gate.wait_for(1)
        server.process.send_signal(signal.SIGTERM)
        client.wait(lambda: client.goaways, "the first GOAWAY")
        late = client.open(HELLO)
        client.wait(
            lambda: late.complete or client.goaways[-1][0] < late.number, "a response or the last GOAWAY"
        )
        gate.open()
        assert client.finish(first).status == 200
        assert client.closed()
        assert late.complete == (late.number <= client.goaways[-1][0])
    assert server.wait() == 0


def test_a_client_that_responds_to_no_ping_gets_a_second_to_notice(start, gate):
    server = start("raw", "--threads", "4", *CLEARTEXT)
    with RawClient(server) as client:
        client.open(1, gate.path)
        gate.wait_for(1)
        server.process.send_signal(signal.SIGTERM)
        client.wait_for(lambda: client.frames(GOAWAY), "the first GOAWAY")
        client.open(3, HELLO)
        assert client.status_of(3) == 200
        stream = 5

        def refused():
            nonlocal stream
            client.open(stream, HELLO)
            client.wait_for(
                lambda: client.frames(HEADERS, stream) or client.frames(RST_STREAM, stream), "either"
            )
            stream += 2
            return client.frames(RST_STREAM, stream - 2)

        eventually(refused, "a stream to be refused", pause=0.1)
        assert client.reset_of(stream - 2) == ErrorCodes.REFUSED_STREAM
        gate.open()
        assert client.status_of(1) == 200
        assert client.goaway() == NO_ERROR
        assert goaways(client)[0] == (MAX_STREAM, NO_ERROR) and client.frames(PING)
    assert server.wait() == 0


def test_idle_connections_are_closed_on_shutdown(start, mode):
    server = start("raw", *MODES[mode], *CLEARTEXT)
    clients = [Http2Client(server) for _ in range(8)]
    for client in clients[:4]:
        assert client.get().status == 200
    for client in clients[4:]:
        client.ping()
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        assert client.closed()
        assert client.goaways[0] == (MAX_STREAM, NO_ERROR)
        client.close()
    assert server.wait() == 0


def test_a_client_that_keeps_its_connection_open_does_not_delay_the_shutdown(start):
    server = start("raw", "--threads", "2", *CLEARTEXT)
    with RawClient(server) as client:
        client.open(1)
        assert client.status_of(1) == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert client.goaway() == NO_ERROR


def test_streams_are_ended_after_the_graceful_timeout(start, mode, gate):
    server = start("raw", *MODES[mode], *CLEARTEXT, "--graceful-timeout", "1")
    with Http2Client(server) as client:
        stream = client.open(gate.path)
        gate.wait_for(1)
        server.process.send_signal(signal.SIGTERM)
        assert client.closed()
        assert not stream.complete
    eventually(lambda: not server.running(), "the server to exit")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_a_fast_shutdown_ends_connections(start, mode, gate, signum):
    server = start("raw", *MODES[mode], *CLEARTEXT)
    with Http2Client(server) as client, Http2Client(server) as idle:
        assert idle.get().status == 200
        stream = client.open(gate.path)
        gate.wait_for(1)
        server.process.send_signal(signum)
        assert client.closed() and idle.closed()
        assert not stream.complete
    eventually(lambda: not server.running(), "the server to exit")


def test_an_idle_connection_is_closed_after_keep_alive(start, mode):
    server = start("raw", *MODES[mode], *CLEARTEXT, "--keep-alive", "1")
    with Http2Client(server) as client:
        assert client.get().status == 200
        assert client.closed()
        assert client.goaways[0] == (MAX_STREAM, NO_ERROR) and client.goaways[-1][1] == NO_ERROR
    with Http2Client(server) as client:  # a running request is not idleness
        assert bytes(client.request("/hangs/slow_pieces").body) == b"piece\n" * 8


def test_a_full_worker_closes_an_idle_connection_for_a_new_client(start):
    server = start("raw", "--threads", "2", "--worker-connections", "2", "--keep-alive", "60", *CLEARTEXT)
    with Http2Client(server) as first, Http2Client(server) as second:
        assert first.get().status == second.get().status == 200
        with Http2Client(server) as third:
            assert third.get().status == 200
            assert first.closed()
            assert second.get().status == 200


def test_worker_connections_counts_connections_and_not_streams(start, gate):
    server = start("raw", "--threads", "4", "--worker-connections", "3", *CLEARTEXT)
    with Http2Client(server) as client:
        streams = [client.open(gate.path) for _ in range(20)]
        gate.wait_for(4)
        with Http2Client(server) as other:
            other.ping()
        gate.open()
        client.finish(*streams)
        assert [stream.status for stream in streams] == [200] * 20


# Reloads under load.


class Load:
    """Clients that send requests all the time, on new connections when the server ends theirs. A request may only be repeated if
    GOAWAY excluded its stream, or if it was refused."""

    def __init__(self, server, context=None, clients=4, path=HELLO):
        self.server, self.context, self.path = server, context, path
        self.done, self.repeated, self.lost = 0, 0, []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def run(self):
        try:
            while not self.over.is_set():
                with Http2Client(self.server, self.context) as client:
                    while not self.over.is_set() and not client.goaways and not client.ended:
                        self.round(client)
        except Exception as failure:
            self.lost.append(failure)

    def round(self, client):
        streams = [client.open(self.path) for _ in range(8)]
        while not all(stream.complete or stream.reset is not None for stream in streams) and client.receive():
            pass
        for stream in streams:
            if stream.complete and stream.status == 200:
                self.done += 1
            elif stream.reset == ErrorCodes.REFUSED_STREAM or self.is_excluded(client, stream):
                self.repeated += 1
            else:
                self.lost.append((stream, client.goaways, client.ended))

    @staticmethod
    def is_excluded(client, stream):
        return bool(client.goaways) and stream.number > client.goaways[-1][0]


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_a_reload_under_load_loses_no_request(start, mode, tls, tmp_path, at_length):
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    options = ("--certfile", str(issued.certificate), "--keyfile", str(issued.key)) if tls else CLEARTEXT
    server = start("raw", "--workers", "2", *MODES[mode], *options)
    with Load(server, trusting(authority) if tls else None) as load:
        for _ in range(at_length(3, 100)):
            before, done = set(server.workers()), load.done
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: server.workers() and not before & set(server.workers()), "new workers")  # noqa: B023
            eventually(lambda: load.done > done + 100 or load.lost, "more requests")  # noqa: B023
    assert load.lost == []
    assert load.done > 100


def test_recycling_under_load_loses_no_request(start, mode):
    server = start("raw", "--workers", "2", *MODES[mode], *CLEARTEXT, "--max-requests", "200")
    with Load(server) as load:
        eventually(lambda: load.done > 1000 or load.lost, "1000 requests", deadline=2 * DEADLINE)
    server.log.wait_for(r"Worker replaced \(pid")
    assert load.lost == []
