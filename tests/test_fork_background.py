"""`--fork`: threads started by a request finish after its response, as they do at the exit of any Python program."""

from __future__ import annotations

import signal

import pytest
from harness import eventually, gone, refuses_connections


@pytest.fixture
def forking(shared):
    return shared("raw", "--fork")


def path(kind, gate, record):
    return f"/background/{kind}?gate={gate.directory}&record={record}"


def lines(record):
    return record.read_text().splitlines()


@pytest.mark.parametrize("kind", ["thread", "timer", "executor"])
def test_background_work_finishes_after_the_response(forking, gate, record, kind):
    assert forking.get(path(kind, gate, record)).text == "started\n"
    gate.wait_for(1)
    assert lines(record) == []
    gate.open()
    eventually(lambda: lines(record) == ["done"], "the background work")
    eventually(lambda: gone(gate.pids()[0]), "the child to exit")


def test_the_next_request_on_the_connection_does_not_wait_for_background_work(forking, gate, record):
    with forking.wire() as wire:
        for _ in range(3):
            assert wire.request(path("thread", gate, record)).text == "started\n"
            assert wire.request("/answers/hello").text == "hello\n"
        gate.wait_for(3)
        gate.open()
        eventually(lambda: lines(record) == ["done"] * 3, "the background work")


def test_pipelined_requests_do_not_wait_for_background_work(forking, gate, record):
    one = f"GET {path('thread', gate, record)} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    with forking.wire() as wire:
        wire.send(one * 3)
        assert [wire.answer().text for _ in range(3)] == ["started\n"] * 3
    gate.wait_for(3)


def test_the_connection_is_closed_before_background_work_ends(forking, gate, record):
    answer = forking.talk(
        f"GET {path('thread', gate, record)} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.endswith(b"started\n")
    gate.wait_for(1)
    assert lines(record) == []


def test_daemon_threads_end_with_the_response(forking, gate, record):
    with forking.wire() as wire:
        assert wire.request(path("daemon", gate, record)).text == "started\n"
        worker = forking.workers()[0]
        eventually(lambda: forking.children(worker) == [], "the child to exit")
    assert lines(record) == []


def test_output_of_background_work_is_flushed(start, gate, record):
    server = start("raw", "--fork", env={"PYTHONUNBUFFERED": ""})
    assert server.get(path("prints", gate, record)).text == "started\n"
    gate.open()
    server.out.wait_for("printed in the background")


def test_client_gone_is_true_for_background_work(forking, gate, record):
    with forking.wire() as wire:
        assert wire.request(path("asks_for_client", gate, record)).text == "started\n"
        gate.wait_for(1)
        assert wire.request("/answers/hello").text == "hello\n"
        gate.open()
        eventually(lambda: lines(record) == ["done", "gone True"], "the background work")
        assert wire.request("/answers/hello").text == "hello\n"


def test_background_work_past_the_timeout_is_killed_with_its_stack_in_the_log(start, gate, record):
    server = start("raw", "--fork", "--timeout", "1")
    with server.wire() as wire:
        assert wire.request(path("thread", gate, record)).text == "started\n"
        server.log.wait_for("background threads of child [0-9]+ have run past the timeout")
        server.log.wait_for("in pass_gate")
        assert eventually(lambda: gone(gate.pids()[0]))
        assert wire.request("/answers/hello").text == "hello\n"


def test_a_graceful_stop_waits_for_background_work(start, gate, record):
    server = start("raw", "--fork")
    assert server.get(path("thread", gate, record)).text == "started\n"
    gate.wait_for(1)
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: refuses_connections(server), "the server to accept no more")
    gate.open()
    assert server.wait() == 0
    assert lines(record) == ["done"]


def test_background_work_counts_against_max_children(start, gate, record):
    server = start("raw", "--fork", "--max-children", "1")
    assert server.get(path("thread", gate, record)).text == "started\n"
    gate.wait_for(1)
    with server.wire() as wire:
        wire.send(b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n")
        gate.open()
        assert wire.answer().text == "hello\n"
    assert lines(record) == ["done"]
