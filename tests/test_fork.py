"""`--fork`: each request runs in its own process, whose faults affect no other request."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
from clients import ask
from harness import eventually, gone

DEATHS = ["segfault", "exit", "clean exit", "SIGKILL", "SIGABRT"]


@pytest.fixture
def forking(shared):
    return shared("raw", "--fork")


def test_each_request_has_a_process_of_its_own(forking):
    with forking.wire() as wire:
        pids = [json.loads(wire.request("/gates/pid").text) for _ in range(20)]
    assert len(set(pids)) == 20
    assert not {forking.pid, *forking.workers()} & set(pids)
    assert all(eventually(lambda pid=pid: gone(pid)) for pid in pids)


def test_requests_run_concurrently(forking, gate):
    wires = [ask(forking, gate.path) for _ in range(8)]
    gate.wait_for(8)
    assert len(set(gate.pids())) == 8
    assert forking.get("/answers/hello").text == "hello\n"
    gate.open()
    for wire in wires:
        assert wire.answer().text == "passed\n"
        wire.close()


def test_a_connection_stays_open_across_children(forking):
    with forking.wire() as wire:
        one = b"POST /inputs/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n"
        wire.send(one + b"one" + one + b"two" + one + b"six")
        assert [wire.answer().text for _ in range(3)] == ["one", "two", "six"]
        assert wire.request("/answers/generator").text == "a generator"
        assert wire.request("/answers/hello").text == "hello\n"


def test_many_requests_leave_no_zombie_and_no_child(forking, many):
    with forking.wire() as wire:
        for _ in range(many(100)):
            assert wire.request("/answers/hello").status == 200
    for _ in range(many(100)):
        assert forking.get("/answers/hello").status == 200
    worker = forking.workers()[0]
    eventually(lambda: forking.children(worker) == [], "every child to be reaped")
    assert forking.zombies() == []


def test_changes_made_by_a_request_end_with_its_process(forking):
    with forking.wire() as wire:
        assert [wire.request("/gates/count").text for _ in range(3)] == ["1", "1", "1"]


@pytest.mark.parametrize("how", DEATHS)
def test_a_child_that_dies_is_a_500_for_its_request_only(forking, how):
    workers = forking.workers()
    with forking.wire() as other:
        assert other.request("/answers/hello").status == 200
        before = len(forking.log.text)
        with forking.wire() as wire:
            answer = wire.request(f"/gates/die?how={how.replace(' ', '%20')}")
        assert (answer.status, answer.complete) == (500, True)
        assert other.request("/answers/hello").status == 200
    forking.log.wait_for(r"\[(ERROR|WARN)", since=before)
    assert forking.workers() == workers


@pytest.mark.parametrize("how", DEATHS)
def test_a_child_that_dies_midway_truncates_the_response(forking, how):
    with forking.wire() as wire:
        answer = wire.request(f"/gates/die?sent=5&how={how.replace(' ', '%20')}")
        assert (answer.status, answer.body, answer.complete) == (200, b"xxxxx", False)
    assert forking.get("/answers/hello").status == 200


def test_the_signal_that_killed_a_child_is_in_the_log(forking):
    before = len(forking.log.text)
    assert forking.get("/gates/die?how=segfault").status == 500
    forking.log.wait_for("SIGSEGV|signal 11", since=before)


def test_a_child_that_exceeds_its_timeout_is_killed_and_its_client_gets_504(start, gate):
    server = start("raw", "--fork", "--timeout", "1")
    assert server.get(gate.path).status == 504
    assert eventually(lambda: gone(gate.pids()[0]))
    assert server.get("/answers/hello").status == 200


def test_a_child_that_exceeds_its_timeout_midway_is_killed_and_its_response_truncated(start, gate):
    server = start("raw", "--fork", "--timeout", "1")
    with server.wire() as wire:
        answer = wire.request(f"/gates/stream?gate={gate.directory}")
    assert (answer.status, answer.body, answer.complete) == (200, b"first\n", False)
    assert eventually(lambda: gone(gate.pids()[0]))


def test_max_children_is_respected_and_queued_requests_are_served(start, gate):
    server = start("raw", "--fork", "--max-children", "2")
    wires = [ask(server, gate.path) for _ in range(10)]
    gate.wait_for(2)
    assert len(server.children()) == 2
    gate.open()
    for wire in wires:
        assert wire.answer().text == "passed\n"
        wire.close()
    words = [what for what, _ in gate.entries()]
    assert max(words[:end].count("enter") - words[:end].count("leave") for end in range(21)) == 2


def test_a_client_that_disconnects_frees_its_place_in_the_queue(start, gate):
    server = start("raw", "--fork", "--max-children", "1")
    first = ask(server, gate.path)
    gate.wait_for(1)
    for _ in range(20):
        ask(server, "/answers/hello").close()
    last = ask(server, "/answers/hello")
    gate.open()
    assert first.answer().text == "passed\n"
    assert last.answer().text == "hello\n"
    first.close()
    last.close()


def test_a_child_holds_no_other_connection_open(forking, gate):
    """A connection that the parent closes is closed for its client, even if a child has inherited a copy."""
    with forking.wire() as other, forking.wire() as wire:
        assert other.request("/answers/hello").status == 200
        wire.send(f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        gate.wait_for(1)
        other.send(b"GET /answers/hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert other.rest().endswith(b"hello\n")
        gate.open()
        assert wire.answer().text == "passed\n"


def test_a_process_left_behind_by_the_app_keeps_no_connection_open(forking, gate):
    with forking.wire() as wire:
        wire.send(
            f"GET /gates/leave_child?gate={gate.directory} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode()
        )
        assert wire.rest().endswith(b"left\n")
    gate.wait_for(1)
    assert forking.get("/answers/hello").status == 200
    os.kill(
        gate.pids()[0], signal.SIGKILL
    )  # it may not have reached its FIFO yet, and would wait there forever


@pytest.mark.parametrize("options", [("--fork",), ("--threads", "4"), ("--threads", "1")], ids=" ".join)
def test_the_app_can_wait_for_its_own_processes(shared, options):
    server = shared("raw", *options)
    answers = []

    def run():
        answers.append(json.loads(server.get("/gates/run").text))

    clients = [threading.Thread(target=run) for _ in range(10)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert answers == [[0, 7, 0, "hi\n"]] * 10


FORKS_AND_STARTS = """
import os, signal, subprocess
def app(environ, start_response):
    forked = os.fork()
    while not forked:
        signal.pause()
    os.kill(forked, signal.SIGTERM)
    started = subprocess.Popen(["sleep", "600"])
    started.terminate()
    text = f"{os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])} {started.wait()}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"""


def test_a_request_ignores_term_but_the_processes_that_it_forks_and_starts_do_not(start, tmp_path):
    (tmp_path / "forks.py").write_text(FORKS_AND_STARTS)
    server = start("forks:app", "--fork", cwd=tmp_path)
    assert server.get("/").text == "-15 -15"


def test_several_workers_fork_too(start, gate):
    server = start("raw", "--fork", "--workers", "2")
    wires = [ask(server, gate.path) for _ in range(6)]
    gate.wait_for(6)
    assert len(server.workers()) == 2
    assert len(set(gate.pids())) == 6
    gate.open()
    for wire in wires:
        assert wire.answer().text == "passed\n"
        wire.close()


def test_the_warm_up_request_runs_once_before_the_first_fork(start):
    server = start("warm:app", "--fork", "--fork-warmup", "/warm?x=1")
    assert "Warm-up finished: /warm?x=1, status 200 OK" in server.log.text
    assert [server.get("/a").text, server.get("/b").text] == ["/warm /a", "/warm /b"]


def test_without_a_warm_up_the_first_fork_is_the_first_call(start):
    server = start("warm:app", "--fork")
    assert [server.get("/a").text, server.get("/b").text] == ["/a", "/b"]


def test_a_warm_up_that_fails_is_in_the_log_and_the_server_serves(start):
    server = start("warm:app", "--fork", "--fork-warmup", "/fails")
    assert "--fork-warmup /fails: status 500" in server.log.text
    assert "LookupError: on purpose" in server.log.text
    assert server.get("/a").text == "/fails /a"


def test_the_timeout_bounds_each_chunk_and_not_the_whole_response(start):
    server = start("raw", "--fork", "--timeout", "1")
    with server.wire() as wire:
        answer = wire.request("/hangs/slow_pieces")
    assert (answer.status, answer.complete, answer.text) == (200, True, "piece\n" * 8)
    assert "request timeout: " not in server.log.text


def test_the_timeout_bounds_the_close_of_a_response_too(start, gate):
    server = start("raw", "--fork", "--timeout", "1")
    assert server.get(f"/gates/after?gate={gate.directory}").text == "early\n"
    server.log.wait_for("request timeout: ")
    assert eventually(lambda: gone(gate.pids()[0]))
