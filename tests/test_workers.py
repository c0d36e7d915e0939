"""The master and its workers: listeners, serving, replacement and shutdown."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest
from conftest import CONCURRENCY
from harness import Server, Wire, eventually, gone, refuses_connections

INLINE, FORK = CONCURRENCY["inline"], CONCURRENCY["fork"]


def ask(server, path):
    wire = server.wire()
    wire.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return wire


def worker_pids(server, count=3):
    """The pids of all workers, once there are that many."""
    return eventually(lambda: len(pids := server.workers()) == count and sorted(pids), f"{count} workers")


def test_there_is_a_master_and_the_configured_number_of_workers(start):
    assert len(start("raw").workers()) == 1
    assert len(start("raw", "--workers", "3").workers()) == 3


def test_all_workers_serve(start, gate):
    """Three requests that wait inside the apps of three single-threaded workers."""
    server = start("raw", "--workers", "3", "--threads", "1")
    wires = []
    for number in range(3):
        wires.append(ask(server, gate.path))
        gate.wait_for(number + 1)
    assert sorted(gate.pids()) == sorted(server.workers())
    gate.open()
    for wire in wires:
        assert wire.answer().text == "passed\n"
        wire.close()


@pytest.mark.parametrize(
    "signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM], ids=lambda signum: signum.name
)
def test_a_worker_that_is_killed_is_replaced(start, signum):
    server = start("raw", "--workers", "3")
    before = worker_pids(server)
    os.kill(before[0], signum)
    eventually(lambda: gone(before[0]))
    after = eventually(lambda: (pids := worker_pids(server)) != before and pids, "a new worker")
    assert set(before[1:]) < set(after)
    assert server.zombies() == []
    if signum != signal.SIGTERM:
        server.log.wait_for(signum.name)
    for _ in range(20):
        assert server.get("/answers/hello").text == "hello\n"


def test_other_workers_keep_serving_while_one_is_killed_repeatedly(start):
    server = start("raw", "--workers", "2")
    for _ in range(3):
        victim, survivor = worker_pids(server, 2)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda pid=victim: gone(pid))
        eventually(
            lambda pid=survivor: json.loads(server.get("/gates/pid").text) == pid or server.workers() != [pid]
        )
    worker_pids(server, 2)


@pytest.mark.parametrize(
    "options", [INLINE, ("--threads", "4"), FORK, ("--workers", "2", "--threads", "4")], ids=" ".join
)
def test_a_running_request_finishes_before_the_server_exits(start, gate, options):
    server = start("raw", *options)
    wire = ask(server, gate.path)
    gate.wait_for(1)
    os.kill(server.pid, signal.SIGTERM)
    server.log.wait_for("Shutting down: draining")
    # A worker whose only thread is inside the application handles it when that thread returns.
    if options != INLINE:
        eventually(lambda: refuses_connections(server), "the listening socket to be closed")
    assert server.running()
    gate.open()
    answer = wire.answer()
    assert (answer.status, answer.text) == (200, "passed\n")
    # A child does not know what happened to its parent after the fork.
    if options not in (INLINE, FORK):
        assert answer.header("connection") == "close"
    assert wire.closed()
    assert server.wait() == 0
    eventually(lambda: not server.family(), "the group to be empty")


@pytest.mark.parametrize("options", [INLINE, ("--threads", "4"), FORK, ("--workers", "2")], ids=" ".join)
def test_ctrl_c_in_a_terminal_stops_the_server_immediately(start, gate, options):
    """A terminal sends the signal to the process group, including children of --fork."""
    server = start("raw", *options)
    wire = ask(server, gate.path)
    gate.wait_for(1)
    os.killpg(server.pid, signal.SIGINT)
    server.log.wait_for("stopping workers immediately")
    assert server.wait() == 0
    assert wire.closed()
    eventually(lambda: not server.family(), "the group to be empty")
    assert "Traceback" not in server.log.text


@pytest.mark.parametrize("options", [INLINE, FORK], ids=" ".join)
def test_connections_in_the_backlog_are_served_before_the_server_exits(start, gate, options):
    """The only worker is paused, so that connections accumulate in the backlog."""
    server = start("raw", *options)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(ask(server, "/answers/hello")) for _ in range(300)]
        os.kill(server.pid, signal.SIGTERM)
        server.log.wait_for("Shutting down: draining")
        os.kill(worker, signal.SIGCONT)
        answers = [wire.answer() for wire in crowd]
    assert {answer.text for answer in answers} == {"hello\n"}
    if options != FORK:  # the first were perhaps answered before the signal was handled
        assert answers[-1].header("connection") == "close"
    assert server.wait() == 0


def test_a_response_that_is_being_read_finishes_before_the_server_exits(start):
    server = start("raw", "--threads", "4")
    with server.wire(receive_buffer=4096) as wire:
        wire.send(b"GET /answers/many?pieces=200&size=100000 HTTP/1.1\r\nHost: test\r\n\r\n")
        wire.head()
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: refuses_connections(server), "the listening socket to be closed")
        size = 0
        while chunk := wire.chunk():
            size += len(chunk)
    assert chunk == b""
    assert size == 20_000_000
    assert server.wait() == 0


def test_idle_and_silent_connections_do_not_delay_the_shutdown(start):
    server = start("raw", "--keep-alive", "1", "--head-timeout", "600", "--graceful-timeout", "600")
    with server.wire() as idle, server.wire() as silent:
        assert idle.request("/answers/hello").status == 200
        assert server.get("/answers/hello").status == 200
        server.stop()
        assert idle.closed()
        assert silent.closed()


def test_a_shutdown_under_load_truncates_no_response(start, concurrency):
    server = start("raw", *CONCURRENCY[concurrency])
    received = []

    def read_some():
        try:
            return server.talk(b"GET /answers/hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        except ConnectionResetError:
            return b""

    def client():
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                received.append(read_some())

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    eventually(lambda: len(received) > 200, "some load")
    server.stop()
    for thread in clients:
        thread.join()
    assert {answer[-6:] for answer in received} <= {b"hello\n", b""}


def test_a_request_that_never_ends_is_aborted_at_the_graceful_timeout(start, gate):
    server = start("raw", "--graceful-timeout", "1", "--timeout", "600")
    wire = ask(server, gate.path)
    gate.wait_for(1)
    os.kill(server.pid, signal.SIGTERM)
    server.wait()
    assert wire.closed()
    wire.close()
    eventually(lambda: not server.family(), "the group to be empty")


EVERY_MODE = [INLINE, ("--threads", "4"), FORK, ("--preload",), ("--preload", "--fork")]


@pytest.mark.parametrize("options", EVERY_MODE, ids=" ".join)
def test_a_term_to_every_process_and_then_another_let_a_running_request_finish(start, gate, options):
    server = start("raw", *options)
    with ask(server, gate.path) as wire:
        gate.wait_for(1)
        os.killpg(server.pid, signal.SIGTERM)
        server.log.wait_for("Shutting down: draining")
        os.killpg(server.pid, signal.SIGTERM)
        os.kill(server.pid, signal.SIGTERM)
        for worker in server.workers():
            os.kill(worker, signal.SIGTERM)
        # Each process has received the signals by then, except a main thread that is inside the application.
        eventually(lambda: not pending(server.pid, signal.SIGTERM), "the master to take the signals")
        gate.open()
        answer = wire.answer()
        assert (answer.status, answer.text) == (200, "passed\n")
    assert server.wait() == 0
    eventually(lambda: not server.family(), "the group to be empty")
    assert "stopping workers immediately" not in server.log.text
    assert "SIGTERM" not in server.log.text


def pending(pid, signum):
    """Returns whether the signal is pending for the process."""
    masks = re.findall(r"^(?:Shd|Sig)Pnd:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (signum - 1) & 1 for mask in masks)


@pytest.mark.parametrize("options", EVERY_MODE, ids=" ".join)
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT], ids=lambda signum: signum.name)
def test_int_and_quit_end_a_graceful_stop_immediately(start, gate, options, signum):
    server = start("raw", *options, "--graceful-timeout", "600", "--timeout", "600")
    wire = ask(server, gate.path)
    gate.wait_for(1)
    os.kill(server.pid, signal.SIGTERM)
    server.log.wait_for("Shutting down: draining")
    os.kill(server.pid, signum)
    server.wait()
    assert wire.closed()
    wire.close()
    eventually(lambda: not server.family(), "the group to be empty")


@pytest.mark.parametrize("options", [INLINE, ("--threads", "1", "--preload")], ids=" ".join)
def test_a_hanging_worker_exits_with_its_master(start, gate, options):
    server = start("raw", *options)
    wire = ask(server, gate.path)
    gate.wait_for(1)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    eventually(lambda: not server.family(), "the group to be empty")
    assert wire.closed()


@pytest.mark.parametrize("options", [(), ("--fork",), ("--workers", "3")], ids=["threads", "fork", "workers"])
def test_workers_exit_when_their_master_is_killed(start, options):
    server = start("raw", *options)
    assert server.get("/answers/hello").status == 200
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    eventually(lambda: not server.family(), "the group to be empty")
    with Server("raw", "--bind", f"127.0.0.1:{server.port}") as again:
        assert again.get("/answers/hello").text == "hello\n"


def test_the_same_port_can_be_bound_immediately_after_the_exit(start):
    server = start("raw")
    with server.wire() as wire:
        assert wire.request("/answers/hello").status == 200
        server.stop()
    again = start("raw", "--bind", f"127.0.0.1:{server.port}")
    assert again.get("/answers/hello").status == 200


def test_the_port_chosen_for_port_0_is_logged(start):
    server = start("raw")
    assert server.port > 0
    assert server.urls == [f"http://127.0.0.1:{server.port}"]


def test_two_addresses_are_served(start):
    server = start("raw", "--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--workers", "2")
    ports = [int(url.rpartition(":")[2]) for url in server.urls]
    assert len(set(ports)) == 2
    for port in ports * 5:
        with Wire(("127.0.0.1", port)) as wire:
            environ = json.loads(wire.request("/environs/show").text)["environ"]
            assert environ["SERVER_PORT"] == str(port)


def test_ipv6_is_served(start):
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = start("raw", "--bind", "[::1]:0")
    assert server.urls == [f"http://[::1]:{server.port}"]
    environ = json.loads(server.get("/environs/show").text)["environ"]
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"]) == ("::1", str(server.port))


def test_a_unix_socket_is_served_and_removed_at_exit(start, tmp_path):
    path = tmp_path / "socket"
    server = start("raw", "--bind", f"unix:{path}")
    assert server.urls == [f"unix:{path}"]
    with Wire(str(path), socket.AF_UNIX) as wire:
        environ = json.loads(wire.request("/environs/show").text)["environ"]
    assert environ["SERVER_NAME"]
    assert isinstance(environ["REMOTE_ADDR"], str)
    body = server.curl("--unix-socket", path, "http://test/answers/hello")
    assert body == b"hello\n"
    server.stop()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(start, tmp_path):
    path = tmp_path / "socket"
    first = start("raw", "--bind", f"unix:{path}")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    eventually(lambda: not first.family(), "the group to be empty")
    start("raw", "--bind", f"unix:{path}")
    with Wire(str(path), socket.AF_UNIX) as wire:
        assert wire.request("/answers/hello").text == "hello\n"


def policies(server):
    """The scheduling policies of the threads that run the app, without the main thread, which inherits its policy."""
    (worker,) = server.workers()
    names = {
        task.name: (task / "comm").read_text().strip() for task in Path(f"/proc/{worker}/task").iterdir()
    }
    return [
        os.sched_getscheduler(int(thread))
        for thread, name in names.items()
        if re.fullmatch(r"mlws-\d+", name)
    ]


@pytest.mark.parametrize(
    ("threads", "policy"),
    [(63, os.SCHED_OTHER), (64, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK)],
    ids=["few", "many"],
)
def test_many_threads_wake_without_interrupting_each_other(start, threads, policy):
    """An interrupted thread may hold the GIL, for which the woken one would only wait.

    Processes of the app are scheduled as usual.
    """
    server = start("raw", "--threads", str(threads))
    eventually(lambda: policies(server) == [policy] * threads, f"{threads} threads of that policy")
