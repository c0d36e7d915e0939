"""Idle connections of a worker that exits: other workers continue with them, invisibly to clients (docs/signals.md)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections import Counter

import pytest
from conftest import CONCURRENCY
from harness import MLWS, eventually, gone, refuses_connections
from wire import Wire

PATIENT = ("--keep-alive", "600", "--head-timeout", "600")
"""Long timeouts, so that only the shutdown closes a connection, even on a loaded machine."""


class Pool:
    """Keep-alive connections of one client, of which at most one is in use."""

    def __init__(self, connect, size=8):
        self.posted = 0
        self._stack = contextlib.ExitStack()
        self._wires = [self._stack.enter_context(connect()) for _ in range(size)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def post(self):
        """A POST on the connection that has been idle for the longest time.

        The server must answer it and keep the connection.
        """
        self.posted += 1
        body = b"%d" % self.posted
        wire = self._wires[self.posted % len(self._wires)]
        answer = wire.request("/inputs/echo", "POST", body)
        assert (answer.status, answer.body, answer.header("connection")) == (200, body, None)

    def post_on_each(self):
        for _ in self._wires:
            self.post()

    def post_until(self, condition, message):
        """Sends POSTs until the condition holds, and one more on each connection."""

        def holds():
            self.post()
            return condition()

        eventually(holds, message, pause=0)
        self.post_on_each()


def connector(server, path=None):
    return (lambda: Wire(str(path), socket.AF_UNIX)) if path else server.wire


def workers_of(server, preload):
    """The pids of the workers, which with `--preload` are grandchildren of the master."""
    masters = server.workers() if preload else [server.pid]
    return {process.pid for process in server.family() if process.parent in masters}


def reload_under(server, pool, preload=False):
    """One HUP while the pool sends requests, until all old workers are gone."""
    before = workers_of(server, preload)
    assert before
    os.kill(server.pid, signal.SIGHUP)
    pool.post_until(lambda: all(gone(worker) for worker in before), "the old workers to be gone")


@pytest.mark.parametrize("listener", ["tcp", "unix"])
@pytest.mark.parametrize("preload", [False, True], ids=["loaded", "preloaded"])
def test_repeated_reloads_close_no_connection_and_fail_no_post(
    start, concurrency, preload, listener, tmp_path, at_length
):
    path = tmp_path / "socket" if listener == "unix" else None
    options = [*CONCURRENCY[concurrency], *PATIENT, "--workers", "2", *["--preload"] * preload]
    server = start("raw", *options, *(("--bind", f"unix:{path}") if path else ()))
    with Pool(connector(server, path)) as pool:
        pool.post_on_each()
        for _ in range(at_length(2, 100)):
            reload_under(server, pool, preload)


def test_continuous_recycling_closes_no_connection_and_fails_no_post(start, concurrency, at_length):
    options = (*CONCURRENCY[concurrency], *PATIENT, "--workers", "2", "--max-requests", "30")
    server = start("raw", *options)
    with Pool(server.wire) as pool:
        for count in range(1, at_length(3, 100) + 1):
            pool.post_until(
                lambda count=count: server.log.text.count("Worker replaced") >= count, "recycling"
            )


def test_idle_connections_move_to_other_workers_when_a_worker_is_removed(start):
    server = start("raw", *PATIENT, "--workers", "3")
    with Pool(server.wire, size=12) as pool:
        pool.post_on_each()
        for left in (2, 1):
            os.kill(server.pid, signal.SIGTTOU)
            pool.post_until(lambda left=left: len(server.workers()) == left, f"{left} workers")


def test_the_connection_of_a_request_that_runs_during_a_reload_stays_open(start, gate):
    server = start("raw", "--threads", "4", *PATIENT)
    (old,) = server.workers()
    with server.wire() as wire:
        wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        gate.wait_for(1)
        os.kill(server.pid, signal.SIGHUP)
        server.log.wait_for("Reload complete")
        gate.open()
        answer = wire.answer()
        assert (answer.text, answer.header("connection")) == ("passed\n", None)
        eventually(lambda: gone(old), "the old worker to be gone")
        assert wire.request("/answers/hello").text == "hello\n"


def test_a_connection_without_a_request_is_handed_over_too(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], *PATIENT)
    with server.wire() as silent, Pool(server.wire) as pool:
        reload_under(server, pool)
        answer = silent.request("/answers/hello")
        assert (answer.text, answer.header("connection")) == ("hello\n", None)


def test_the_proxy_header_of_a_connection_applies_after_the_handover(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], *PATIENT, "--workers", "2", "--proxy-protocol")
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "PROXY_ADDR", "PROXY_PORT", "SERVER_PORT", "wsgi.url_scheme")

    def seen(wire):
        environ = json.loads(wire.request("/environs/show", headers="X-Forwarded-Proto: https\r\n").text)[
            "environ"
        ]
        return tuple(environ.get(key) for key in keys)

    def connect():
        wire = server.wire()
        wire.send(b"PROXY TCP4 192.0.2.9 192.0.2.80 9 443\r\n")
        return wire

    with server.wire() as known, server.wire() as unknown, server.wire() as late, Pool(connect) as pool:
        known.send(b"PROXY TCP4 192.0.2.1 192.0.2.80 4711 443\r\n")
        unknown.send(b"PROXY UNKNOWN\r\n")
        before = seen(known), seen(unknown)
        assert before[0] == ("192.0.2.1", "4711", "192.0.2.80", "443", str(server.port), "http")
        assert before[1] == ("127.0.0.1", before[1][1], None, None, str(server.port), "http")
        for _ in range(2):
            reload_under(server, pool)
            assert (seen(known), seen(unknown)) == before
        late.send(b"PROXY TCP6 2001:db8::1 ::1 7 443\r\n")
        assert seen(late) == ("2001:db8::1", "7", "::1", "443", str(server.port), "http")


def test_each_connection_keeps_its_listener_when_a_reload_changes_the_addresses(start, tmp_path):
    config = tmp_path / "gunicorn.conf.py"
    kept, removed = tmp_path / "kept", tmp_path / "removed"

    def write(*paths):
        config.write_text(f"bind = {[f'unix:{path}' for path in paths]}\nkeepalive = 600\n")

    write(removed, kept)
    server = start("raw", "-c", config, command=(MLWS,), bind=None)
    with Wire(str(removed), socket.AF_UNIX) as last, Pool(connector(server, kept)) as pool:
        assert last.request("/answers/hello").header("connection") is None
        write(kept)
        reload_under(server, pool)
        answer = last.request("/answers/hello")
        assert (answer.text, answer.header("connection")) == ("hello\n", "close")
        assert last.closed()


def test_a_stuck_worker_hands_over_its_idle_connections(start, record):
    server = start("raw", "--threads", "1", "--timeout", "1", *PATIENT)
    with server.wire() as idle, server.wire() as hanging:
        assert idle.request("/answers/hello").status == 200
        hanging.send(f"GET /hangs/blocks?record={record} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert hanging.answer().status == 504
        server.log.wait_for("exiting with status 75: a thread is stuck in the application")
        answer = idle.request("/answers/hello")
        assert (answer.text, answer.header("connection")) == ("hello\n", None)


def test_connections_that_are_handed_over_are_distributed_over_the_workers(start):
    server = start("raw", *PATIENT, "--workers", "4", "--threads", "1")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(200)]
        for wire in wires:
            assert wire.request("/answers/hello").status == 200
        with Pool(server.wire) as pool:
            reload_under(server, pool)
        shares = Counter(wire.request("/gates/pid").body for wire in wires)
        print(f"200 connections: {sorted(shares.values())}")
        assert len(shares) == 4
        assert all(25 <= share <= 100 for share in shares.values()), shares


# Shutdown: no worker continues


@pytest.mark.parametrize("preload", [False, True], ids=["loaded", "preloaded"])
def test_an_idle_connection_gets_one_more_response_at_shutdown(start, concurrency, preload):
    server = start("raw", *CONCURRENCY[concurrency], *PATIENT, "--workers", "2", *["--preload"] * preload)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(8)]
        for wire in wires:
            assert wire.request("/inputs/echo", "POST", b"x").header("connection") is None
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: refuses_connections(server), "the listening socket to be closed")
        for wire in wires:
            answer = wire.request("/inputs/echo", "POST", b"last")
            assert (answer.status, answer.body, answer.header("connection")) == (200, b"last", "close")
            assert wire.closed()
    assert server.wait() == 0


def test_an_idle_connection_closed_by_its_client_does_not_delay_the_shutdown(start):
    server = start("raw", *PATIENT, "--graceful-timeout", "600")
    with server.wire() as wire:
        assert wire.request("/answers/hello").status == 200
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: refuses_connections(server), "the listening socket to be closed")
    assert server.wait() == 0


def test_a_silent_client_does_not_cause_the_worker_to_be_killed(start):
    server = start("raw", *PATIENT, "--graceful-timeout", "3")
    with server.wire() as idle, server.wire() as silent:
        assert idle.request("/answers/hello").status == 200
        server.stop()
        assert idle.closed()
        assert silent.closed()
    assert "killed" not in server.log.text


def test_a_reload_just_before_a_shutdown_loses_no_connection(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency], *PATIENT, "--workers", "2")
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(server.wire()) for _ in range(8)]
        for wire in wires:
            assert wire.request("/answers/hello").status == 200
        os.kill(server.pid, signal.SIGHUP)
        server.log.wait_for("Reload complete")
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: refuses_connections(server), "the listening socket to be closed")
        for wire in wires:
            assert wire.request("/inputs/echo", "POST", b"last").body == b"last"
    assert server.wait() == 0
