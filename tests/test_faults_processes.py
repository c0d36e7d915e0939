"""Processes that die, hang or cannot be forked: workers, the children of `--fork`, the master."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest
from clients import ask
from harness import Gate, Server, eventually, gone
from soak import crowd, raise_descriptors, readable

HELLO = b"GET /answers/hello HTTP/1.1\r\nHost: test\r\n\r\n"
KILLS = {
    "killed": lambda wire, pid: os.kill(pid, signal.SIGKILL),
    "segfaults": lambda wire, pid: wire.send(b"GET /gates/die?how=segfault HTTP/1.1\r\nHost: test\r\n\r\n"),
}
NAMES = {"killed": "SIGKILL", "segfaults": "SIGSEGV"}


class Load:
    """Clients that send requests continuously, each on its own connection, until they are stopped.

    They expect no error.
    """

    def __init__(self, wires):
        self.answered = [0] * len(wires)
        self.errors = []
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask, args=pair) for pair in enumerate(wires)]

    def __enter__(self):
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, failure, *_):
        self._stop.set()
        for client in self._clients:
            client.join()
        assert failure or self.errors == []

    def _ask(self, number, wire):
        try:
            while not self._stop.is_set():
                assert wire.request("/answers/hello").text == "hello\n"
                self.answered[number] += 1
        except (OSError, AssertionError) as error:
            self.errors.append(repr(error))

    def goes_on(self):
        """Waits until each client has received further responses."""
        before = list(self.answered)

        def more():
            return self.errors or all(
                now > then + 10 for now, then in zip(self.answered, before, strict=False)
            )

        eventually(more, "answers under load")
        assert self.errors == []


def wires_to(server, wanted, stack):
    """A connection accepted by one of these workers, and the pid of that worker."""
    while True:
        wire = stack.enter_context(server.wire())
        pid = json.loads(wire.request("/gates/pid").text)
        if wanted(pid):
            return wire, pid


@pytest.mark.parametrize("how", KILLS)
@pytest.mark.parametrize("threads", ["1", "4"], ids=["inline", "threads"])
def test_a_worker_that_dies_under_load_fails_only_its_own_requests(start, threads, how, at_length):
    server = start("raw", "--workers", "2", "--threads", threads)
    for _ in range(at_length(2, 12)):
        since = len(server.log.text)
        with contextlib.ExitStack() as stack:
            survivor, at = wires_to(server, lambda pid: True, stack)
            others = [wires_to(server, lambda pid, at=at: pid == at, stack)[0] for _ in range(3)]
            doomed, victim = wires_to(server, lambda pid, at=at: pid != at, stack)
            with Load([survivor, *others]) as load:
                load.goes_on()
                KILLS[how](doomed, victim)
                assert doomed.closed()
                load.goes_on()
                eventually(lambda pid=victim: gone(pid))
                for _ in range(20):
                    assert server.get("/answers/hello").text == "hello\n"
                server.log.wait_for(rf"Worker exited unexpectedly \(pid: {victim}\), .*{NAMES[how]}", since)
                server.log.wait_for("Worker ready", since)
                load.goes_on()
        assert len(server.workers()) == 2
    assert server.zombies() == []


def test_children_that_die_under_load_fail_only_their_own_requests(start, gate, at_length):
    """Every second child at the gate is killed or segfaults while other clients are served."""
    server = start("raw", "--fork")
    worker = server.workers()
    wires = [ask(server, gate.path) for _ in range(at_length(8, 48))]
    gate.wait_for(len(wires))
    with (
        contextlib.ExitStack() as stack,
        Load([stack.enter_context(server.wire()) for _ in range(2)]) as load,
    ):
        victims = gate.pids()[::2]
        for number, pid in enumerate(victims):
            os.kill(pid, [signal.SIGKILL, signal.SIGSEGV][number % 2])
        load.goes_on()
        gate.open()
        answers = [wire.answer() for wire in wires]
        load.goes_on()
    assert sorted(answer.status for answer in answers) == [200] * (len(wires) // 2) + [500] * len(victims)
    for number, pid in enumerate(victims):
        server.log.wait_for(f"child {pid} .*{['SIGKILL', 'SIGSEGV'][number % 2]}")
    for wire in wires:
        assert wire.request("/answers/hello").text == "hello\n"
        wire.close()
    assert server.workers() == worker
    eventually(lambda: server.children() == [], "every child to be reaped")


def test_many_children_that_die_at_once_are_reaped_but_not_processes_of_the_app(
    start, gate, tmp_path, at_length
):
    """The worker is stopped while they die, so that it is notified of all of them at once.

    A process started by the app dies with them, and is left to the app.
    """
    (tmp_path / "helped.py").write_text(
        "import subprocess\nhelper = subprocess.Popen(['sleep', '1000'])\nfrom raw import application\n"
    )
    count = at_length(100, 1000)
    raise_descriptors(count + 500)
    options = ("--fork", "--max-children", str(count), "--timeout", "0", "--pythonpath", str(tmp_path))
    server = start("helped", *options)
    (worker,) = server.workers()
    (helper,) = server.children(worker)
    with crowd(server, count, f"GET {gate.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()) as clients:
        gate.wait_for(count)
        os.kill(worker, signal.SIGSTOP)
        for pid in [*gate.pids(), helper]:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(server.zombies()) == count + 1, "all of them to be dead")
        os.kill(worker, signal.SIGCONT)
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 500 ")
    eventually(lambda: server.children(worker) == [helper], "the children to be reaped, and no other")
    assert [process.pid for process in server.zombies()] == [helper]
    assert server.get("/answers/hello").text == "hello\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--workers", "2", "--threads", "1"),
        ("--workers", "2", "--threads", "4"),
        ("--workers", "2", "--fork"),
    ],
    ids=["inline", "threads", "fork"],
)
def test_a_killed_master_leaves_no_processes(start, gate, options):
    """This includes requests that run in children or threads, except one that blocks its worker's only thread."""
    server = start("raw", *options)
    family = server.family()
    wires = [] if "1" in options else [ask(server, gate.path) for _ in range(3)]
    gate.wait_for(len(wires))
    with crowd(server, 20, b"GET /answers/endless HTTP/1.1\r\nHost: test\r\n\r\n") as clients:
        readable(clients)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        if "--fork" not in options:
            gate.open()
        eventually(lambda: not server.family(), f"all of {family} to be gone")
    with Server("raw", "--bind", f"127.0.0.1:{server.port}") as again:
        assert again.get("/answers/hello").text == "hello\n"
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("path", ["/faults/spin", "/faults/spin_midway"])
def test_an_endless_loop_in_a_child_is_killed_at_the_timeout(start, path):
    server = start("raw", "--fork", "--timeout", "1")
    with ask(server, path) as wire:
        (child,) = eventually(server.children, "the child")
        assert server.get("/answers/hello").status == 200
        answer = wire.answer()
    expected = (504, True) if path == "/faults/spin" else (200, False)
    assert (answer.status, answer.complete) == expected
    eventually(lambda: gone(child))
    server.log.wait_for(f"child {child} was killed at the timeout")
    assert server.get("/answers/hello").status == 200


@pytest.fixture
def open_gate():
    """A gate for processes of any user."""
    with tempfile.TemporaryDirectory() as directory:
        gate = Gate(Path(directory))
        for path in [gate.directory, *gate.directory.iterdir()]:
            path.chmod(0o777)
        yield gate
        gate.end()


def test_a_failed_fork_is_a_503_with_retry_after(start, open_gate, tmp_path):
    """The limit does not apply to root, so the worker changes its user after all imports."""
    if os.getuid() != 0:
        pytest.skip("only root can make a user of whom there may be three processes")
    (tmp_path / "unprivileged.py").write_text(
        "import os, resource\n"
        "from raw import application\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))\n"
        "os.setresuid(54321, 54321, 54321)\n"
    )
    server = start("unprivileged", "--fork", "--timeout", "0", "--pythonpath", tmp_path)
    (worker,) = server.workers()
    running = [ask(server, open_gate.path) for _ in range(2)]
    open_gate.wait_for(2)
    for method in ["GET", "POST", "HEAD"]:
        with server.wire() as wire:
            answer = wire.request("/answers/hello", method)
            assert (answer.status, answer.header("retry-after")) == (503, "1")
            assert answer.header("connection") == "close"
            assert wire.closed()
    server.log.wait_for("forking a process for a request failed")
    open_gate.open()
    for wire in running:
        assert wire.answer().text == "passed\n"
        assert wire.request("/answers/hello").text == "hello\n"
        wire.close()
    assert server.workers() == [worker]
    eventually(lambda: server.children() == [], "every child to be reaped")


def test_requests_beyond_max_children_and_the_queue_get_503_with_retry_after(start, gate):
    """8,192 requests may wait. Later ones get an error immediately."""
    allowed, queue, over = 2, 8192, 20
    raise_descriptors(allowed + queue + over + 500)
    server = start("raw", "--fork", "--max-children", str(allowed), "--timeout", "0")
    (worker,) = server.workers()
    running = [ask(server, gate.path) for _ in range(allowed)]
    gate.wait_for(allowed)
    queued = ask(server, "/answers/hello")
    with crowd(server, queue - 1 + over, HELLO) as waiting:
        rejected = set()
        while len(rejected) < over:
            rejected.update(readable([client for client in waiting if client not in rejected]))
        assert len(rejected) == over
        for client in rejected:
            answer = client.recv(1000).lower()
            assert answer.startswith(b"http/1.1 503 ") and b"\r\nretry-after: 1\r\n" in answer
        assert len(server.children(worker)) == allowed
    gate.open()
    assert [wire.answer().text for wire in running] == ["passed\n"] * allowed
    assert queued.answer().text == "hello\n"
    for wire in [*running, queued]:
        wire.close()
    server.stop(signal.SIGQUIT)
