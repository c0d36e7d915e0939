"""Signals to a running server, which clients do not notice."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import signal
import socket
import subprocess
import threading

import pytest
from conftest import CONCURRENCY
from harness import MLWS, Command, eventually, gone, processes
from wire import DEADLINE

APP = """
{top}
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{word} %d" % os.getpid()]
"""
PLAIN, PRELOADED = ("--workers", "2"), ("--workers", "2", "--preload")


class Pages:
    """An application in a file that can be replaced."""

    def __init__(self, directory):
        self.directory = directory
        self.write("first")

    def write(self, word, top=""):
        new = self.directory / "new"
        new.write_text(APP.format(word=word, top=top))
        new.rename(self.directory / "pages.py")


@pytest.fixture
def pages(tmp_path):
    return Pages(tmp_path)


@pytest.fixture
def serve(start, pages):
    return lambda *options, **settings: start("pages:app", *options, cwd=pages.directory, **settings)


class Load:
    """Clients that send requests continuously, and record every wrong response."""

    def __init__(self, server, clients=4, keep_alive=True, pattern=rb"\w+ \d+"):
        self.server, self.keep_alive, self.pattern = server, keep_alive, re.compile(pattern)
        self.failures, self.answers, self._stop = [], [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self):
        client = None
        while not self._stop.is_set():
            try:
                if client is None:
                    client = http.client.HTTPConnection(self.server.host, self.server.port, timeout=30)
                client.request("GET", "/", headers={} if self.keep_alive else {"Connection": "close"})
                response = client.getresponse()
                body = response.read()
                if response.status != 200 or not self.pattern.fullmatch(body):
                    self.failures.append((response.status, body))
                self.answers.append(body)
                if response.will_close:
                    client.close()
                    client = None
            except Exception as error:  # noqa: PERF203 - whatever it is, a client has seen it
                self.failures.append(repr(error))
                client = None
        if client:
            client.close()

    def answered(self):
        return len(self.answers)

    def goes_on(self, answers=20):
        """Waits until that many more requests have been answered."""
        before = self.answered()
        eventually(lambda: self.failures or self.answered() >= before + answers, "more answers")


def word(server):
    return server.get("/").text.split()[0]


def reloads(server, count=1):
    """Sends HUP and waits until the new workers serve and the old ones are gone."""
    for _ in range(count):
        old, since = set(server.family_pids()), len(server.log.text)
        os.kill(server.pid, signal.SIGHUP)
        server.log.wait_for(r"\] Listening at: ", since)
        eventually(
            lambda old=old: not (old - {server.pid}) & set(server.family_pids()), "the old workers to go"
        )


@pytest.mark.parametrize("options", [PLAIN, PRELOADED, ("--fork",)], ids=" ".join)
def test_hup_reloads_the_code(serve, pages, options):
    server = serve(*options)
    assert word(server) == "first"
    pages.write("second")
    reloads(server)
    assert word(server) == "second"


@pytest.mark.parametrize("options", [PLAIN, PRELOADED], ids=" ".join)
def test_old_workers_keep_serving_if_new_code_is_broken(serve, pages, options):
    server = serve(*options)
    old = server.family_pids()
    pages.write("second", top="import nothing_of_this_name")
    os.kill(server.pid, signal.SIGHUP)
    server.log.wait_for("No module named 'nothing_of_this_name'")
    server.log.wait_for("Reload failed, keeping the previous workers")
    eventually(lambda: server.family_pids() == old, "nothing to be left of the attempt")
    assert word(server) == "first"
    pages.write("third")
    reloads(server)
    assert word(server) == "third"


def test_code_that_hangs_is_abandoned_and_the_log_shows_where(serve, pages):
    server = serve("--boot-timeout", "1")
    old = server.family_pids()
    pages.write("second", top="import threading; threading.Event().wait()  # for ever")
    os.kill(server.pid, signal.SIGHUP)
    server.log.wait_for("Worker boot timeout")
    server.log.wait_for(r'File ".*pages.py", line 2 in <module>')
    server.log.wait_for("Reload failed")
    eventually(lambda: server.family_pids() == old)
    assert word(server) == "first"


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "close"])
@pytest.mark.parametrize(
    "options", [PLAIN, PRELOADED, CONCURRENCY["inline"], CONCURRENCY["fork"]], ids=" ".join
)
def test_a_reload_is_invisible_to_clients(serve, pages, at_length, options, keep_alive):
    server = serve(*options)
    with Load(server, keep_alive=keep_alive) as load:
        for number in range(at_length(3, 100)):
            pages.write(f"word{number}")
            reloads(server)
            load.goes_on()
            assert word(server) == f"word{number}"
    assert load.failures == []
    assert load.answered() > 20


def test_hups_at_any_time_while_workers_are_killed(serve, pages, at_length):
    """A killed worker fails only its own requests; new connections are served."""
    server = serve("--workers", "4")
    chance = random.Random(4)
    with Load(server, keep_alive=False) as load:
        for _ in range(at_length(5, 100)):
            os.kill(server.pid, signal.SIGHUP)
            load.goes_on(chance.randrange(30))
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(chance.choice(server.workers()), signal.SIGKILL)
            load.goes_on(chance.randrange(30))
    # A kill interrupts only the requests of that worker. No connection is refused, and no response is wrong.
    assert not [failure for failure in load.failures if isinstance(failure, tuple)]
    assert not [failure for failure in load.failures if "Refused" in failure or "Timeout" in failure.title()]
    assert len(load.failures) <= 4 * at_length(5, 100)
    eventually(lambda: word(server) == "first")
    eventually(lambda: len(server.workers()) == 4, "four workers")


@pytest.mark.parametrize("options", [PLAIN, PRELOADED], ids=" ".join)
def test_ttin_and_ttou_change_the_number_of_workers(serve, options):
    server = serve(*options)
    count = len(server.family_pids())
    os.kill(server.pid, signal.SIGTTIN)
    eventually(lambda: len(server.family_pids()) == count + 1, "one worker more")
    os.kill(server.pid, signal.SIGTTOU)
    eventually(lambda: len(server.family_pids()) == count, "one worker fewer")
    assert word(server) == "first"


def test_winch_stops_the_workers_and_connections_wait_in_the_backlog(serve):
    server = serve(*PLAIN)
    os.kill(server.pid, signal.SIGWINCH)
    eventually(lambda: server.workers() == [], "no worker")
    with server.wire() as wire:  # the socket is open, but no process accepts
        wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        os.kill(server.pid, signal.SIGHUP)
        assert wire.answer().status == 200


@pytest.mark.parametrize("options", [(), ("--fork",), ("--preload",)], ids=["plain", "fork", "preload"])
def test_usr1_reopens_the_logs(serve, pages, options):
    log, moved = pages.directory / "access.log", pages.directory / "access.log.1"
    server = serve(*options, "--access-logfile", log)
    server.get("/before")
    eventually(lambda: "/before" in log.read_text(), "the line of the first request")
    log.rename(moved)
    os.kill(server.pid, signal.SIGUSR1)
    # The master reopens it first, then its workers in any order.
    eventually(lambda: server.get("/after").status == 200 and log.exists() and "/after" in log.read_text())
    assert "/before" not in log.read_text()
    os.kill(server.workers()[0], signal.SIGUSR1)
    assert word(server) == "first"


def second_master(server):
    since = len(server.log.text)
    os.kill(server.pid, signal.SIGUSR2)
    pid = int(server.log.wait_for(r"New master started \(pid: (\d+)", since).group(1))
    server.log.wait_for(rf"\[{pid}\] \[INFO\] Listening at: ", since)
    return pid


def parent_of_workers(server):
    """With `--preload`: the process that has loaded the application, and its workers."""
    worker = int(server.get("/").text.split()[1])
    parent = next(process.parent for process in processes() if process.pid == worker)
    return parent, server.children(parent)


def test_with_preload_signals_to_the_parent_of_a_worker_reach_the_master(serve, pages):
    """An application sends them to `os.getppid()`."""
    server = serve(*PRELOADED)
    pages.write("second")
    os.kill(parent_of_workers(server)[0], signal.SIGHUP)
    eventually(lambda: word(server) == "second" and len(server.workers()) == 1, "the new code")
    for signum, count in [(signal.SIGTTIN, 3), (signal.SIGTTOU, 2)]:
        os.kill(parent_of_workers(server)[0], signum)
        eventually(lambda count=count: len(parent_of_workers(server)[1]) == count, f"{count} workers")
    assert server.log.text.count("Handling signal: HUP") == 1
    os.kill(parent_of_workers(server)[0], signal.SIGTERM)
    assert server.wait() == 0


def test_with_preload_a_signal_to_the_process_group_counts_once(serve):
    server = serve(*PRELOADED)
    parent, _ = parent_of_workers(server)
    os.killpg(server.pid, signal.SIGTTIN)
    eventually(lambda: server.log.text.count("Worker ready") == 4, "one more worker")
    os.kill(server.pid, signal.SIGTTOU)  # is handled after the forwarded signal of the group
    eventually(lambda: len(server.children(parent)) == 2, "one worker less")
    assert server.log.text.count("Workers increased") == 1


def test_usr2_follows_the_symlink_of_a_release(tmp_path, start):
    releases = [Pages(tmp_path / name) for name in ("1", "2") if not (tmp_path / name).mkdir()]
    releases[1].write("second")
    current = tmp_path / "current"
    current.symlink_to("1")
    server = start("pages:app", "--pid", tmp_path / "pid", cwd=current, env={"PWD": str(current)})
    assert word(server) == "first"
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(current)
    second = second_master(server)
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    assert word(server) == "second"
    os.kill(second, signal.SIGTERM)
    eventually(lambda: not server.family(), "the group to be empty")


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix"])
def test_usr2_can_be_reverted_and_repeated(start, pages, bind):
    path = pages.directory / "socket"
    bind = f"unix:{path}" if bind == "unix" else bind
    server = start("pages:app", *PLAIN, "--bind", bind, cwd=pages.directory)

    def answer():
        with socket.socket(socket.AF_UNIX if bind.startswith("unix") else socket.AF_INET) as wire:
            wire.connect(str(path) if bind.startswith("unix") else (server.host, server.port))
            wire.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: wire.recv(4096), b"")).rpartition(b"\r\n")[2].split()[0].decode()

    pages.write("second")
    second = second_master(server)
    eventually(lambda: answer() == "second", "the new code")
    eventually(lambda: answer() == "first", "the old code beside it")
    os.kill(second, signal.SIGTERM)  # the upgrade is reverted
    eventually(lambda: gone(second), "the second master to go")
    server.log.wait_for("this master keeps serving")
    assert {answer() for _ in range(10)} == {"first"}
    second = second_master(server)
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    server.log.wait_for("this master takes over")
    assert {answer() for _ in range(10)} == {"second"}
    os.kill(second, signal.SIGTERM)
    eventually(lambda: not server.family(), "the group to be empty")
    assert not path.exists()


def test_a_binary_upgrade_is_invisible_to_clients(serve):
    server = serve(*PLAIN)
    with Load(server) as load:
        second = second_master(server)
        load.goes_on()
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 0
        load.goes_on()
    assert load.failures == []
    os.kill(second, signal.SIGTERM)
    eventually(lambda: not server.family(), "the group to be empty")


def test_a_client_that_keeps_sending_requests_receives_connection_close(serve):
    server = serve()
    with server.wire() as wire:

        def asked_again():
            wire.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            return wire.answer().header("connection") == "close"

        assert not asked_again()
        os.kill(server.pid, signal.SIGTERM)
        eventually(asked_again, "the last answer")
        assert wire.closed()


@pytest.mark.parametrize("name", ["HUP", "USR1", "TTIN"])
def test_a_signal_at_the_moment_of_listening_does_not_kill_the_server(serve, pages, name):
    (pages.directory / "gunicorn.conf.py").write_text(
        f"import os, signal\ndef when_ready(server):\n    os.kill(os.getpid(), signal.SIG{name})\n"
    )
    server = serve("--config", "gunicorn.conf.py")
    server.log.wait_for(f"Handling signal: {name}")
    assert word(server) == "first"


def test_a_term_at_any_moment_of_the_start_leaves_nothing_behind(pages, at_length):
    chance = random.Random(5)
    for _ in range(at_length(20, 1000)):
        with Command(MLWS, "pages:app", *PLAIN, "--bind", "127.0.0.1:0", cwd=pages.directory) as server:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(chance.random() * 0.3)
            # Before there is a master, TERM kills the command as it would any.
            server.stop(statuses=(0, -signal.SIGTERM))


# Notifications to service managers.


def receive_until(manager, words):
    """Receives notifications until one contains these words, and returns it."""
    while words not in (message := manager.recv(1000).decode()):
        pass
    return message


def test_a_service_manager_is_notified_of_a_reload_and_its_result(serve, pages, manager):
    server = serve(env={"NOTIFY_SOCKET": manager.getsockname()})
    receive_until(manager, "READY=1")
    os.kill(server.pid, signal.SIGHUP)
    assert re.search(r"MONOTONIC_USEC=\d+", receive_until(manager, "RELOADING=1"))
    assert "serving on" in receive_until(manager, "READY=1")
    pages.write("broken", top="import nothing_of_this_name")
    os.kill(server.pid, signal.SIGHUP)
    receive_until(manager, "RELOADING=1")
    assert "reload failed" in receive_until(manager, "READY=1")


def test_a_service_manager_with_a_watchdog_receives_keepalives(serve, manager):
    serve("--preload", env={"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "100000"})
    for _ in range(5):
        receive_until(manager, "WATCHDOG=1")


def test_a_new_master_is_the_main_process_until_it_stops(serve, manager):
    server = serve(env={"NOTIFY_SOCKET": manager.getsockname()})
    receive_until(manager, "READY=1")
    second = second_master(server)
    receive_until(manager, f"MAINPID={second}")
    os.kill(second, signal.SIGTERM)
    receive_until(manager, f"MAINPID={server.pid}")


def content(path):
    """The content of a file that other processes create and remove meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return None


def test_a_new_master_takes_over_the_pidfile_after_the_old_one_exits(serve, pages):
    pidfile = pages.directory / "pid"
    server = serve("--pid", pidfile)
    second = second_master(server)
    assert pidfile.read_text() == f"{server.pid}\n"
    assert (pages.directory / "pid.2").read_text() == f"{second}\n"
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0
    eventually(lambda: content(pidfile) == f"{second}\n", "the pidfile to be taken over")
    os.kill(second, signal.SIGTERM)
    eventually(lambda: not server.family(), "the group to be empty")
    assert list(pages.directory.glob("pid*")) == []


def test_a_daemon_hands_over_to_a_new_master(pages):
    pidfile, log = pages.directory / "pid", pages.directory / "log"
    words = ("--daemon", "--pid", str(pidfile), "--error-logfile", str(log), "--bind", "127.0.0.1:0")
    subprocess.run([MLWS, "pages:app", *words], cwd=pages.directory, check=True, timeout=2 * DEADLINE)
    first = int(pidfile.read_text())
    second = None
    try:
        os.kill(first, signal.SIGUSR2)
        eventually(lambda: log.read_text().count("] Listening at: ") == 2, "both to serve")
        second = int((pages.directory / "pid.2").read_text())
        os.kill(first, signal.SIGTERM)
        eventually(lambda: content(pidfile) == f"{second}\n", "the pidfile to be taken over")
        assert gone(first)
    finally:
        for pid in filter(None, (first, second)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            eventually(lambda pid=pid: gone(pid), "the daemon to go")
